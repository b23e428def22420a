"""Real sockets: one server, one query, nobody else."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import pytest
from rigs.fake_dns import Zone
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor

from mtatwist.dns.message import make_query
from mtatwist.dns.names import wire_name
from mtatwist.dns.network import Network, Server, ServerFailed, ask

ZONE = Zone("a.test A 192.0.2.9", "big.test TXT " + " ".join(["x" * 200] * 12))


class Servers:
    """A UDP socket and a TCP listener on one loopback port; ``serve`` answers what has come."""

    def __init__(self, family: int, host: str) -> None:
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.tcp = socket.socket(family, socket.SOCK_STREAM)
        self.tcp.bind((host, 0))
        self.server = Server(host, self.tcp.getsockname()[1])
        self.udp.bind((host, self.server.port))
        self.tcp.listen()
        self.clients: list[Any] = []
        self.connections: list[socket.socket] = []
        for each in (self.udp, self.tcp):
            each.setblocking(False)

    def close(self) -> None:
        for each in (self.udp, self.tcp, *self.connections):
            each.close()

    def serve(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data, client = self.udp.recvfrom(4096)
            self.clients.append(client)
            query = dns.message.from_wire(data)
            with contextlib.suppress(OSError), socket.socket(self.udp.family, socket.SOCK_DGRAM) as stranger:
                # The right words, from another port: the kernel lets them through to nobody.
                stranger.sendto(Zone("a.test A 203.0.113.66", "big.test TXT evil")(query).to_wire(), client)
            reply = ZONE(query)
            if len(reply.to_wire(max_size=65535)) > 1232:
                reply.flags |= dns.flags.TC
                reply.answer.clear()
            self.udp.sendto(reply.to_wire(), client)
        with contextlib.suppress(BlockingIOError):
            connection, _ = self.tcp.accept()
            connection.setblocking(False)
            self.connections.append(connection)
        for connection in self.connections:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                data = connection.recv(4096)
                if data:
                    reply = ZONE(dns.message.from_wire(data[2:])).to_wire(max_size=65535)
                    connection.sendall(len(reply).to_bytes(2, "big"))
                    connection.sendall(reply[:100])
                    connection.sendall(reply[100:])


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of the test's own, turned by hand."""
    made = SelectReactor()
    yield made
    made.removeAll()
    made.fireSystemEvent("shutdown")


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    made = Servers(*request.param)
    yield made
    made.close()


def outcome(reactor: Any, servers: Servers | None, server: Server, name: str, type: str = "A") -> Any:
    query = make_query(wire_name(name), dns.rdatatype.from_text(type), 4711)
    done: list[Any] = []
    Deferred.fromCoroutine(ask(Network(reactor), reactor, server, query, 5.0)).addBoth(done.append)
    for _ in range(2000):
        if done:
            break
        if servers is not None:
            servers.serve()
        reactor.iterate(0.005)
    (result,) = done
    return result


def test_over_udp(reactor: Any, servers: Servers) -> None:
    reply = outcome(reactor, servers, servers.server, "a.test")
    assert [record.to_text() for record in reply.records] == ["192.0.2.9"]
    assert len(servers.clients) == 1


def test_over_tcp(reactor: Any, servers: Servers) -> None:
    reply = outcome(reactor, servers, servers.server, "big.test", "TXT")
    assert reply.size > 2400


def test_every_query_has_a_port_of_its_own(reactor: Any, servers: Servers) -> None:
    for _ in range(20):
        outcome(reactor, servers, servers.server, "a.test")
    assert len({client[1] for client in servers.clients}) > 10


def test_a_closed_port_is_known_at_once(reactor: Any, servers: Servers) -> None:
    servers.close()
    failure = outcome(reactor, None, servers.server, "a.test")
    assert failure.check(ServerFailed)
    assert "refused" in str(failure.value)


def test_no_socket_is_left_behind(reactor: Any, servers: Servers) -> None:
    before = len(reactor.getReaders())
    outcome(reactor, servers, servers.server, "a.test")
    reactor.iterate(0)
    assert len(reactor.getReaders()) == before
