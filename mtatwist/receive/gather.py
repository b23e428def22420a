"""Reading many sessions at little cost: their sockets are polled together, beside the reactor.

The reactor hands each event of each descriptor out by itself, with a log context around it: for a session's short lines
that is a large part of the work. So the sockets of all listeners have an ``epoll`` of their own, which is the one
descriptor that the reactor sees. Writing, timers and the end of connections stay with Twisted.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()

READS_A_ROUND = 128
"""Reads before the reactor has its turn: some milliseconds."""


@implementer(IReadDescriptor)
class Gatherer:
    """Reads those of its sockets that have something. The reactor has it from the first of them on."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._sockets: dict[int, GatheredServer] = {}
        self._epoll: select.epoll | None = None

    def transport(self, *arguments: Any) -> GatheredServer:
        """(Port.transport) A connection that is read here."""
        return GatheredServer(self, *arguments)

    def add(self, socket: GatheredServer) -> None:
        """Read it from now on."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        number = socket.fileno()
        if number not in self._sockets:
            self._epoll.register(number, select.EPOLLIN)
            self._sockets[number] = socket

    def discard(self, socket: GatheredServer) -> None:
        """Don't read it any more."""
        number = socket.fileno()
        if self._epoll is not None and self._sockets.get(number) is socket:
            self._epoll.unregister(number)
            del self._sockets[number]

    # IReadDescriptor: the reactor's side.

    def fileno(self) -> int:
        """The number of our own ``epoll``: it can be read when one of its sockets can."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Who logs."""
        return "receive"

    def doRead(self) -> None:
        """Read all that have something, or have ended, as long as there are any.

        What they bring to the spool meanwhile is handed over together: fewer and larger groups cost less.
        """
        left = READS_A_ROUND
        while left > 0 and self._epoll is not None and (ready := self._epoll.poll(0, left)):
            left -= len(ready)
            for number, _ in ready:
                # What one session does may have ended another.
                socket = self._sockets.get(number)
                if socket is None:
                    continue
                try:
                    why = socket.doRead()
                except Exception:
                    _log.failure("connection_crashed")
                    why = CONNECTION_LOST
                if why is not None:
                    socket.ended(why)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, and all its connections with it."""
        for socket in list(self._sockets.values()):
            socket.connectionLost(reason)
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None


class GatheredServer(Server):
    """Twisted's own transport, but for who calls :meth:`doRead`."""

    def __init__(self, gatherer: Gatherer, *arguments: Any) -> None:
        self._gatherer = gatherer
        super().__init__(*arguments)

    def startReading(self) -> None:
        """See FileDescriptor."""
        self._gatherer.add(self)

    def stopReading(self) -> None:
        """See FileDescriptor."""
        self._gatherer.discard(self)

    def ended(self, why: ConnectionLost | ConnectionDone) -> None:
        """Reading has ended: act upon it as the reactor would."""
        self.stopReading()
        if why is CONNECTION_DONE:
            self.readConnectionLost(Failure(why))
        else:
            self.connectionLost(Failure(why))
