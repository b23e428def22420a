"""Where mail for a domain goes, and when it is returned instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from rigs.fake_dns import ONE, Rig, Zone, rcode, silent
from twisted.logger import capturedLogs

from mtatwist.envelope import Deferral, Failure
from mtatwist.relay.mx import MAX_EXCHANGES, MAX_TARGETS, Exchanges, SmartHosts
from mtatwist.relay.ourselves import Ourselves, machine_has
from mtatwist.transports.dial import Target
from mtatwist.transports.failures import ConnectFailed

OUR_ADDRESS = "203.0.113.1"


class Mx:
    """Exchanges over a zone. We are mta.test, and have OUR_ADDRESS."""

    def __init__(
        self,
        *lines: str,
        speak: Any = None,
        listening: Iterable[tuple[str, int]] = (),
        port: int = 25,
        loopback: bool = False,
        shuffle: Callable[[Any], None] = lambda them: None,
        **settings: Any,
    ) -> None:
        self.rig = Rig(speak or Zone(*lines), **settings)
        ourselves = Ourselves({"mta.test"}, lambda: listening, has_address=lambda address: address == OUR_ADDRESS)
        self.exchanges = Exchanges(
            self.rig.resolver, self.rig.hosts, ourselves, port=port, loopback=loopback, shuffle=shuffle
        )

    def targets(self, domain: str) -> list[Target]:
        result = self.rig.wait(self.rig.run(self.exchanges.targets(domain)))
        assert isinstance(result, list), result
        return result

    def hosts(self, domain: str) -> list[str]:
        return [target.host for target in self.targets(domain)]

    def addresses(self, domain: str) -> list[str]:
        return [target.address for target in self.targets(domain)]

    def refusal(self, domain: str) -> tuple[type, int, str]:
        """The outcome: its kind, code and enhanced code."""
        result = self.rig.wait(self.rig.run(self.exchanges.targets(domain)))
        assert isinstance(result, ConnectFailed), result
        return type(result.outcome), result.outcome.reply.code, result.outcome.reply.enhanced

    def words(self, domain: str) -> str:
        """What the outcome says."""
        result = self.rig.wait(self.rig.run(self.exchanges.targets(domain)))
        assert isinstance(result, ConnectFailed), result
        return result.outcome.reply.text


NO_DOMAIN = (Failure, 550, "5.1.2")
NO_ADDRESS = (Failure, 550, "5.4.4")
NULL_MX = (Failure, 556, "5.1.10")
LOOP = (Failure, 554, "5.4.6")
LATER = (Deferral, 451, "4.4.3")


# --- order --------------------------------------------------------------------------------------------------


def test_exchanges_come_by_preference_with_every_address() -> None:
    mx = Mx(
        "d.test MX 20 b.test.",
        "d.test MX 10 a.test.",
        "a.test A 192.0.2.1",
        "a.test AAAA 2001:db8::1",
        "a.test AAAA 2001:db8::2",
        "b.test A 192.0.2.3",
    )
    targets = mx.targets("d.test")
    assert {target.address for target in targets[:3]} == {"192.0.2.1", "2001:db8::1", "2001:db8::2"}
    assert targets[3] == Target("b.test", "192.0.2.3", 25)
    assert [target.host for target in targets[:3]] == ["a.test"] * 3


def test_equal_ones_are_shuffled() -> None:
    lines = [f"d.test MX 10 h{number}.test." for number in range(4)] + ["d.test MX 5 first.test."]
    lines += [f"h{number}.test A 192.0.2.{number}" for number in range(4)] + ["first.test A 192.0.2.9"]
    forwards = Mx(*lines, shuffle=lambda them: them.sort()).hosts("d.test")
    backwards = Mx(*lines, shuffle=lambda them: them.sort(reverse=True)).hosts("d.test")
    assert forwards == ["first.test", "h0.test", "h1.test", "h2.test", "h3.test"]
    assert backwards == ["first.test", "h3.test", "h2.test", "h1.test", "h0.test"]


def test_an_exchange_named_twice_is_tried_once() -> None:
    mx = Mx("d.test MX 10 A.test.", "d.test MX 10 a.test.", "a.test A 192.0.2.1")
    assert mx.addresses("d.test") == ["192.0.2.1"]


def test_without_exchanges_the_domain_is_its_own() -> None:
    assert Mx("d.test A 192.0.2.1", "d.test AAAA 2001:db8::1").hosts("d.test") == ["d.test", "d.test"]


def test_cnames_are_followed_everywhere() -> None:
    mx = Mx("d.test CNAME e.test.", "e.test MX 10 x.test.", "x.test CNAME y.test.", "y.test A 192.0.2.1")
    assert mx.targets("d.test") == [Target("x.test", "192.0.2.1", 25)]
    assert Mx("d.test CNAME e.test.", "e.test A 192.0.2.1").addresses("d.test") == ["192.0.2.1"]


def test_there_is_a_bound() -> None:
    lines = [f"d.test MX {number} h{number:02}.test." for number in range(50)]
    lines += [f"h{number:02}.test A 192.0.2.{address}" for number in range(50) for address in range(1, 6)]
    mx = Mx(*lines)
    targets = mx.targets("d.test")
    assert len(targets) == MAX_TARGETS
    assert targets[0].host == "h00.test"
    assert len(mx.rig.network.sent) == 1 + 2 * MAX_EXCHANGES


def test_domains_in_other_scripts() -> None:
    mx = Mx("xn--bcher-kva.test MX 1 xn--mller-kva.test.", "xn--mller-kva.test A 192.0.2.1")
    assert mx.targets("bücher.test") == [Target("xn--mller-kva.test", "192.0.2.1", 25)]


@pytest.mark.parametrize(
    ("literal", "address"),
    [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1"), ("[ipv6:2001:DB8::1]", "2001:db8::1")],
)
def test_address_literals(literal: str, address: str) -> None:
    mx = Mx(speak=silent, port=26)
    assert mx.targets(literal) == [Target(address, address, 26)]
    assert mx.rig.network.sent == []


# --- nothing there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], NO_DOMAIN),
        (["d.test TXT x"], NO_DOMAIN),
        (["d.test MX 0 ."], NULL_MX),
        (["d.test MX 10 a.test."], NO_ADDRESS),
        (["d.test MX 10 a.test.", "d.test MX 20 b.test.", "a.test TXT x"], NO_ADDRESS),
        (["d.test CNAME gone.test."], NO_DOMAIN),
    ],
)
def test_there_is_no_way(lines: list[str], expected: Any) -> None:
    assert Mx(*lines).refusal("d.test") == expected


@pytest.mark.parametrize("domain", ["a..b", "a" * 64 + ".test", "[192.0.2]", "[IPv6:x]", "[tag:x]", "[]", "x y"])
def test_what_is_no_domain(domain: str) -> None:
    assert Mx(speak=silent).refusal(domain) == NO_DOMAIN


def test_a_null_mx_among_others_says_nothing() -> None:
    assert Mx("d.test MX 0 .", "d.test MX 1 a.test.", "a.test A 192.0.2.1").addresses("d.test") == ["192.0.2.1"]


def test_an_exchange_without_address_is_passed_over() -> None:
    mx = Mx("d.test MX 1 gone.test.", "d.test MX 2 a.test.", "a.test A 192.0.2.1")
    assert mx.hosts("d.test") == ["a.test"]


# --- trouble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [silent, rcode("SERVFAIL"), rcode("REFUSED")])
def test_trouble_with_the_dns_is_no_fault_of_the_sender(bad: Any) -> None:
    assert Mx(speak=bad).refusal("d.test") == LATER


def test_an_exchange_that_cannot_be_looked_up_may_be_there_later() -> None:
    zone = Zone("d.test MX 1 bad.test.", "d.test MX 2 gone.test.", "d.test MX 3 good.test.", "good.test A 192.0.2.1")

    def speak(query: Any) -> Any:
        return rcode("SERVFAIL")(query) if "bad" in query.question[0].name.to_text() else zone(query)

    assert Mx(speak=speak).hosts("d.test") == ["good.test"]
    del zone.records["good.test", "A"]
    assert Mx(speak=speak).refusal("d.test") == LATER
    zone.records["good.test", "A"] = ["127.0.0.1"]
    assert Mx(speak=speak).refusal("d.test") == LATER


def test_an_old_answer_goes_on_while_the_dns_is_away() -> None:
    mx = Mx("d.test MX 1 a.test.", "a.test A 192.0.2.1")
    assert mx.addresses("d.test") == ["192.0.2.1"]
    mx.rig.clock.advance(400)
    mx.rig.network.udp[ONE] = silent
    assert mx.addresses("d.test") == ["192.0.2.1"]


# --- not to ourselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["d.test MX 10 mta.test."],
        ["d.test MX 10 MTA.test.", "d.test MX 10 b.test.", "d.test MX 20 c.test."],
        ["d.test MX 10 us.test.", "d.test MX 20 c.test.", f"us.test A {OUR_ADDRESS}"],
        [f"d.test A {OUR_ADDRESS}"],
        ["d.test MX 10 us.test.", f"us.test AAAA ::ffff:{OUR_ADDRESS}"],
    ],
)
def test_nothing_is_left_when_we_are_the_best(lines: list[str]) -> None:
    assert Mx(*lines, "b.test A 192.0.2.2", "c.test A 192.0.2.3").refusal("d.test") == LOOP


@pytest.mark.parametrize("us", ["mta.test", "us.test"])
def test_better_ones_than_us_are_tried(us: str) -> None:
    lines = ["d.test MX 5 a.test.", f"d.test MX 10 {us}.", "d.test MX 10 b.test.", "d.test MX 20 c.test."]
    lines += [f"{host}.test A 192.0.2.1" for host in "abc"] + [f"us.test A {OUR_ADDRESS}"]
    assert Mx(*lines).hosts("d.test") == ["a.test"]


def test_a_literal_can_be_us() -> None:
    assert Mx().refusal(f"[{OUR_ADDRESS}]") == LOOP


UNUSABLE = """
    127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 224.0.0.5 169.254.1.1 255.255.255.255
    ::1 :: ff02::1 fe80::1 ::ffff:127.0.0.1 ::ffff:0.0.0.0 ::ffff:169.254.1.1
"""


@pytest.mark.parametrize("address", UNUSABLE.split())
def test_addresses_that_are_no_exchange(address: str) -> None:
    type = "AAAA" if ":" in address else "A"
    mx = Mx("d.test MX 10 a.test.", f"a.test {type} {address}", "e.test MX 10 a.test.", "e.test MX 20 b.test.")
    assert mx.refusal("d.test") == LOOP
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    assert Mx().refusal(literal) == LOOP
    # The next exchange may do.
    mx.rig.network.udp[ONE].add("b.test A 192.0.2.1")  # type: ignore[attr-defined]
    assert mx.hosts("e.test") == ["b.test"]


def test_an_address_that_is_no_exchange_is_named() -> None:
    """In the DSN, so that the postmaster over there can mend it, and in our log."""
    with capturedLogs() as events:
        mx = Mx("d.test MX 10 a.test.", "a.test A 127.0.0.1")
        assert mx.words("d.test").endswith("can be sent to: a.test has 127.0.0.1, a loopback address")
        assert mx.words("[169.254.1.1]").endswith("can be sent to: 169.254.1.1 is a link-local address")
    (event, _) = [event for event in events if event["log_format"] == "address_left_out"]
    assert (event["domain"], event["host"], event["address"]) == ("d.test", "a.test", "127.0.0.1")
    assert (event["why"], event["count"]) == ("a loopback address", 1)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1"])
def test_private_networks_are_fine(address: str) -> None:
    type = "AAAA" if ":" in address else "A"
    assert Mx(f"d.test {type} {address}").addresses("d.test") == [address]


def test_names_for_the_machine_itself() -> None:
    assert Mx("d.test MX 10 localhost.").refusal("d.test") == LOOP
    assert Mx().refusal("localhost") == LOOP


def test_a_domain_of_the_hosts_file() -> None:
    assert Mx(known={"intern": ("192.168.0.9",)}).addresses("intern") == ["192.168.0.9"]


def test_a_route_may_allow_loopback_but_not_ourselves() -> None:
    lines = ["d.test MX 10 a.test.", "a.test A 127.0.0.2", "e.test A 127.0.0.1", "f.test A 169.254.0.1"]
    for on in ("127.0.0.1", "0.0.0.0", "::"):
        mx = Mx(*lines, loopback=True, port=2525, listening=[("192.0.2.1", 2525), (on, 2525), ("127.0.0.2", 25)])
        assert mx.refusal("e.test") == LOOP
        assert mx.refusal("f.test") == LOOP
        if on == "127.0.0.1":
            assert mx.targets("d.test") == [Target("a.test", "127.0.0.2", 2525)]


def test_what_the_machine_has() -> None:
    assert machine_has("127.0.0.1")
    assert machine_has("127.8.8.8")
    assert not machine_has("192.0.2.1")
    assert not machine_has("2001:db8::1")


# --- smart hosts --------------------------------------------------------------------------------------------


def smart(rig: Rig, next_hop: str) -> Any:
    return rig.wait(rig.run(SmartHosts(rig.hosts).targets(next_hop)))


def test_a_smart_host_is_looked_up() -> None:
    rig = Rig(Zone("smart.test A 192.0.2.1", "smart.test AAAA 2001:db8::1", "smart.test MX 10 other.test."))
    assert set(smart(rig, "smart.test:587")) == {
        Target("smart.test", "192.0.2.1", 587),
        Target("smart.test", "2001:db8::1", 587),
    }


@pytest.mark.parametrize(
    ("next_hop", "target"),
    [
        ("192.0.2.1:25", Target("192.0.2.1", "192.0.2.1", 25)),
        ("127.0.0.1:2525", Target("127.0.0.1", "127.0.0.1", 2525)),
        ("[::1]:25", Target("::1", "::1", 25)),
        ("localhost:26", Target("localhost", "127.0.0.1", 26)),
        ("printer:25", Target("printer", "192.168.0.5", 25)),
    ],
)
def test_these_smart_hosts_need_no_dns(next_hop: str, target: Target) -> None:
    rig = Rig(silent, known={"printer": ("192.168.0.5",)})
    (targets,) = rig.run(SmartHosts(rig.hosts).targets(next_hop))
    assert targets[0] == target


@pytest.mark.parametrize(
    ("speak", "enhanced"),
    [(silent, "4.4.3"), (rcode("SERVFAIL"), "4.4.3"), (Zone(), "4.4.4"), (Zone("smart.test TXT x"), "4.4.4")],
)
def test_a_smart_host_that_is_not_found_is_our_trouble(speak: Any, enhanced: str) -> None:
    failed = smart(Rig(speak), "smart.test:25")
    assert isinstance(failed, ConnectFailed)
    assert isinstance(failed.outcome, Deferral)
    assert failed.outcome.reply[:2] == (451, enhanced)
    assert "smart.test" in failed.outcome.reply.text


def test_a_smart_host_with_a_strange_name_is_our_trouble_too() -> None:
    failed = smart(Rig(), "a..b:25")
    assert isinstance(failed.outcome, Deferral)
