"""Clients of the control socket, in memory; and a socket that only notes what it was told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols import amp

from mtatwist.control.callers import Callers, Peer
from mtatwist.control.commands import CODES, CONTRACT, ControlCommand, Hello
from mtatwist.control.connection import Responder
from mtatwist.control.server import ControlFactory
from mtatwist.metrics.instruments import Instruments

ROOT = Peer(0, 4711)


class Wire(StringTransport):
    """What a client reads."""

    def getHandle(self) -> Any:
        """A socket that is nobody's."""
        return None

    def abortConnection(self) -> None:
        """(ITransport) At once."""
        super().abortConnection()
        self.disconnecting = True


class Visitor:
    """One connection; ``said`` are the answers, in order, a box each."""

    def __init__(self, factory: ControlFactory, peer: Peer = ROOT) -> None:
        factory.peer_of = lambda connected: peer
        self.wire = Wire()
        self.connection: Any = factory.buildProtocol(None)
        if self.connection is not None:
            self.connection.makeConnection(self.wire)
        self._asked = 0

    @property
    def refused(self) -> bool:
        """Has the server hung up?"""
        return self.connection is None or self.wire.disconnecting

    def write(self, data: bytes) -> None:
        """Send octets."""
        self.connection.dataReceived(data)

    def send(self, command: type[ControlCommand], **arguments: Any) -> bytes:
        """Ask, and wait for nothing; gives what the answer will be known by."""
        box = command.makeArguments(arguments, None)
        self._asked += 1
        box[amp.COMMAND], box[amp.ASK] = command.commandName, b"%d" % self._asked
        self.write(box.serialize())
        return b"%d" % self._asked

    def answer(self, command: type[ControlCommand], asked: bytes) -> Any:
        """What was answered: the response, or an error's class and words; None: nothing yet."""
        for box in amp.parseString(self.wire.value()):
            if box.get(amp.ANSWER) == asked:
                return command.parseResponse(box, None)
            if box.get(amp.ERROR) == asked:
                kinds = {code: kind for kind, code in CODES.items()}
                return kinds[box[amp.ERROR_CODE]], box[amp.ERROR_DESCRIPTION].decode()
        return None

    def ask(self, command: type[ControlCommand], **arguments: Any) -> Any:
        """Ask; see answer()."""
        return self.answer(command, self.send(command, **arguments))

    def hello(self, token: str | None = None, contract: int = CONTRACT) -> Any:
        """Begin; see answer()."""
        return self.ask(Hello, contract=contract, token=token)

    def leave(self) -> None:
        """Hang up."""
        self.connection.connectionLost(SimpleNamespace(check=lambda *kinds: None))


class Site:
    """A control socket with responders of the test's own."""

    def __init__(self, responders: dict[type[ControlCommand], Responder], callers: Callers | None = None) -> None:
        self.clock, self.metrics = Clock(), Instruments()
        self.factory = ControlFactory(responders, callers or Callers(), clock=self.clock, metrics=self.metrics)

    def visitor(self, peer: Peer = ROOT) -> Visitor:
        """One who comes."""
        return Visitor(self.factory, peer)


class NotedSocket(Service):
    """See ControlSocket: it binds nothing."""

    def __init__(self, reactor: Any, path: str, factory: ControlFactory, *, mode: int, group: int | None) -> None:
        self.path, self.factory, self.mode, self.group = path, factory, mode, group
