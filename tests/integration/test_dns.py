"""A real DNS: what our resolver makes of it, and mail that finds its way by it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client
from rigs.content import HEAD
from rigs.dnslab import DnsLab
from rigs.mta import Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Sink
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from mtatwist import dns
from mtatwist.dns.resolver import DnsTrouble
from mtatwist.envelope import Deferral
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay.mx import Exchanges
from mtatwist.relay.ourselves import Ourselves
from mtatwist.transports.failures import ConnectFailed

MakeMta = Callable[..., Mta]

SENDER = "sender@hosts.plain.test"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsLab]:
    with DnsLab(tmp_path_factory.mktemp("lab")) as made:
        yield made


class Asking:
    """Our resolver in this process, on a reactor that is turned by hand and can skip time."""

    def __init__(self, *servers: str, **settings: Any) -> None:
        self.reactor: Any = SelectReactor()
        self._skipped = 0.0
        real = self.reactor.seconds
        self.reactor.seconds = lambda: real() + self._skipped
        self.metrics = Instruments()
        wanted: dict[str, Any] = {
            "trust_ad": True,
            "timeout": 10.0,
            "in_flight": 100,
            "entries": 1000,
            "minimum_ttl": 0.0,
            "maximum_ttl": 3600.0,
            "maximum_stale": 86400.0,
            "addresses": {},
            "forwards": {},
            **settings,
        }
        self.dns = dns.build(
            reactor=self.reactor, metrics=self.metrics, servers=[address(server) for server in servers], **wanted
        )
        self.exchanges = Exchanges(
            self.dns.resolver, self.dns.hosts, Ourselves({"mta.test"}, list), port=2525, loopback=True
        )

    def skip(self, seconds: float) -> None:
        """So much time has gone by."""
        self._skipped += seconds

    def wait(self, coroutine: Any) -> Any:
        """Its result; an exception is given back, too."""
        done: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(done.append)

        def turn() -> bool:
            self.reactor.iterate(0.01)
            return bool(done)

        wait_until(turn, 30, "the lookup ends")
        return done[0].value if isinstance(done[0], Failure) else done[0]

    def lookup(self, name: str, type: str = "MX") -> Any:
        return self.wait(self.dns.resolver.lookup(name, type))

    def texts(self, name: str, type: str = "MX") -> list[str]:
        return sorted(record.to_text() for record in self.lookup(name, type).records)

    def hosts(self, domain: str) -> list[str]:
        return [target.host for target in self.wait(self.exchanges.targets(domain))]

    def refusal(self, domain: str) -> tuple[int, str]:
        failed = self.wait(self.exchanges.targets(domain))
        assert isinstance(failed, ConnectFailed), failed
        return failed.outcome.reply[:2]

    def end(self) -> None:
        self.dns.resolver.stop()
        self.reactor.removeAll()


def address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host, int(port)


@pytest.fixture
def asking() -> Iterator[Callable[..., Asking]]:
    made: list[Asking] = []

    def make(*servers: str, **settings: Any) -> Asking:
        made.append(Asking(*servers, **settings))
        return made[-1]

    yield make
    for each in made:
        each.end()


Make = Callable[..., Asking]


# --- answers ------------------------------------------------------------------------------------------------


def test_exchanges_in_order(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server)
    assert us.hosts("example.test") == ["mx1.example.test", "mx2.example.test"]
    assert us.hosts("mailalias.example.test") == ["mx1.example.test", "mx2.example.test"]
    assert us.hosts("half.example.test") == ["mx2.example.test"]
    assert us.hosts("hosts.example.test") == ["hosts.example.test"]
    assert us.hosts("alias.example.test") == ["alias.example.test"]
    assert us.hosts("any.wild.example.test") == ["any.wild.example.test"]


def test_equal_exchanges_are_shuffled(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server)
    orders = {tuple(us.hosts("equal.example.test")) for _ in range(60)}
    assert orders == set(itertools.permutations(["mx1.example.test", "mx2.example.test"]))


def test_refusals(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server)
    assert us.refusal("null.example.test") == (556, "5.1.10")
    assert us.refusal("gone.example.test") == (550, "5.1.2")
    assert us.refusal("text.example.test") == (550, "5.1.2")
    assert us.refusal("nowhere.example.test") == (550, "5.4.4")
    assert us.refusal("ours.example.test") == (554, "5.4.6")
    for trouble in ("brief.bogus.test", "bogus.test", "lame.test", "loop0.plain.test"):
        assert us.refusal(trouble) == (451, "4.4.3"), trouble


def test_cnames_are_followed(lab: DnsLab, asking: Make) -> None:
    answer = asking(lab.server).lookup("chain0.example.test", "A")
    assert (answer.canonical, answer.records[0].to_text()) == ("mx1.example.test", "127.0.0.2")
    # A server that does not recurse gives what it has.
    answer = asking(lab.authority).lookup("chain0.plain.test", "A")
    assert (answer.canonical, answer.records[0].to_text()) == ("mx1.plain.test", "127.0.0.2")


def test_a_truncated_answer_comes_over_tcp(lab: DnsLab, asking: Make) -> None:
    assert len(asking(lab.server).texts("many.example.test")) == 60
    assert len(asking(lab.authority).texts("many.plain.test")) == 60


def test_a_dead_server_is_passed_over(lab: DnsLab, asking: Make) -> None:
    us = asking(f"127.0.0.1:{free_port()}", lab.server)
    assert us.texts("example.test")[0] == "10 mx1.example.test."
    assert us.metrics.dns_server_failures.value == 1
    us.lookup("example.test", "A")
    assert us.metrics.dns_server_failures.value == 1


def test_a_lame_server_is_passed_over(lab: DnsLab, asking: Make) -> None:
    assert "lame" in str(asking(lab.authority).lookup("delegated.plain.test"))
    assert "REFUSED" in str(asking(lab.authority).lookup("known.test"))
    assert asking(lab.authority, lab.server).texts("known.test") == ["10 mx1.plain.test."]


def test_who_is_believed(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server)
    assert us.lookup("example.test").secure
    assert us.lookup("gone.example.test").secure
    assert us.wait(us.dns.hosts.addresses("alias.example.test")).secure
    assert not us.lookup("plain.test").secure
    assert "SERVFAIL" in str(us.lookup("bogus.test"))
    assert not asking(lab.server, trust_ad=False).lookup("example.test").secure
    assert not asking(lab.server, forwards={"example.test": [address(lab.server)]}).lookup("example.test").secure


# --- what is remembered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "seconds"), [("brief.plain.test", 60), ("lasting.plain.test", 3600)])
def test_times_are_kept_within_limits(lab: DnsLab, asking: Make, name: str, seconds: float) -> None:
    us = asking(lab.authority, minimum_ttl=60.0)
    us.lookup(name)
    us.skip(seconds - 5)
    us.lookup(name)
    assert (us.metrics.dns_answered.value, us.metrics.dns_cache_hits.value) == (1, 1)
    us.skip(6)
    us.lookup(name)
    assert (us.metrics.dns_answered.value, us.metrics.dns_cache_hits.value) == (2, 1)


def test_memory_is_bounded(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server, entries=50)
    for number in range(200):
        us.lookup(f"h{number}.wild.example.test", "A")
    assert us.metrics.dns_cache_entries.value == 50
    assert {each.key.name for each in us.dns.resolver.remembered(200)} == {
        f"h{number}.wild.example.test" for number in range(150, 200)
    }


def test_many_at_once(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server)
    done: list[Any] = []
    for number in range(1000):
        Deferred.fromCoroutine(us.dns.resolver.lookup(f"m{number}.wild.example.test", "A")).addBoth(done.append)

    def turn() -> bool:
        us.reactor.iterate(0.01)
        return len(done) == 1000

    wait_until(turn, 60, "all lookups end")
    assert all(answer.records for answer in done)
    assert not us.reactor.getDelayedCalls()


def test_a_server_that_hangs(lab: DnsLab, asking: Make) -> None:
    us = asking(lab.server, timeout=3.0)
    assert us.hosts("example.test") == ["mx1.example.test", "mx2.example.test"]
    lab.stop()
    try:
        # What is known is used, for its time and beyond; what is not known is trouble.
        assert us.hosts("example.test") == ["mx1.example.test", "mx2.example.test"]
        us.skip(1000)
        assert us.hosts("example.test") == ["mx1.example.test", "mx2.example.test"]
        assert us.metrics.dns_stale.value > 0
        failed = us.wait(us.exchanges.targets("plain.test"))
        assert isinstance(failed.outcome, Deferral)
        us.skip(90_000)
        assert isinstance(us.lookup("example.test"), DnsTrouble)
    finally:
        lab.go_on()
    us.skip(31)
    assert not us.lookup("example.test").stale
    assert us.hosts("plain.test") == ["mx1.plain.test", "mx2.plain.test"]


# --- mail ---------------------------------------------------------------------------------------------------


def by_mx(lab: DnsLab, port: int, **settings: Any) -> dict[str, Any]:
    """A configuration that leaves it to the DNS where mail goes."""
    route = {"domain": "*", "transport": "smtp", "tls": "none", "mx_port": port, "mx_loopback": True}
    own = {"servers": [lab.server], "timeout": "3s", **settings}
    return relaying_to(1, route=[route], dns=own, timeouts={"shutdown": "1s"})


def send(mta: Mta, *forward_paths: str) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        for path in forward_paths:
            assert client.transaction(SENDER, [path], HEAD).code == 250


class Sinks:
    """mx1, mx2 and hosts, on one port."""

    def __init__(self) -> None:
        self.mx1 = Sink(host="127.0.0.2")
        self.mx1.__enter__()
        self.port = self.mx1.port
        self.mx2, self.hosts = Sink(port=self.port, host="127.0.0.3"), Sink(port=self.port, host="127.0.0.4")
        self.mx2.__enter__()
        self.hosts.__enter__()
        self._running = [self.mx1, self.mx2, self.hosts]

    def end(self, *sinks: Sink) -> None:
        for sink in sinks or tuple(self._running):
            self._running.remove(sink)
            sink.__exit__(None, None, None)


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    made = Sinks()
    yield made
    made.end()


def paths(sink: Sink) -> list[str]:
    return sorted(path for arrival in sink.arrivals for path in arrival.forward_paths)


def report(sinks: Sinks, about: str) -> str:
    """The DSN about this recipient; DSNs go back to SENDER, by the DNS."""
    arrival = wait_until(
        lambda: next((each for each in sinks.hosts.arrivals if about.encode() in each.content), None),
        30,
        lambda: f"a report about {about}",
    )
    assert (arrival.reverse_path, arrival.forward_paths) == ("", (SENDER,))
    return arrival.content.decode()


def test_mail_goes_to_the_best_exchange_that_is_up(make_mta: MakeMta, lab: DnsLab, sinks: Sinks) -> None:
    with make_mta(by_mx(lab, sinks.port)) as mta:
        send(mta, "one@example.test", "two@plain.test", "three@mailalias.example.test", "four@hosts.example.test")
        sinks.mx1.wait_for(3, 30)
        assert paths(sinks.mx1) == ["one@example.test", "three@mailalias.example.test", "two@plain.test"]
        assert [each.forward_paths for each in sinks.hosts.wait_for(1, 30)] == [("four@hosts.example.test",)]
        sinks.end(sinks.mx1)
        send(mta, "five@example.test", "six@half.plain.test")
        sinks.mx2.wait_for(2, 30)
        assert paths(sinks.mx2) == ["five@example.test", "six@half.plain.test"]
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")


def test_a_literal_needs_no_dns(make_mta: MakeMta, lab: DnsLab, sinks: Sinks) -> None:
    with make_mta(by_mx(lab, sinks.port)) as mta:
        send(mta, "postmaster@[127.0.0.3]")
        assert sinks.mx2.wait_for(1, 30)[0].forward_paths == ("postmaster@[127.0.0.3]",)


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.example.test", "5.1.10"),
        ("gone.example.test", "5.1.2"),
        ("nowhere.plain.test", "5.4.4"),
        ("ours.plain.test", "5.4.6"),
        ("[169.254.1.1]", "5.4.6"),
    ],
)
def test_what_has_no_way_goes_back(make_mta: MakeMta, lab: DnsLab, sinks: Sinks, domain: str, status: str) -> None:
    with make_mta(by_mx(lab, sinks.port)) as mta:
        send(mta, f"you@{domain}")
        assert f"Status: {status}" in report(sinks, f"you@{domain}")
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")


def test_exchanges_on_loopback_are_refused_unless_a_route_allows_them(
    make_mta: MakeMta, lab: DnsLab, sinks: Sinks
) -> None:
    config = by_mx(lab, sinks.port)
    route = config["route"][0]
    back = {**route, "domain": "hosts.plain.test"}
    config["route"] = [back, {**route, "mx_loopback": False}]
    with make_mta(config) as mta:
        send(mta, "you@example.test")
        assert "Status: 5.4.6" in report(sinks, "you@example.test")


def test_trouble_with_the_dns_waits(make_mta: MakeMta, lab: DnsLab, sinks: Sinks) -> None:
    with make_mta(by_mx(lab, sinks.port)) as mta:
        send(mta, "you@bogus.test", "you@lame.test")
        wait_until(lambda: mta.log().count("4.4.3") >= 2, 30, mta.log)
        assert mta.queued() == 2


def test_a_dead_dns_delays_nobody_who_does_not_need_it(
    make_mta: MakeMta, lab: DnsLab, sinks: Sinks, tmp_path: Path
) -> None:
    """Mail by smart host, hosts file, literal, override and memory goes on; the rest follows when the DNS is back."""
    config = by_mx(lab, sinks.port, minimum_ttl="0s", maximum_ttl="1s")
    route = config["route"][0]
    by_address = {"domain": "smart.test", "transport": "smtp", "next_hop": f"127.0.0.3:{sinks.port}", "tls": "none"}
    with Sink() as local:
        by_name = {**by_address, "domain": "local.test", "next_hop": f"localhost:{local.port}"}
        config["route"] = [by_address, by_name, route]
        config["dns.override"] = [{"domain": "fixed.test", "addresses": ["127.0.0.4"]}]
        with make_mta(config) as mta:
            send(mta, "before@example.test")
            sinks.mx1.wait_for(1, 30)
            lab.stop()
            try:
                send(mta, *(f"stuck@x{number}.fresh.example.test" for number in range(40)))
                send(mta, "a@smart.test", "b@local.test", "c@[127.0.0.3]", "d@fixed.test", "e@example.test")
                sinks.mx2.wait_for(2, 10)
                local.wait_for(1, 10)
                sinks.hosts.wait_for(1, 10)
                sinks.mx1.wait_for(2, 10)
                assert paths(sinks.mx1) == ["before@example.test", "e@example.test"]
                # They have been deferred, and are tried again.
                wait_until(lambda: mta.log().count("4.4.3") >= 40, 60, mta.log)
                assert mta.queued() == 40
            finally:
                lab.go_on()
            sinks.mx1.wait_for(42, 60)
            wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        events = [json.loads(line) for line in mta.log().splitlines() if line.startswith("{")]
        assert {"dns_server_down", "dns_server_up"} <= {event["event"] for event in events}
