"""Writing at once, over real sockets: nothing lost, nothing out of order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mtatwist.output import Output


class Poller:
    """The part of a reactor that a connection needs; the test says when the socket can be written."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Any) -> None:
        pass

    removeReader = addReader

    def callLater(self, seconds: float, call: Any, *arguments: Any) -> None:
        call(*arguments)


class Pair:
    """A connection and its peer's socket, with small buffers."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        for end, option in ((ours, socket.SO_SNDBUF), (self.peer, socket.SO_RCVBUF)):
            end.setsockopt(socket.SOL_SOCKET, option, 4096)
            end.setblocking(False)
        self.poller: Any = Poller()
        self.lost: list[Any] = []
        protocol: Any = Protocol()
        protocol.connectionLost = self.lost.append
        self.connection: Any = Connection(ours, protocol, self.poller)
        self.connection.connected = True
        protocol.makeConnection(self.connection)
        self.output = Output(self.connection)

    def read(self) -> bytes:
        """What has arrived."""
        data = b""
        while True:
            try:
                part = self.peer.recv(65536)
            except BlockingIOError:
                return data
            if not part:
                return data
            data += part

    def turn(self) -> None:
        """The reactor finds the socket writable."""
        for writer in list(self.poller.writers):
            why = writer.doWrite()
            if why is not None:
                writer.connectionLost(Failure(why))

    def close(self) -> None:
        ours = getattr(self.connection, "socket", self.peer)
        for end in (ours, self.peer):
            end.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_small_reply_leaves_without_the_reactor(pair: Pair) -> None:
    pair.output.write(b"250 ok\r\n")
    pair.output.write(b"251 ok\r\n")
    assert pair.read() == b"250 ok\r\n251 ok\r\n"
    assert not pair.poller.writers


def test_order_is_kept_when_the_socket_is_full(pair: Pair) -> None:
    parts = [b"%06d" % number * 1000 for number in range(40)]
    arrived = b""
    for number, part in enumerate(parts):
        pair.output.write(part)
        if number % 7 == 3:
            arrived += pair.read()
    assert pair.poller.writers, "the rest waits for the reactor"
    while pair.poller.writers:
        pair.turn()
        arrived += pair.read()
    assert arrived + pair.read() == b"".join(parts)


def test_once_it_has_waited_everything_takes_the_long_way(pair: Pair) -> None:
    pair.output.write(b"x" * 200_000)
    first = pair.read()
    pair.output.write(b"last")
    arrived = first + pair.read()
    assert not arrived.endswith(b"last")
    while pair.poller.writers:
        pair.turn()
        arrived += pair.read()
    assert arrived == b"x" * 200_000 + b"last"


def test_a_lost_connection_is_found_out_by_the_transport(pair: Pair) -> None:
    pair.peer.close()
    pair.output.write(b"x")
    pair.output.write(b"y")
    pair.turn()
    assert pair.lost


def test_tls_goes_through_the_transport(pair: Pair) -> None:
    pair.output.through_transport()
    pair.output.write(b"secret")
    assert pair.read() == b""
    pair.turn()
    assert pair.read() == b"secret"


def test_a_connection_that_is_tls_already_is_left_to_the_transport() -> None:
    made = Pair()
    made.connection.TLS = True
    written: list[bytes] = []
    made.connection.write = written.append
    Output(made.connection).write(b"secret")
    assert (written, made.read()) == ([b"secret"], b"")
    made.close()


def test_a_transport_that_is_no_socket() -> None:
    transport = StringTransport()
    Output(transport).write(b"250 ok\r\n")
    assert transport.value() == b"250 ok\r\n"
