"""The servers that dialogues are replayed against: ours, and twisted.mail's own as it comes, for comparison."""

from __future__ import annotations

import re
from collections import deque
from ipaddress import ip_network
from typing import Any

from dialogue import Settings, Stored, Wire
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ISSLTransport, ITLSTransport, ITransport
from twisted.internet.task import Clock
from twisted.mail import smtp
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from zope.interface import directlyProvides, implementer

from mtatwist.auth.credentials import AuthUnavailable, ILogin, Login
from mtatwist.auth.mechanisms import REGISTRY
from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.delivery import Door, Realm
from mtatwist.receive.factory import ReceiveFactory, Sessions
from mtatwist.receive.login import Logins
from mtatwist.smtp.address import DomainSet
from mtatwist.smtp.reply import Reply
from mtatwist.spool.memory import MemorySpool, MemoryWriter
from mtatwist.transaction import Account, Transaction
from mtatwist.validators.chain import Chain
from mtatwist.validators.loop import Loop
from mtatwist.validators.parameters import Parameters
from mtatwist.validators.relay import Relay
from mtatwist.validators.send_as import SendAs
from mtatwist.validators.size import Size

HOSTNAME = "mx.example.org"


def _tls_interfaces(wire: Wire, inside: bool) -> None:
    directlyProvides(wire, ITransport, ISSLTransport if inside else ITLSTransport)


def make_wire(settings: Settings) -> Wire:
    """The transport of a connection from the dialogue's peer."""
    peer, host = IPv4Address("TCP", settings.peer, 40025), IPv4Address("TCP", "192.0.2.25", 25)
    return Wire(peer, host, _tls_interfaces, settings.tls == "implicit")


class SlowSpool(MemorySpool):
    """A spool in memory whose commits take a moment, as on a disk, and that can be full or fail."""

    def __init__(self, clock: Clock, state: str) -> None:
        super().__init__()
        self.clock, self.state = clock, state

    def has_room(self, size: int) -> bool:
        """Not when it is full."""
        return self.state != "full"

    def create(self, envelope: Envelope) -> SlowWriter:
        """See ISpool."""
        return SlowWriter(self, next(self._numbers), envelope)


class SlowWriter(MemoryWriter):
    """Commits in the next turn of the clock; may want a pause for each write, and may fail."""

    _spool: SlowSpool
    _aborted = False

    def write(self, data: bytes) -> Deferred[None] | None:
        """See ISpoolWriter."""
        super().write(data)
        if self._spool.state != "slow":
            return None
        taken: Deferred[None] = Deferred()
        self._spool.clock.callLater(0, taken.callback, None)
        return taken

    def commit(self) -> Deferred[Message]:
        """See ISpoolWriter: all trouble shows here."""
        done: Deferred[None] = Deferred()
        self._spool.clock.callLater(0, done.callback, None)
        return done.addCallback(lambda _: self._commit())

    def _commit(self) -> Deferred[Message]:
        if self._spool.state == "fails":
            return fail(OSError("the disk is broken"))
        assert not self._aborted
        return super().commit()

    def abort(self) -> None:
        """See ISpoolWriter."""
        self._aborted = True
        super().abort()


class Moody:
    """A validator that does what a dialogue says: it is slow, never answers, crashes or refuses, at its stages."""

    name = "moody"

    def __init__(self, setting: str, pending: deque[Deferred[Any]]) -> None:
        self._mood, _, stage = setting.partition(" at ")
        self._stages = (stage,) if stage else ("MAIL", "RCPT", "header")
        self._pending = pending

    def mail(self, transaction: Transaction) -> Any:
        """See IValidator."""
        return self._answer("MAIL")

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Any:
        """See IValidator."""
        return self._answer("RCPT")

    def header(self, transaction: Transaction, header: bytes) -> Any:
        """See IValidator."""
        return self._answer("header")

    def _answer(self, stage: str) -> Any:
        if not self._mood or stage not in self._stages:
            return None
        if self._mood == "refuses":
            return Reply(550, "5.7.1", "Not today")
        if self._mood == "crashes":
            raise RuntimeError("a secret of this server")
        later: Deferred[Any] = Deferred()
        if self._mood == "slow":
            self._pending.append(later)
        return later


USERS = {"alice": "secret", "grün": "größe"}
"""Who may log in."""


@implementer(ICredentialsChecker)
class MoodyChecker:
    """Knows USERS, and does what a dialogue says."""

    credentialInterfaces = (ILogin,)

    def __init__(self, mood: str, pending: deque[Deferred[Any]]) -> None:
        self.mood = mood
        self._pending = pending

    def requestAvatarId(self, credentials: Login) -> Any:
        """See ICredentialsChecker."""
        if self.mood == "unavailable":
            return fail(AuthUnavailable("the directory is away"))
        if self.mood == "crashes":
            raise RuntimeError("a secret of this server")
        later: Deferred[Any] = Deferred()
        if self.mood == "slow":
            self._pending.append(later)
        elif self.mood != "never answers":
            later.callback(None)
        return later.addCallback(lambda _: self._check(credentials))

    @staticmethod
    def _check(login: Login) -> Account:
        if not login.checkPassword(USERS.get(login.user, "").encode()):
            raise UnauthorizedLogin
        return Account(login.user, frozenset({f"{login.user}@example.org"}))


class OurServer:
    """Our receiver, with a spool in memory."""

    def __init__(self, settings: Settings, metrics: Instruments | None = None) -> None:
        """``metrics``: for several of them, where nobody looks: to make them takes a fifth of a short dialogue."""
        self.clock = Clock()
        self.pending: deque[Deferred[Any]] = deque()
        self.spool = SlowSpool(self.clock, settings.spool)
        self._settings = settings
        metrics = metrics or Instruments()
        domains = DomainSet([settings.relay_domains])
        limits = Limits(message_size=settings.message_size, errors=settings.errors, data_rate=1024)
        # By hand: finding out what each wants, as the registry does, takes longer than a short dialogue.
        policies: list[Any] = [
            Parameters(),
            Size(settings.message_size, self.spool.has_room),
            Relay(domains),
            SendAs(recipient_delimiter="+", from_mismatch="log", metrics=metrics),
            Loop(settings.hops),
            Moody(settings.validator, self.pending),
        ]
        chain = Chain(policies, metrics)
        door = Door(
            hostname=HOSTNAME,
            spool=self.spool,
            chain=chain,
            metrics=metrics,
            wake=lambda message: None,
            queue_time=lambda: 0.0,
            wall=lambda: 0.0,
            now=self.clock.seconds,
            message_size=settings.message_size,
            recipients=settings.recipients,
            domains=domains,
            postmaster="admin@example.org",
        )
        self._factory = ReceiveFactory(
            Portal(Realm(door), [AllowAnonymousAccess(), MoodyChecker(settings.checker, self.pending)]),
            clock=self.clock,
            sessions=Sessions(connections=10, connections_per_address=10),
            chain=chain,
            metrics=metrics,
            hostname=HOSTNAME,
            limits=limits,
            timeouts=Timeouts(handshake=30, command=300, data_init=120, data_block=180, data_done=600, session=1800),
            networks=[ip_network(settings.relay_networks)] if settings.relay_networks else [],
            role=settings.role,
            tls_context=None if settings.tls == "none" else object(),
            implicit_tls=settings.tls == "implicit",
            logins=Logins(
                {name.encode(): challenger for name, challenger in REGISTRY.items()},
                require_tls=settings.require_tls,
                failures=settings.failures,
            ),
        )

    def connect(self) -> Wire:
        """A new connection."""
        wire = make_wire(self._settings)
        wire.protocol = self._factory.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        if self._settings.tls == "implicit":
            wire.protocol.handshakeCompleted()
        return wire

    def stored(self) -> list[Stored]:
        """What is in the spool."""
        return [_stored(message) for _, message in sorted(self.spool.messages.items())]


_RECEIVED = re.compile(rb"Received: (?:.*\r\n[ \t])*.*\r\n")


_KEPT = ("body_type", "smtputf8", "ret", "envid", "peer", "helo", "protocol", "user")


def _stored(message: Message) -> Stored:
    envelope, body = message.envelope, message.body
    assert body is not None
    field = _RECEIVED.match(body)
    assert field is not None, body[:200]
    assert f"by {HOSTNAME} with {envelope.protocol} id {message.id}" in field[0].decode(), field[0]
    attributes = {name: str(getattr(envelope, name)) for name in _KEPT}
    attributes |= {name: ",".join(getattr(r, name) for r in envelope.recipients) for name in ("notify", "orcpt")}
    paths = [recipient.address for recipient in envelope.recipients]
    return Stored(envelope.reverse_path, paths, body[field.end() :], attributes)


_METRICS = Instruments()


def open_session(settings: Settings) -> OurServer:
    """Our receiver, for a dialogue: none says anything of metrics."""
    return OurServer(settings, _METRICS)


class ParentServer:
    """twisted.mail.smtp.ESMTP, with the least delivery that works."""

    def __init__(self, settings: Settings) -> None:
        self.clock = Clock()
        self.pending: deque[Deferred[Any]] = deque()
        self._settings = settings
        self._stored: list[Stored] = []

    def connect(self) -> Wire:
        """A new connection."""
        challengers = {b"PLAIN": PLAINCredentials, b"LOGIN": LOGINCredentials} if self._settings.role != "mx" else None
        protocol: Any = smtp.ESMTP(challengers, object() if self._settings.tls == "starttls" else None)
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
        protocol.delivery = _ParentDelivery(self._settings, self.pending, self._stored)
        protocol.portal = Portal(_ParentRealm(protocol.delivery), [users])
        protocol.host = HOSTNAME
        protocol.callLater = self.clock.callLater
        protocol.timeout = 300
        wire = make_wire(self._settings)
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def stored(self) -> list[Stored]:
        """What was delivered."""
        return self._stored


@implementer(IRealm)
class _ParentRealm:
    def __init__(self, delivery: _ParentDelivery) -> None:
        self._delivery = delivery

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        self._delivery.user = avatarId
        return smtp.IMessageDelivery, self._delivery, lambda: None


@implementer(smtp.IMessageDelivery)
class _ParentDelivery:
    user = b""

    def __init__(self, settings: Settings, pending: deque[Deferred[Any]], stored: list[Stored]) -> None:
        self._settings, self._pending, self._stored = settings, pending, stored

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: smtp.Address) -> Any:
        if self._settings.role == "submission" and not self.user:
            raise smtp.SMTPServerError(530, "Authentication required")
        return self._answer(origin)

    def validateTo(self, user: smtp.User) -> Any:
        if user.dest.domain.lower() != self._settings.relay_domains.encode() and not self.user:
            raise smtp.SMTPBadRcpt(user)
        return self._answer(lambda: _ParentMessage(self._settings, user, self._stored))

    def _answer(self, answer: Any) -> Any:
        if not self._settings.validator.startswith("slow"):
            return answer
        deferred: Deferred[Any] = Deferred()
        self._pending.append(deferred)
        return deferred.addCallback(lambda _: answer)


@implementer(smtp.IMessage)
class _ParentMessage:
    def __init__(self, settings: Settings, user: smtp.User, stored: list[Stored]) -> None:
        self._settings, self._stored = settings, stored
        self._message = Stored(str(user.orig), [str(user.dest)])
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        if self._settings.spool == "fails":
            return fail(OSError("the disk is broken"))
        message = self._message
        message.body = b"".join(line + b"\r\n" for line in self._lines)
        last = self._stored[-1] if self._stored else None
        if last and (last.reverse_path, last.body) == (message.reverse_path, message.body):
            last.forward_paths += message.forward_paths
        else:
            self._stored.append(message)
        return succeed(None)

    def connectionLost(self) -> None:
        pass


def open_parent(settings: Settings) -> ParentServer:
    """twisted.mail's ESMTP as it comes."""
    return ParentServer(settings)
