"""HTTP requests to the health endpoint, in memory."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure


class Answer(NamedTuple):
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Wire(StringTransport):
    """A client's connection."""

    protocol: Any = None
    aborted = False

    def loseConnection(self) -> None:
        if not self.disconnected:
            self.disconnected = self.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    def answer(self) -> Answer:
        head, _, body = self.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body)


def connect(factory: Any) -> Wire:
    wire = Wire()
    wire.protocol = factory.buildProtocol(None)
    wire.protocol.makeConnection(wire)
    return wire


def ask(factory: Any, path: str = "/health/ready", method: str = "GET", headers: str = "") -> Answer:
    """The answer to a request; the connection is closed behind it."""
    wire = connect(factory)
    wire.protocol.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    assert wire.disconnected
    return wire.answer()


def health(server: Any) -> Any:
    """The site of a whole server in memory, which listens on 8080."""
    (site,) = [factory for port, factory, *_ in server.reactor.tcpServers if port == 8080]
    return site
