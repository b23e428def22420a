"""Every metric moves when what it counts happens."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import apsw
import pytest
from auth.gates import Guarded, guesses
from auth.test_offline import Rig as Remembering
from control.visitor import Visitor as ControlVisitor
from directory.played import Rig as DirectoryRig
from hypothesis import given
from hypothesis import strategies as st
from metrics import outcomes, watching
from OpenSSL import SSL
from receive.test_expansion import door_of
from receive.whole import ALICE, SUBMISSION, Whole
from recipients.rig import FakeDirectory
from recipients.rig import Rig as Resolving
from rigs.fake_dns import Rig, Zone, silent
from rigs.pump import Pump
from tls.handshakes import Visitor
from tls.watching import Watched
from transports.peer import Peer
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from mtatwist.control.commands import Ping
from mtatwist.directory.connection import OperationRefused, ServerFailed, ServerSilent, ServerUntrusted
from mtatwist.envelope import Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram
from mtatwist.recipients.files import WatchedTable
from mtatwist.recipients.tables import parse_recipients
from mtatwist.relay.hop import IDLE_SECONDS
from mtatwist.smtp.address import Address
from mtatwist.spool.ballast import Ballast
from mtatwist.spool.writer import HELD_LIMIT, Held
from mtatwist.store.writer import Writer
from mtatwist.transaction import Session, Transaction
from mtatwist.validators.device import Device


def session(server: Whole) -> Instruments:
    server.connect()
    return server.metrics


def refused_session(server: Whole) -> Instruments:
    for _ in range(51):
        server.connect()
    assert server.metrics.sessions.value == 50
    return server.metrics


def timeout(server: Whole) -> Instruments:
    server.connect()
    server.pass_time(301)
    return server.metrics


def say(*lines: str) -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        server.connect().say(*lines)
        return server.metrics

    return scenario


def control(*commands: Any, crowd: int = 0, hello: bool = True) -> Callable[[Whole], Instruments]:
    """Somebody comes to the control socket, gives these commands, and begins another."""

    def scenario(server: Whole) -> Instruments:
        factory: Any = server.mta.control._socket
        visitor = ControlVisitor(factory.factory)
        if hello:
            visitor.hello()
        for command in commands:
            visitor.ask(command)
        for _ in range(crowd):
            ControlVisitor(factory.factory)
        visitor.write(b"\x00\x08_command")
        server.pass_time(100)
        return server.metrics

    return scenario


def store_fails(server: Whole) -> Instruments:
    server.spool.trouble = "the disk is broken"
    assert server.connect().send().startswith("451")
    return server.metrics


def memory_short(server: Whole) -> Instruments:
    held = Held(server.metrics)
    for octets in (1, 100 << 20, 100 << 20):
        held.octets += octets
        if held.octets > HELD_LIMIT:
            held.little()
    assert server.metrics.memory_short.value == 1
    held.let_go(held.octets)
    held.octets += 100 << 20
    held.little()
    assert server.metrics.memory_short.value == 2
    return server.metrics


def accepted(server: Whole) -> Instruments:
    assert server.connect().send().startswith("250")
    return server.metrics


def refused(server: Whole) -> Instruments:
    assert server.connect().send(body=b"bare\rCR\r\n").startswith("550")
    return server.metrics


def recipients(address: str, aliases: str = "", listed: str = "", away: bool = False) -> Callable[[Whole], Instruments]:
    """Somebody is looked for who gets mail for this address."""

    def scenario(server: Whole) -> Instruments:
        directory = FakeDirectory()
        directory.trouble = away
        Resolving(aliases, listed or None, directory if away else None, metrics=server.metrics).begin(address)
        return server.metrics

    return scenario


def recipients_spoilt(server: Whole) -> Instruments:
    """A list of recipients is replaced by one that can't be used."""
    file = Path(server.config.server.data_dir) / "people"
    file.write_text("ann\n")

    async def in_thread(read: Any) -> Any:
        return read()

    clock = Clock()
    table = WatchedTable(
        str(file),
        lambda text: parse_recipients(text, lambda domain: True),
        clock=clock,
        in_thread=in_thread,
        metrics=server.metrics,
    )
    file.write_text("ann\nb c\n")
    clock.advance(2)
    Deferred.fromCoroutine(table.current())
    return server.metrics


def device_refused(server: Whole) -> Instruments:
    network = ip_network("192.0.2.0/24")
    device = Device([(network, ["printer@here.test"])], [], server.metrics)
    session = Session("0", "mx", "192.0.2.7", trusted=True)
    assert device.mail(Transaction(session, Address("me", "away.test"))) is not None
    return server.metrics


def recipient_crashes(server: Whole) -> Instruments:
    async def crash(recipient: Recipient) -> Any:
        raise RuntimeError("a secret")

    client = server.connect()
    client.begin("a@here.test")
    object.__setattr__(door_of(client), "resolve", crash)
    client.say("RCPT TO:<b@here.test>")
    return server.metrics


def next_hop(say: Callable[[str], str | None]) -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        server.connect().send()
        server.next_hop(Peer(say))
        return server.metrics

    return scenario


def converted(server: Whole) -> Instruments:
    server.connect().send(body=b"Subject: x\r\n\r\ngr\xfcn\r\n")
    server.next_hop(Peer())
    return server.metrics


def handshake_fails(server: Whole) -> Instruments:
    said: list[str] = []

    def say(command: str) -> str | None:
        said.append(command)
        return "vanish" if said[:-1].count("STARTTLS") else None

    server.connect().send()
    server.next_hop(Peer(say, extensions=("STARTTLS",)))
    return server.metrics


def secured(version: str) -> Callable[[Whole], Instruments]:
    """The next hop offers TLS, and speaks this version of it."""

    def scenario(server: Whole) -> Instruments:
        server.connect().send()
        peer = Peer(extensions=("STARTTLS",))
        peer.tls_version = version
        server.next_hop(peer)
        return server.metrics

    return scenario


def down(server: Whole) -> Instruments:
    server.connect().send()
    server.next_hop_is_down()
    return server.metrics


def expired(server: Whole) -> Instruments:
    server.connect().send()
    server.pass_time(6 * 86400)
    server.next_hop_is_down()
    return server.metrics


def late(server: Whole) -> Instruments:
    server.connect().send()
    server.pass_time(5 * 3600)
    server.next_hop_is_down()
    return server.metrics


def asked_to_tell(mail: str, rcpt: str, say: Callable[[str], str | None]) -> Callable[[Whole], Instruments]:
    """A message with this envelope, to a next hop that sends no DSNs."""

    def scenario(server: Whole) -> Instruments:
        session = server.connect()
        session.say("EHLO client.test", mail, rcpt, "DATA", b"Subject: x\r\n\r\n.\r\n")
        server.next_hop(Peer(say))
        return server.metrics

    return scenario


def scan_fails(server: Whole) -> Instruments:
    server.spool.due_domains = lambda *arguments: 1 / 0
    server.pass_time(61)
    return server.metrics


def clock_set(server: Whole) -> Instruments:
    server.clock_set = 6 * 86400
    server.pass_time(60)
    return server.metrics


def no_descriptor_left(server: Whole) -> Instruments:
    """As Twisted says it; tests/integration/test_descriptors.py lets it happen."""
    Logger(namespace="twisted.internet.tcp.Port").info("EMFILE recovery: Closed socket from {address}", address="x")
    return server.metrics


def tls(newest: int, *, then: float = 0.0, hangs_up: bool = False) -> Callable[[Whole], Instruments]:
    """A client that begins a handshake; ``hangs_up``: and never ends it."""

    def scenario(server: Whole) -> Instruments:
        client = server.connect()
        client.protocol.canStartTLS = True
        client.protocol.ctx = certificate(server).watch.server
        client.say("EHLO client.test", "STARTTLS")
        assert turned_to_tls(server.metrics) == 0
        factory = Factory()
        factory.buildProtocol = lambda addr: client.protocol  # type: ignore[method-assign]
        visitor = Visitor(TLSMemoryBIOFactory(client.protocol.ctx, False, factory, server.reactor), newest=newest)
        if hangs_up:
            visitor.leave()
        elif then:
            server.pass_time(then)
        else:
            visitor.shake_hands()
            assert turned_to_tls(server.metrics) == 1
        return server.metrics

    return scenario


def turned_to_tls(metrics: Instruments) -> float:
    return metrics.tls_sessions_12.value + metrics.tls_sessions_13.value


def certificate(server: Whole) -> Watched:
    return Watched(Path(server.config.server.data_dir), metrics=server.metrics)


def days_left(server: Whole) -> Instruments:
    certificate(server).stop()
    assert server.metrics.tls_days_left.value == 89
    return server.metrics


def certificate_renewed(server: Whole) -> Instruments:
    watched = certificate(server)
    watched.issue()
    watched.pass_time(30)
    watched.stop()
    return server.metrics


def certificate_broken(server: Whole) -> Instruments:
    watched = certificate(server)
    watched.files().key.write_text("nonsense")
    watched.pass_time(60)
    watched.stop()
    return server.metrics


def certificate_watch_fails(server: Whole) -> Instruments:
    watched = certificate(server)
    watched.watch._pairs = None  # type: ignore[assignment]
    watched.pass_time(60)
    watched.stop()
    assert server.metrics.tls_watch_errors.value == 2
    return server.metrics


def login(*lines: str, checker: str = "works") -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        server.checker.mood = checker
        server.connect().say("EHLO client.test", *lines)
        return server.metrics

    return scenario


def guessed(guarded: Guarded) -> None:
    for guess in guesses(5):
        guarded.log_in(guess)


def guessed_where_known(guarded: Guarded) -> None:
    guarded.log_in()
    guessed(guarded)


def guessed_everybody(guarded: Guarded) -> None:
    for number in range(50):
        guarded.log_in("password1", f"user{number}")


def guessed_on(guarded: Guarded) -> None:
    guessed(guarded)
    guarded.log_in()


def lockout(scene: Callable[[Guarded], None]) -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        scene(Guarded(server))
        return server.metrics

    return scenario


def group(fails: bool | Exception) -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        pump: Any = Pump()
        pump.now = 1000.0
        writer = Writer(lambda: apsw.Connection(":memory:"), reactor=pump, metrics=server.metrics)
        writer.start()

        def job(connection: apsw.Connection, payloads: Any) -> list[Any]:
            if isinstance(fails, Exception):
                raise fails
            return [1 / 0 if fails else None for _ in payloads]

        pump.outcome(writer.submit(job, None))
        if isinstance(fails, apsw.IOError):
            pump.until(lambda: writer.trouble is None)
        writer.stop()
        return server.metrics

    return scenario


def ballast(server: Whole) -> Instruments:
    directory = Path(server.config.server.data_dir)
    reserve = Ballast(directory / "ballast", 4096, server.metrics)
    reserve.make()
    reserve.give_back()
    return server.metrics


def dns(*lookups: str, zone: Any = None, later: float = 0) -> Callable[[Whole], Instruments]:
    """Addresses are looked up; the DNS goes away before the last lookup, if ``later`` (seconds) comes first."""

    def scenario(server: Whole) -> Instruments:
        rig = Rig(zone or Zone("a.test A 192.0.2.9"), metrics=server.metrics)
        for name in lookups[:-1]:
            rig.lookup(name)
        if later:
            rig.clock.advance(later)
            rig.network.udp.clear()
        rig.lookup(lookups[-1])
        return server.metrics

    return scenario


AS_ALICE = (ALICE, "MAIL FROM:<alice@example.org>", "RCPT TO:<you@away.test>")
LIMITED = {**SUBMISSION, "submission.messages": '["1/h"]'}
FOR_USERS = ("mtatwist.auth.", "mtatwist.submission.", "mtatwist.server.exceptions{mtatwist.component=auth}")


def directory(failure: Exception | None = None, requests: int = 1) -> Callable[[Whole], Instruments]:
    """So many searches and a bind, at a server that goes away like this."""

    def scenario(server: Whole) -> Instruments:
        rig = DirectoryRig(waiting=0, metrics=server.metrics)
        if isinstance(failure, ServerFailed):
            rig.hosts[0].trouble = failure
            rig.hosts[0].lose()
        elif failure is not None:
            rig.hosts[0].fail(failure)
        for asked in [rig.directory.search("(uid=user1)", []) for _ in range(requests)]:
            rig.pump.outcome(asked)
        rig.bind()
        rig.settle()
        rig.stop()
        return server.metrics

    return scenario


def remembered(server: Whole) -> Instruments:
    rig = Remembering()
    rig.remember()
    rig.judge()
    rig.cache.stop()
    return rig.metrics


SCENARIOS: dict[str, Callable[[Whole], Instruments]] = {
    "mtatwist.smtp.sessions{mtatwist.outcome=accepted}": session,
    "mtatwist.smtp.session.active": session,
    "mtatwist.smtp.sessions{mtatwist.outcome=refused}": refused_session,
    "mtatwist.smtp.timeouts": timeout,
    "mtatwist.smtp.replies{mtatwist.reply.class=2xx}": say("NOOP"),
    "mtatwist.smtp.replies{mtatwist.reply.class=3xx}": accepted,
    "mtatwist.smtp.replies{mtatwist.reply.class=4xx}": store_fails,
    "mtatwist.smtp.replies{mtatwist.reply.class=5xx}": say("NONSENSE"),
    "mtatwist.tls.sessions{tls.protocol.version=1.2}": tls(SSL.TLS1_2_VERSION),
    "mtatwist.tls.sessions{tls.protocol.version=1.3}": tls(SSL.TLS1_3_VERSION),
    "mtatwist.tls.handshake.failures{error.type=failed}": tls(0, hangs_up=True),
    "mtatwist.tls.handshake.failures{error.type=timeout}": tls(0, then=31),
    "mtatwist.tls.certificate.remaining": days_left,
    "mtatwist.tls.certificate.reloads{mtatwist.outcome=succeeded}": certificate_renewed,
    "mtatwist.tls.certificate.reloads{mtatwist.outcome=failed}": certificate_broken,
    "mtatwist.server.exceptions{mtatwist.component=tls}": certificate_watch_fails,
    "mtatwist.auth.logins{mtatwist.outcome=succeeded}": login(ALICE),
    "mtatwist.auth.logins{mtatwist.outcome=refused}": login("AUTH PLAIN AGFsaWNlAHdyb25n"),
    "mtatwist.auth.logins{mtatwist.outcome=unavailable}": login(ALICE, checker="unavailable"),
    "mtatwist.auth.logins{mtatwist.outcome=aborted}": login("AUTH LOGIN", "*"),
    "mtatwist.server.exceptions{mtatwist.component=auth}": login(ALICE, checker="crashes"),
    "mtatwist.auth.lockout.failures": lockout(guessed),
    "mtatwist.auth.lockout.locks{mtatwist.lock.kind=account}": lockout(guessed),
    "mtatwist.auth.lockout.locks{mtatwist.lock.kind=pair}": lockout(guessed_where_known),
    "mtatwist.auth.lockout.locks{mtatwist.lock.kind=address}": lockout(guessed_everybody),
    "mtatwist.auth.lockout.lock.active": lockout(guessed),
    "mtatwist.auth.lockout.refusals": lockout(guessed_on),
    "mtatwist.submission.send_as.refusals": login(ALICE, "MAIL FROM:<bob@example.org>"),
    "mtatwist.submission.from.mismatches": login(*AS_ALICE, "DATA", "From: bob@example.org", "", "."),
    "mtatwist.submission.limit.refusals": login(*AS_ALICE, "DATA", ".", AS_ALICE[1]),
    "mtatwist.submission.limit.warnings": login(*AS_ALICE, "DATA", "."),
    "mtatwist.submission.field.additions": login(*AS_ALICE, "DATA", "."),
    "mtatwist.smtp.messages{mtatwist.outcome=accepted}": accepted,
    "mtatwist.smtp.message.size": accepted,
    "mtatwist.smtp.messages{mtatwist.outcome=refused}": refused,
    "mtatwist.smtp.messages{mtatwist.outcome=postponed}": store_fails,
    "mtatwist.smtp.accept.duration": accepted,
    "mtatwist.server.exceptions{mtatwist.component=recipients}": recipient_crashes,
    "mtatwist.recipient.refusals{mtatwist.reason=unknown}": recipients("eve@here.test", listed="ann"),
    "mtatwist.recipient.refusals{mtatwist.reason=unchecked}": recipients("ann@here.test", away=True),
    "mtatwist.recipient.expansions": recipients("sales@here.test", aliases="sales: ann"),
    "mtatwist.recipient.refusals{mtatwist.reason=alias}": recipients("a@here.test", aliases="a: b\nb: a"),
    "mtatwist.recipient.file.failures": recipients_spoilt,
    "mtatwist.device.refusals": device_refused,
    "mtatwist.control.commands{mtatwist.outcome=done}": control(Ping),
    "mtatwist.control.commands{mtatwist.outcome=failed}": control(Ping, hello=False),
    "mtatwist.control.denials": control(Ping, hello=False),
    "mtatwist.control.refusals{mtatwist.reason=cut}": control(),
    "mtatwist.control.refusals{mtatwist.reason=crowded}": control(crowd=64),
    "mtatwist.spool.groups": group(fails=False),
    "mtatwist.spool.group.size": group(fails=False),
    "mtatwist.spool.job.failures": group(fails=True),
    "mtatwist.spool.faults{error.type=full}": group(fails=apsw.FullError("database or disk is full")),
    "mtatwist.spool.faults{error.type=io}": group(fails=apsw.IOError("disk I/O error")),
    "mtatwist.spool.faults{error.type=corrupt}": group(fails=apsw.CorruptError("database disk image is malformed")),
    "mtatwist.spool.recoveries": group(fails=apsw.IOError("disk I/O error")),
    "mtatwist.spool.ballast.releases": ballast,
    "mtatwist.spool.memory.shortages": memory_short,
    "mtatwist.clock.jumps": clock_set,
    "mtatwist.descriptor.shortages": no_descriptor_left,
    "mtatwist.relay.reports{mtatwist.report.kind=failed}": expired,
    "mtatwist.relay.reports{mtatwist.report.kind=delayed}": late,
    "mtatwist.relay.reports{mtatwist.report.kind=succeeded}": asked_to_tell(
        "MAIL FROM:<me@away.test>", "RCPT TO:<you@here.test> NOTIFY=SUCCESS", lambda command: None
    ),
    "mtatwist.relay.report.failures": asked_to_tell(
        "MAIL FROM:<>", "RCPT TO:<you@here.test>", lambda command: "550 5.1.1 no" if command[:4] == "RCPT" else None
    ),
    "mtatwist.queue.recipient.count{mtatwist.state=active}": accepted,
    "mtatwist.relay.connections": accepted,
    "mtatwist.relay.connection.failures": down,
    "mtatwist.relay.destination.down": down,
    "mtatwist.relay.connection.count{mtatwist.state=used}": accepted,
    "mtatwist.relay.connection.count{mtatwist.state=idle}": next_hop(lambda command: None),
    "mtatwist.relay.tls.sessions{tls.protocol.version=1.2}": secured("TLSv1.2"),
    "mtatwist.relay.tls.sessions{tls.protocol.version=1.3}": secured("TLSv1.3"),
    "mtatwist.relay.delivery.repeats": next_hop(lambda command: "vanish" if command == "." else None),
    "mtatwist.relay.conversions": converted,
    "mtatwist.relay.tls.fallbacks": handshake_fails,
    "mtatwist.server.exceptions{mtatwist.component=relay}": scan_fails,
    "mtatwist.directory.operation.duration{mtatwist.operation=search}": directory(),
    "mtatwist.directory.operation.duration{mtatwist.operation=bind}": directory(),
    "mtatwist.directory.failures{error.type=unreachable}": directory(ServerFailed("x")),
    "mtatwist.directory.failures{error.type=timeout}": directory(ServerSilent("x")),
    "mtatwist.directory.failures{error.type=untrusted}": directory(ServerUntrusted("x")),
    "mtatwist.directory.failures{error.type=refused}": directory(OperationRefused("x")),
    "mtatwist.directory.failures{error.type=busy}": directory(requests=2),
    "mtatwist.directory.server.down": directory(ServerFailed("x")),
    "mtatwist.auth.offline.logins": remembered,
    "mtatwist.dns.lookups{mtatwist.outcome=answered}": dns("a.test"),
    "mtatwist.dns.lookups{mtatwist.outcome=absent}": dns("b.test"),
    "mtatwist.dns.lookups{mtatwist.outcome=failed}": dns("a.test", zone=silent),
    "mtatwist.dns.lookup.duration": dns("a.test"),
    "mtatwist.dns.cache.hits": dns("a.test", "a.test"),
    "mtatwist.dns.cache.entry.count": dns("a.test"),
    "mtatwist.dns.cache.stale_answers": dns("a.test", "a.test", later=301),
    "mtatwist.dns.server.failures": dns("a.test", zone=silent),
    **outcomes.SCENARIOS,
    **watching.SCENARIOS,
}


def reading(metrics: Instruments, key: str) -> float:
    """What the instrument of this key says."""
    instrument = next(one for one in metrics if one.key == key)
    return instrument.count if isinstance(instrument, Histogram) else instrument.value


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    settings = watching.SETTINGS if name in watching.SCENARIOS else LIMITED if name.startswith(FOR_USERS) else None
    server = Whole(monkeypatch, tmp_path, settings)
    before = reading(server.metrics, name)
    assert reading(SCENARIOS[name](server), name) > before


def test_every_instrument_has_a_scenario_and_a_description() -> None:
    instruments = list(Instruments())
    assert {instrument.key for instrument in instruments} == set(SCENARIOS)
    assert all(instrument.description for instrument in instruments)


LASTING = (
    "mtatwist.dns.cache.entry.count",
    "mtatwist.relay.destination.down",
    "mtatwist.tls.certificate.remaining",
    "mtatwist.directory.server.down",
    "mtatwist.auth.lockout.lock.active",
)
"""Gauges that say nothing about mail that is on its way."""


def gauges(server: Whole) -> dict[str, float]:
    """Those of mail that is on its way."""
    return {
        one.key: one.value
        for one in server.metrics
        if isinstance(one, Gauge) and one.name not in LASTING and not one.key.startswith(watching.GAUGES)
    }


def test_gauges_go_down_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Whole(monkeypatch, tmp_path)
    client = server.connect()
    client.send()
    idle, used = (f"mtatwist.relay.connection.count{{mtatwist.state={state}}}" for state in ("idle", "used"))
    active = "mtatwist.queue.recipient.count{mtatwist.state=active}"
    assert gauges(server) == {"mtatwist.smtp.session.active": 1, active: 1, idle: 0, used: 1}
    client.say("QUIT")
    client.protocol.connectionLost()
    server.next_hop(Peer())
    assert gauges(server) == {"mtatwist.smtp.session.active": 0, active: 0, idle: 1, used: 0}
    server.pass_time(IDLE_SECONDS)
    assert set(gauges(server).values()) == {0}


@given(st.lists(st.floats(0, 10), max_size=30))
def test_a_histogram_counts_by_upper_bound(values: list[float]) -> None:
    histogram = Histogram("x", "x", (1.0, 5.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(value <= 1 for value in values),
        sum(1 < value <= 5 for value in values),
        sum(value > 5 for value in values),
    ]
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))


def test_a_counter_begins_at_nothing() -> None:
    assert Counter("x", "x").value == 0
