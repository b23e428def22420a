"""Sessions whose sockets are read together: what one of them does is nothing to the others."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from mtatwist.receive.gather import READS_A_ROUND, Gatherer

SECONDS = 10.0


class Echo(Protocol):
    """Says back what it hears; obeys a few words."""

    transport: Any
    others: list[Echo]

    def connectionMade(self) -> None:
        self.heard = b""
        self.lost: Failure | None = None
        self.others.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if data == b"crash":
            raise RuntimeError("a bug in one session")
        if data == b"pause":
            self.transport.pauseProducing()
        elif data == b"close":
            self.transport.loseConnection()
        elif data == b"abort the others":
            for other in self.others:
                if other is not self:
                    other.transport.abortConnection()
        else:
            self.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason


class Server:
    """A port on a reactor of its own that is turned by hand."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self.gatherer = Gatherer(self.reactor)
        self.sessions: list[Echo] = []
        factory = Factory.forProtocol(Echo)
        Echo.others = self.sessions
        self.port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port.transport = self.gatherer.transport
        self.clients: list[socket.socket] = []

    def turn_until(self, done: Callable[[], object]) -> None:
        ends = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < ends, "it never happened"
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.01)

    def connect(self) -> tuple[socket.socket, Echo]:
        before = len(self.sessions)
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        client.settimeout(SECONDS)
        self.clients.append(client)
        self.turn_until(lambda: len(self.sessions) > before)
        return client, self.sessions[-1]

    def said_to(self, client: socket.socket) -> bytes:
        """What the client hears next; b"" when its connection has been closed."""
        self.turn_until(lambda: select.select([client], [], [], 0)[0])
        return client.recv(100)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.port.stopListening()
        self.turn_until(lambda: all(session.lost for session in self.sessions))
        self.gatherer.connectionLost(Failure(ConnectionError()))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_all_sockets_are_one_descriptor_to_the_reactor(server: Server) -> None:
    for _ in range(5):
        server.connect()
    assert server.reactor.getReaders().count(server.gatherer) == 1
    assert not {session.transport for session in server.sessions} & set(server.reactor.getReaders())


def test_each_session_hears_its_own_client(server: Server) -> None:
    pairs = [server.connect() for _ in range(5)]
    for number, (client, _) in enumerate(pairs):
        client.sendall(b"%d" % number)
    server.turn_until(lambda: all(session.heard for _, session in pairs))
    for number, (client, session) in enumerate(pairs):
        assert session.heard == b"%d" % number
        assert server.said_to(client) == b"%d" % number


@pytest.mark.parametrize(("reset", "reason"), [(False, ConnectionDone), (True, ConnectionLost)])
def test_the_end_of_a_client_is_clean_but_for_a_reset(
    server: Server, reset: bool, reason: type[ConnectionDone] | type[ConnectionLost]
) -> None:
    client, session = server.connect()
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    server.turn_until(lambda: session.lost)
    assert session.lost is not None
    assert session.lost.check(reason)


def test_a_crash_costs_its_own_session_only(server: Server) -> None:
    bad, crashed = server.connect()
    good, other = server.connect()
    bad.sendall(b"crash")
    good.sendall(b"hello")
    server.turn_until(lambda: crashed.lost and other.heard)
    assert server.said_to(good) == b"hello"
    assert other.lost is None
    assert server.said_to(bad) == b""


def test_a_session_may_end_others_that_have_something_to_say(server: Server) -> None:
    """In the same round: of an ended one nothing is read any more."""
    first, _ = server.connect()
    others = [server.connect() for _ in range(3)]
    first.sendall(b"abort the others")
    for client, _ in others:
        client.sendall(b"late")
    server.turn_until(lambda: all(session.lost for _, session in others))
    first.sendall(b"still here")
    server.turn_until(lambda: server.sessions[0].heard.endswith(b"here"))
    assert server.said_to(first) == b"still here"


def test_a_paused_session_is_not_read_until_it_goes_on(server: Server) -> None:
    client, session = server.connect()
    other, heard = server.connect()
    client.sendall(b"pause")
    server.turn_until(lambda: session.heard)
    client.sendall(b"more")
    other.sendall(b"x")
    server.turn_until(lambda: heard.heard)
    assert session.heard == b"pause"
    session.transport.resumeProducing()
    server.turn_until(lambda: session.heard == b"pausemore")


def test_what_comes_while_others_are_read_is_read_in_the_same_turn(server: Server) -> None:
    first, speaker = server.connect()
    second, listener = server.connect()
    speaker.dataReceived = lambda data: second.sendall(b"an answer")  # type: ignore[method-assign]
    first.sendall(b"hello")
    select.select([server.gatherer], [], [], SECONDS)
    server.gatherer.doRead()
    assert listener.heard == b"an answer"


def test_who_never_stops_talking_lets_the_reactor_have_its_turn(server: Server) -> None:
    client, session = server.connect()
    reads = []

    def read(data: bytes) -> None:
        reads.append(data)
        client.sendall(b"more")

    session.dataReceived = read  # type: ignore[method-assign]
    client.sendall(b"more")
    select.select([server.gatherer], [], [], SECONDS)
    server.gatherer.doRead()
    assert len(reads) == READS_A_ROUND


def test_a_session_that_closes_is_done(server: Server) -> None:
    client, session = server.connect()
    client.sendall(b"close")
    server.turn_until(lambda: session.lost)
    assert server.said_to(client) == b""


def test_the_end_of_the_reactor_ends_them_all(server: Server) -> None:
    pairs = [server.connect() for _ in range(3)]
    for reader in server.reactor.removeAll():
        reader.connectionLost(Failure(ConnectionError("the reactor ends")))
    assert all(session.lost for _, session in pairs)
    assert all(client.recv(10) == b"" for client, _ in pairs)
