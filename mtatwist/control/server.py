"""The server's end of the control socket: all connections together, and how many there may be."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from mtatwist.control.callers import Caller, Callers, Peer, peer_of
from mtatwist.control.commands import ControlCommand, Hello
from mtatwist.control.connection import ControlConnection, Responder

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

CLIENTS = 64
"""Connections at once; another is closed."""

OF_ONE_USER = 48
"""Those of one user: nobody keeps the others out."""

AT_ONCE = 4
"""Commands that are being done at once; the others wait."""

READERS_AT_ONCE = 2
"""The same, for those who may only look: they are not in the way of those who act."""


class ControlFactory(Factory):
    """Makes a connection for each client, within bounds."""

    noisy = False

    def __init__(
        self,
        responders: Mapping[type[ControlCommand], Responder],
        callers: Callers,
        *,
        clock: IReactorTime,
        metrics: Instruments,
        peer_of: Callable[[socket.socket], Peer] = peer_of,
    ) -> None:
        """``responders``: what is done for each command but Hello."""
        commands: tuple[type[ControlCommand], ...] = (Hello, *responders)
        self.commands = {each.commandName: each for each in commands}
        self.responders = responders
        self.callers = callers
        self.clock = clock
        self.metrics = metrics
        self.peer_of = peer_of
        self._turns = {True: DeferredSemaphore(AT_ONCE), False: DeferredSemaphore(READERS_AT_ONCE)}
        self.connections: set[ControlConnection] = set()

    def buildProtocol(self, address: IAddress | None) -> ControlConnection | None:
        """None: there are enough."""
        if len(self.connections) >= CLIENTS:
            self.metrics.control_crowded.value += 1
            return None
        return ControlConnection(self)

    def turns(self, caller: Caller) -> DeferredSemaphore:
        """Where a caller's commands wait."""
        return self._turns[caller.admin]

    def crowded(self, uid: int) -> bool:
        """Has this user more connections than one may have?"""
        return sum(each.uid == uid for each in self.connections) > OF_ONE_USER

    def stop(self) -> None:
        """Hang up on everybody."""
        for connection in list(self.connections):
            connection.hang_up()
