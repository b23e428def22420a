"""The whole server in memory: what a configuration file makes of it, with the spool and the network played."""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from control.visitor import NotedSocket
from dialogue import Settings, Wire
from dialogue_servers import MoodyChecker, make_wire
from rigs.fake_dns import FakeNetwork
from transports.peer import Peer
from transports.test_dial import resolving_reactor
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure

from mtatwist import dns, tap, wiring
from mtatwist.config import load
from mtatwist.dns import system
from mtatwist.envelope import Message, State
from mtatwist.spool import schema
from mtatwist.spool.memory import MemorySpool, MemoryWriter
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.spool.survey import Survey
from mtatwist.store.queue_time import KeptTime

BASE: dict[str, dict[str, str]] = {
    "server": {"hostname": '"mta.test"', "data_dir": '"data"'},
    "listen": {"endpoint": '"tcp:2525:interface=127.0.0.1"'},
    "relay": {"domains": '["here.test"]', "networks": '["198.51.100.0/24"]'},
    "route": {"domain": '"*"', "transport": '"smtp"', "next_hop": '"next.test:25"'},
    "dns.override": {"domain": '"next.test"', "addresses": '["192.0.2.1"]'},
}
"""What stands in the file unless a test writes something else: values as TOML."""

ARRAYS = ("listen", "route", "dns.override", "tls.name", "relay.device", "control.token")

BODY = b"Subject: x\r\n\r\nhello\r\n"
HELD = "held"
ALICE = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="
"""Her login."""
SUBMISSION = {"listen.role": '"submission"', "auth.require_tls": "false"}


def toml(settings: dict[str, str]) -> str:
    """BASE with these settings, by key path; an empty one takes the key away."""
    tables = {name: dict(keys) for name, keys in BASE.items()}
    for path, value in settings.items():
        table, _, key = path.rpartition(".")
        tables.setdefault(table, {})[key] = value
    lines = []
    for name, keys in tables.items():
        lines += [f"[[{name}]]" if name in ARRAYS else f"[{name}]"]
        lines += [f"{key} = {value}" for key, value in keys.items() if value]
    return "\n".join(lines) + "\n"


class Spool(MemorySpool):
    """In memory, but with the real one's view of the disk. ``trouble``: commits fail, or are held."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__()
        self.has_room = SqliteSpool(*arguments, **settings).has_room  # type: ignore[method-assign]
        self.trouble = ""
        self.free = 1 << 30
        self.kept_time = KeptTime()
        self._database = apsw.Connection(":memory:")
        schema.migrate(self._database)

    def create(self, envelope: Any) -> Writer:
        return Writer(self, next(self._numbers), envelope)

    def start(self) -> None:
        """See SqliteSpool."""

    async def survey(self, now: float) -> Survey:
        """See SqliteSpool."""
        if self.trouble:
            raise OSError(self.trouble)
        waiting = [
            recipient
            for message in self.messages.values()
            for recipient in message.envelope.recipients
            if (message.number, recipient.index) not in self.claims
        ]
        states = Counter(recipient.state for recipient in waiting)
        due = sum(recipient.next_attempt <= now for recipient in waiting if recipient.state is not State.HELD)
        oldest = min((m.envelope.received_at for m in self.messages.values()), default=None)
        return Survey(states[State.PENDING], states[State.DEFERRED], states[State.HELD], due, oldest)

    def meanwhile(self, do: Any) -> None:
        """See SqliteSpool: there is no time between anything."""

    def try_to_write(self) -> Deferred[None]:
        """See SqliteSpool."""
        return fail(OSError(self.trouble)) if self.trouble else succeed(None)

    def keep_ahead(self, ahead: float) -> Deferred[None]:
        """See SqliteSpool."""
        return succeed(None)

    def submit(self, job: Any, payload: Any) -> Deferred[Any]:
        """See SqliteSpool."""
        with self._database:
            (result,) = job(self._database, [payload])
        return succeed(result)

    def stop(self) -> None:
        """See SqliteSpool."""


class Writer(MemoryWriter):
    """Commits, if the spool lets it."""

    _spool: Spool

    def commit(self) -> Deferred[Message]:
        if not self._spool.trouble:
            return super().commit()
        done: Deferred[Message] = Deferred()
        if self._spool.trouble != HELD:
            done.errback(OSError(self._spool.trouble))
        return done


class Users:
    """See wiring.auth.Users: those of the dialogues."""

    def __init__(self, checker: MoodyChecker) -> None:
        self.checkers: list[ICredentialsChecker] = [AllowAnonymousAccess(), checker]

    def start(self) -> None:
        """See wiring.auth.Users."""

    def prepare(self, config: Any) -> Any:
        """See wiring.auth.Users."""
        return lambda: None

    def stop(self) -> None:
        """See wiring.auth.Users."""


class Session:
    """A client's connection."""

    def __init__(self, wire: Wire, protocol: Any) -> None:
        self.wire = wire
        self.protocol = protocol
        protocol.makeConnection(wire)
        self.greeting = self.heard()

    def heard(self) -> str:
        """What the server has said since the last look."""
        said, self.wire.written = self.wire.written.decode(), b""
        return said

    def say(self, *lines: str | bytes) -> str:
        """Say lines, and give the answer."""
        for line in lines:
            data = line.encode() + b"\r\n" if isinstance(line, str) else line
            self.protocol.dataReceived(data)
        return self.heard()

    def begin(self, *to: str, mail: str = "MAIL FROM:<me@away.test>") -> str:
        """An envelope; the replies from MAIL on."""
        self.say("EHLO client.test")
        return self.say(mail, *(f"RCPT TO:<{path}>" for path in to or ("you@here.test",)))

    def send(self, *to: str, body: bytes = BODY) -> str:
        """A message; the reply to its end."""
        self.begin(*to)
        self.say("DATA")
        return self.say(body + b".\r\n")

    @property
    def ended(self) -> bool:
        """Has the server closed it?"""
        return self.wire.closed or self.wire.disconnecting


class Whole:
    """A server that runs, as far as memory reaches."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.reactor = resolving_reactor()
        self.reactor.advance(1_000_000)
        # How far somebody has set the machine's clock.
        self.clock_set = 0.0
        patch.setattr(tap, "time", SimpleNamespace(time=lambda: self.reactor.seconds() + self.clock_set))
        patch.setattr(tap, "SqliteSpool", Spool)
        patch.setattr(system, "CHECK_SECONDS", float("inf"))
        self.network = FakeNetwork(self.reactor)
        patch.setattr(dns, "Network", lambda reactor: self.network)
        directory.mkdir(exist_ok=True)
        (directory / "data").mkdir(exist_ok=True)
        self.file = directory / "mta.toml"
        self.file.write_text(toml(settings or {}))
        self.config = load(self.file)
        self.checker = MoodyChecker("works", deque())
        patch.setattr(tap, "Users", lambda *arguments, **settings: Users(self.checker))
        patch.setattr(wiring.control, "ControlSocket", NotedSocket)
        # There are no threads in memory.
        patch.setattr(wiring.tls, "_in_thread", lambda reactor, work, **arguments: maybeDeferred(work, **arguments))
        self.mta = tap.Mta(self.config, self.reactor)
        patch.setattr(self.mta.reloader, "_in_thread", maybeDeferred)
        self.spool: Any = self.mta.spool
        self.metrics = self.mta.metrics
        self.mta.startService()

    def reload(self, settings: dict[str, str]) -> Any:
        """The file says something else, and the server is told: what came of it."""
        self.file.write_text(toml(settings))
        results: list[Any] = []
        self.mta.reload().addBoth(results.append)
        (result,) = results
        return result

    def connect(self, peer: str = "192.0.2.7") -> Session:
        """A client comes to the first listener."""
        wire = make_wire(Settings(peer=peer, tls="none"))
        wire.protocol = self.reactor.tcpServers[0][1].buildProtocol(wire.getPeer())
        return Session(wire, wire.protocol)

    def next_hop(self, peer: Peer) -> Peer:
        """The next connection that the server is opening leads to ``peer``."""
        host, port, factory, _, _ = self.reactor.tcpClients.pop(0)
        peer.protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        peer.protocol.makeConnection(peer)
        peer.begin()
        peer.run()
        return peer

    def next_hop_is_down(self) -> None:
        """The next connection that the server is opening is refused."""
        _, _, factory, _, _ = self.reactor.tcpClients.pop(0)
        factory.clientConnectionFailed(self.reactor.connectors.pop(0), Failure(ConnectionRefusedError()))
        self.reactor.advance(1)

    def recipients(self, number: int = 1) -> list[Any]:
        """Those of a message in the spool."""
        return list(self.spool.messages[number].envelope.recipients)

    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.reactor.advance(seconds)
