"""Makes a session for each connection, within bounds, and ends them all when the server stops."""

from __future__ import annotations

import ipaddress
import secrets
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TcpConnection
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure

from mtatwist.auth.client import counted_network
from mtatwist.output import Output
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.clock import Deadline
from mtatwist.receive.connection import ABORT_AFTER, Connection
from mtatwist.receive.login import Logins
from mtatwist.receive.protocol import ReceiveProtocol
from mtatwist.smtp.reply import DRAINING, SHUTDOWN, TOO_MANY_CONNECTIONS, Reply
from mtatwist.transaction import Session

if TYPE_CHECKING:
    from twisted.cred.portal import Portal

    from mtatwist.metrics.instruments import Instruments
    from mtatwist.validators.chain import Chain

_log = Logger()

TURNED_LIMIT = 16
"""Connections that may be in the middle of their TLS handshake only to be told that there is no room."""

PEERS_KNOWN = 4096
"""Addresses that a listener remembers."""

NO_LOGINS = Logins()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Sessions:
    """The open sessions of all listeners, counted in all and for each address: for IPv6, each /64, as one
    customer has at least that."""

    def __init__(self, connections: int, connections_per_address: int) -> None:
        self.limit(connections, connections_per_address)
        self._open: set[Connection] = set()
        self._by_network: Counter[str] = Counter()
        self._empty: Deferred[None] | None = None
        self.stopping = False
        self.draining = False
        self.turned: set[Turned] = set()

    def __len__(self) -> int:
        return len(self._open)

    def limit(self, connections: int, connections_per_address: int) -> None:
        """How many there may be from now on; what is open goes on."""
        self._connections = connections
        self._per_address = connections_per_address

    def limit_for(self, address: str) -> tuple[str, int] | None:
        """The limit that keeps one more session from ``address`` out, and its value; None if there is room.

        Addresses of unix sockets ("") count only in all.
        """
        if len(self._open) >= self._connections:
            return "limits.connections", self._connections
        if address and self._by_network[counted_network(address)] >= self._per_address:
            return "limits.connections_per_address", self._per_address
        return None

    def add(self, protocol: Connection) -> None:
        """A session began."""
        self._open.add(protocol)
        self._by_network[counted_network(protocol.session.peer)] += 1

    def discard(self, protocol: Connection) -> None:
        """A session ended."""
        if protocol not in self._open:
            return
        self._open.discard(protocol)
        network = counted_network(protocol.session.peer)
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
        if not self._open and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def drain(self, drain: bool) -> None:
        """Take no new mail, or (``drain`` False) take some again. Transactions that have begun go on to their end."""
        self.draining = drain
        for protocol in self._open:
            protocol.draining = drain

    def shut_down(self, clock: IReactorTime, grace: float) -> Deferred[None]:
        """Let transactions finish for ``grace`` seconds, then end every session; fires when none is left."""
        self.stopping = True
        done: Deferred[None] = Deferred()
        if not self._open:
            done.callback(None)
            return done
        self._empty = done
        late = clock.callLater(grace, self._end_all, True)
        self._end_all(now=False)

        def cancel(result: None) -> None:
            if late.active():
                late.cancel()

        return done.addCallback(cancel)

    def _end_all(self, now: bool) -> None:
        for protocol in list(self._open):
            protocol.shut_down(now)


class Turned(Protocol):
    """Says one reply to a connection that gets no session, and is gone."""

    transport: Any

    def __init__(self, reply: Reply, clock: IReactorTime, others: set[Turned]) -> None:
        """``others``: those that have to wait for their peer to hear them."""
        self._reply = reply
        self._others = others
        self._deadline = Deadline(clock, self._cut)

    def connectionMade(self) -> None:
        """Say it and close."""
        if isinstance(self.transport, TcpConnection) and not self.transport.TLS:
            # At once: a crowd must not hold descriptors until the next round of the reactor.
            Output(self.transport).write(self._reply.encode())
            self.transport.connectionLost(Failure(ConnectionDone()))
        elif len(self._others) >= TURNED_LIMIT:
            self.transport.abortConnection()
        else:
            self._others.add(self)
            self._deadline.set(ABORT_AFTER)
            self.transport.write(self._reply.encode())
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has heard us, or won't."""
        self._others.discard(self)
        self._deadline.cancel()

    def _cut(self) -> None:
        """A peer that stalls its TLS handshake would stay for ever."""
        self.transport.abortConnection()


class ReceiveFactory(smtp.SMTPFactory):
    """twisted.mail's factory for one listener."""

    noisy = False

    def __init__(
        self,
        portal: Portal,
        *,
        clock: IReactorTime,
        sessions: Sessions,
        chain: Chain,
        metrics: Instruments,
        hostname: str,
        limits: Limits,
        timeouts: Timeouts,
        networks: Sequence[Network] = (),
        role: str = "mx",
        tls_context: Any = None,
        implicit_tls: bool = False,
        logins: Logins = NO_LOGINS,
    ) -> None:
        """``networks`` may relay; ``tls_context`` is a context factory (None: no TLS); with ``implicit_tls`` the
        listener itself does TLS; ``logins`` count where the role is submission."""
        super().__init__(portal)
        self._clock = clock
        self.domain = hostname.encode("ascii")
        self._sessions = sessions
        self._chain = chain
        self._metrics = metrics
        self._limits = limits
        self._timeouts = timeouts
        # Peers come back: what their address means is worked out once.
        self._judge = lru_cache(maxsize=PEERS_KNOWN)(partial(_judge, tuple(networks)))
        self._role = role
        self._tls_context = tls_context
        self._implicit_tls = implicit_tls
        self._logins = logins if role == "submission" else NO_LOGINS

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A session, or a polite word when there are too many."""
        peer, trusted = self._judge(getattr(addr, "host", ""))
        limit = self._sessions.limit_for(peer)
        if self._sessions.stopping or self._sessions.draining or limit:
            self._metrics.sessions_refused.value += 1
            if self._sessions.stopping:
                _log.info("session_refused", peer=peer, why="stopping")
                return Turned(SHUTDOWN, self._clock, self._sessions.turned)
            if self._sessions.draining or not limit:
                _log.info("session_refused", peer=peer, why="draining")
                return Turned(DRAINING, self._clock, self._sessions.turned)
            _log.info("session_refused", peer=peer, limit=limit[0], value=limit[1])
            return Turned(TOO_MANY_CONNECTIONS, self._clock, self._sessions.turned)
        protocol = ReceiveProtocol(
            Session(secrets.token_hex(6), self._role, peer, trusted),
            limits=self._limits,
            timeouts=self._timeouts,
            metrics=self._metrics,
            clock=self._clock,
            ended=self._session_ended,
            check_header=self._chain.header,
            logins=self._logins,
            contextFactory=self._tls_context,
        )
        protocol.factory = self
        protocol.portal = self.portal
        protocol.host = self.domain
        if self._implicit_tls:
            protocol.startedTLS = True
        self._sessions.add(protocol)
        self._metrics.sessions.value += 1
        self._metrics.sessions_open.value = len(self._sessions)
        return protocol

    def _session_ended(self, protocol: Connection) -> None:
        self._sessions.discard(protocol)
        self._metrics.sessions_open.value = len(self._sessions)


def _judge(networks: Sequence[Network], host: str) -> tuple[str, bool]:
    """The peer's address in its plain form (::ffff:a.b.c.d is a.b.c.d), and whether it may relay."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "", False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), any(address in network for network in networks)
