"""A network in memory: DNS servers as good or as bad as a test wants them, and a resolver that asks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtatwist.dns.cache import Cache
from mtatwist.dns.hosts import Hosts
from mtatwist.dns.network import Server
from mtatwist.dns.overrides import Overrides
from mtatwist.dns.resolver import Resolver
from mtatwist.dns.servers import Servers
from mtatwist.metrics.instruments import Instruments

ONE = Server("192.0.2.1", 53)
TWO = Server("192.0.2.2", 53)

IN_FLIGHT = 64

SOA = "ns.example. h.example. 1 3600 600 86400 60"

Said = bytes | dns.message.Message | OSError | None
"""What a server sends: octets or a message; OSError is its port being closed."""

Speak = Callable[[dns.message.Message], Said | Sequence[Said]]
"""Gives what a server sends when it gets a query."""


class Zone:
    """Records, as "name type data" or "name ttl type data" lines; says them to whom it is asked by."""

    def __init__(self, *lines: str, ad: bool = False) -> None:
        self.ad = ad
        self.asked: list[tuple[str, str]] = []
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl: dict[tuple[str, str], int] = {}
        for line in lines:
            self.add(line)

    def add(self, line: str) -> None:
        name, *rest = line.split(" ")
        ttl = int(rest.pop(0)) if rest[0].isdecimal() else 300
        key = (name, rest[0])
        self.records.setdefault(key, []).append(" ".join(rest[1:]))
        self.ttl[key] = ttl

    def __call__(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        type = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, type))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA | (dns.flags.AD if self.ad else 0)
        for _ in range(8):
            if (name, type) in self.records:
                reply.answer.append(self.rrset(name, type))
                return reply
            if (name, "CNAME") not in self.records:
                break
            reply.answer.append(self.rrset(name, "CNAME"))
            name = self.records[name, "CNAME"][0].rstrip(".")
        if not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text(name.rpartition(".")[2] + ".", 300, "IN", "SOA", SOA))
        return reply

    def rrset(self, name: str, type: str) -> dns.rrset.RRset:
        return dns.rrset.from_text(f"{name}.", self.ttl[name, type], "IN", type, *self.records[name, type])


def rcode(name: str) -> Speak:
    """A server that has nothing else to say."""

    def speak(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.from_text(name))
        return reply

    return speak


def silent(query: dns.message.Message) -> None:
    """A server that is away."""


def unreachable(query: dns.message.Message) -> None:
    """A host that does not even answer to a TCP connection."""


def refused(query: dns.message.Message) -> OSError:
    """A host without a server."""
    return Closed()


class Closed(OSError):
    strerror = "Connection refused"  # type: ignore[assignment]


class FakeNetwork:
    """See mtatwist.dns.network.Network. ``udp`` and ``tcp`` say what servers do; replies take ``latency`` seconds."""

    def __init__(self, clock: Clock, latency: float = 0.01) -> None:
        self.clock = clock
        self.latency = latency
        self.default: Speak = silent
        self.udp: dict[Server, Speak] = {}
        self.tcp: dict[Server, Speak] = {}
        self.sent: list[tuple[Server, str, dns.message.Message]] = []
        self.open = 0
        self.most_open = 0
        self.trouble: OSError | None = None

    def _opened(self) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    def say(self, server: Server, over: str, wire: bytes, receive: Callable[[Any], None]) -> None:
        """A server gets a query."""
        query = dns.message.from_wire(wire)
        self.sent.append((server, over, query))
        said = (self.udp if over == "udp" else self.tcp).get(server, self.default)(query)
        for each in said if isinstance(said, list | tuple) else [said]:
            if isinstance(each, dns.message.Message):
                each = each.to_wire()
            if each is not None:
                self.clock.callLater(self.latency, receive, each)

    def datagrams(self, server: Server, receive: Callable[[Any], None]) -> Datagrams:
        if self.trouble is not None:
            raise self.trouble
        self._opened()
        return Datagrams(self, server, receive)

    def connect(self, server: Server, factory: Any, seconds: float) -> Deferred[Any]:
        if server not in self.tcp:
            return fail(ConnectionRefusedError())
        if self.tcp[server] is unreachable:
            # As Twisted's endpoints have it.
            return Deferred(lambda connecting: connecting.errback(ConnectingCancelledError(server)))
        self._opened()
        stream = factory.buildProtocol(None)
        stream.makeConnection(Stream(self, server, stream))
        return succeed(stream)

    def asked(self) -> list[str]:
        """The servers that were sent queries, in order."""
        return [server.address for server, _, _ in self.sent]


class Datagrams:
    def __init__(self, network: FakeNetwork, server: Server, receive: Callable[[Any], None]) -> None:
        self.network = network
        self.server = server
        self.receive = receive
        self.closed = False

    def send(self, data: bytes) -> None:
        self.network.say(self.server, "udp", data, self.hear)

    def hear(self, data: Any) -> None:
        if not self.closed:
            self.receive(data)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self.network.open -= 1


class Stream:
    """The transport of a TCP connection."""

    disconnecting = False

    def __init__(self, network: FakeNetwork, server: Server, protocol: Any) -> None:
        self.network = network
        self.server = server
        self.protocol = protocol
        self.gone = False

    def write(self, data: bytes) -> None:
        self.network.say(self.server, "tcp", data[2:], self.hear)

    def hear(self, data: Any) -> None:
        if self.gone:
            return
        if isinstance(data, OSError):
            self.lose()
        else:
            self.protocol.dataReceived(len(data).to_bytes(2, "big") + data)

    def lose(self) -> None:
        if not self.gone:
            self.gone = True
            self.network.open -= 1
            self.protocol.connectionLost(Failure(ConnectionDone()))

    abortConnection = loseConnection = lose


class Rig:
    """A resolver, with a clock and a network of its own."""

    def __init__(
        self,
        zone: Speak | None = None,
        *,
        servers: Sequence[Server] = (ONE,),
        seconds: float = 10.0,
        entries: int = 100,
        minimum_ttl: float = 0.0,
        maximum_ttl: float = 3600.0,
        maximum_stale: float = 86400.0,
        trust_ad: bool = False,
        addresses: dict[str, list[str]] | None = None,
        forwards: dict[str, list[Server]] | None = None,
        known: dict[str, tuple[str, ...]] | None = None,
        system: Any = None,
        ipv6: bool = True,
        metrics: Instruments | None = None,
    ) -> None:
        self.clock: Any = Clock()
        self.clock.advance(1000)
        self.network = FakeNetwork(self.clock)
        self.metrics = metrics or Instruments()
        self.servers = list(servers)
        for server in servers:
            self.network.udp[server] = zone or Zone()
        self.cache = Cache(
            clock=self.clock,
            metrics=self.metrics,
            entries=entries,
            minimum_ttl=minimum_ttl,
            maximum_ttl=maximum_ttl,
            maximum_stale=maximum_stale,
        )
        self.resolver = Resolver(
            servers=Servers(lambda: self.servers, self.clock, self.metrics),
            overrides=Overrides(
                addresses=addresses or {}, servers=forwards or {}, clock=self.clock, metrics=self.metrics
            ),
            cache=self.cache,
            network=self.network,  # type: ignore[arg-type]
            clock=self.clock,
            metrics=self.metrics,
            seconds=seconds,
            in_flight=IN_FLIGHT,
            trust_ad=trust_ad,
        )
        self.hosts = Hosts(self.resolver, known=lambda: known or {}, system=system, ipv6=lambda: ipv6)

    def begin(self, name: str, type: str = "A", **settings: Any) -> list[Any]:
        """Look up; holds the answer or the exception once it is there."""
        return self.run(self.resolver.lookup(name, type, **settings))

    def run(self, coroutine: Any) -> list[Any]:
        """Begin something; holds its result."""
        done: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(
            lambda result: done.append(result.value if isinstance(result, Failure) else result)
        )
        return done

    def wait(self, done: list[Any], seconds: float = 60.0) -> Any:
        """The result, as soon as it is there."""
        end = self.clock.seconds() + seconds
        while not done:
            assert self.clock.seconds() < end, "no result"
            self.clock.advance(0.01)
        return done[0]

    def lookup(self, name: str, type: str = "A", **settings: Any) -> Any:
        """The answer, or the exception."""
        return self.wait(self.begin(name, type, **settings))

    def texts(self, name: str, type: str = "A") -> list[str]:
        """The records of an answer, as text."""
        return [record.to_text() for record in self.lookup(name, type).records]

    def addresses(self, host: str) -> Any:
        """The addresses of a host, or the exception."""
        return self.wait(self.run(self.hosts.addresses(host)))
