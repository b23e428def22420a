"""What can be asked about the DNS, and changed of it, over the control socket."""

from __future__ import annotations

from typing import Any

import pytest
from control.visitor import Site
from rigs.fake_dns import ONE, TWO, Rig, Zone, refused

from mtatwist.control.commands import (
    BadArgument,
    ControlCommand,
    DnsClear,
    DnsList,
    DnsLookup,
    DnsOverride,
)
from mtatwist.control.dns import DnsVerbs
from mtatwist.dns import Dns, overrides
from mtatwist.dns.cache import Answer, Key

LINES = (
    "a.test MX 20 mx2.a.test.",
    "a.test MX 10 mx1.a.test.",
    "mx1.a.test 60 A 192.0.2.1",
    "mx1.a.test AAAA 2001:db8::1",
    "mx2.a.test A 192.0.2.2",
    "plain.test A 192.0.2.3",
    "null.test MX 0 .",
)


class Asking:
    """An administrator in front of a resolver."""

    def __init__(self, **settings: Any) -> None:
        self.zone = Zone(*LINES, ad=True)
        self.rig = Rig(self.zone, trust_ad=True, **settings)
        verbs = DnsVerbs(lambda: Dns(self.rig.resolver, self.rig.hosts))
        self.visitor = Site(verbs.responders()).visitor()
        self.visitor.hello()

    def ask(self, command: type[ControlCommand], **arguments: Any) -> Any:
        asked = self.visitor.send(command, **arguments)
        for _ in range(3000):
            answer = self.visitor.answer(command, asked)
            if answer is not None:
                return answer
            self.rig.clock.advance(0.01)
        raise AssertionError("no answer")

    def look_up(self, name: str, type: str = "", *, refresh: bool = False) -> list[dict[str, Any]]:
        answer = self.ask(DnsLookup, name=name, type=type, refresh=refresh)["answer"]
        assert answer["more"] == 0
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    def list(self) -> list[dict[str, Any]]:
        return pages(self)


def pages(asking: Asking) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        answer = asking.ask(DnsList, after=after)
        rows += answer["rows"]
        after = answer["cursor"]
        if after is None:
            return rows


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["kind"], row["name"], row["type"], row["outcome"], *row["records"]) for row in rows]


def test_a_row_says_all_there_is() -> None:
    (row,) = Asking().look_up("mx1.A.test", "A")
    assert row == {
        "kind": "answer",
        "name": "mx1.a.test",
        "type": "A",
        "outcome": "records",
        "records": ["192.0.2.1"],
        "ttl": 60,
        "stale": False,
        "authentic": True,
        "reason": None,
    }


def test_what_a_delivery_would_ask() -> None:
    asking = Asking()
    assert short(asking.look_up("a.test")) == [
        ("answer", "a.test", "MX", "records", "10 mx1.a.test.", "20 mx2.a.test."),
        ("answer", "mx1.a.test", "AAAA", "records", "2001:db8::1"),
        ("answer", "mx1.a.test", "A", "records", "192.0.2.1"),
        ("answer", "mx2.a.test", "AAAA", "no records"),
        ("answer", "mx2.a.test", "A", "records", "192.0.2.2"),
    ]
    assert short(asking.look_up("plain.test")) == [
        ("answer", "plain.test", "MX", "no records"),
        ("answer", "plain.test", "AAAA", "no records"),
        ("answer", "plain.test", "A", "records", "192.0.2.3"),
    ]
    assert short(asking.look_up("null.test")) == [("answer", "null.test", "MX", "records", "0 .")]
    assert short(asking.look_up("nowhere.test")) == [("answer", "nowhere.test", "MX", "no such name")]


def test_what_needs_no_dns() -> None:
    asking = Asking(known={"mx.corp.test": ("10.0.0.1",)}, addresses={"fixed.test": ["192.0.2.9"]})
    assert short(asking.look_up("192.0.2.7")) == [("hosts", "192.0.2.7", None, "records", "192.0.2.7")]
    assert short(asking.look_up("mx.corp.test")) == [("hosts", "mx.corp.test", None, "records", "10.0.0.1")]
    assert short(asking.look_up("fixed.test", "A")) == [("override", "fixed.test", "A", "records", "192.0.2.9")]
    assert asking.zone.asked == []


def test_an_answer_is_remembered_until_it_is_refreshed() -> None:
    asking = Asking()
    asking.look_up("plain.test", "A")
    asking.zone.records["plain.test", "A"] = ["192.0.2.33"]
    asking.rig.clock.advance(100)
    (old,) = asking.look_up("plain.test", "A")
    assert (old["records"], old["ttl"]) == (["192.0.2.3"], 200)
    (new,) = asking.look_up("plain.test", "A", refresh=True)
    assert (new["records"], new["ttl"]) == (["192.0.2.33"], 300)
    assert asking.look_up("plain.test", "A") == [new]


def test_a_refresh_in_an_outage_takes_nothing_away() -> None:
    asking = Asking()
    asking.look_up("plain.test", "A")
    asking.rig.network.udp[ONE] = refused
    (failed,) = asking.look_up("plain.test", "A", refresh=True)
    assert (failed["outcome"], failed["reason"]) == ("failed", "192.0.2.1:53: Connection refused")
    (kept,) = asking.look_up("plain.test", "A")
    assert kept["records"] == ["192.0.2.3"]
    asking.rig.clock.advance(400)
    (stale,) = asking.look_up("plain.test", "A")
    assert (stale["records"], stale["stale"], stale["ttl"] < 0) == (["192.0.2.3"], True, True)


@pytest.mark.parametrize("name", ["", "a..test", "a b.test", f"{'a' * 64}.test"])
@pytest.mark.parametrize("type", ["", "MX"])
def test_what_is_no_name(name: str, type: str) -> None:
    kind, words = Asking().ask(DnsLookup, name=name, type=type, refresh=False)
    assert kind is BadArgument
    assert "is no name" in words


def test_what_is_no_type() -> None:
    assert Asking().ask(DnsLookup, name="a.test", type="ANY", refresh=False) == (
        BadArgument,
        "'ANY' can't be looked up: there are A, AAAA, MX",
    )


def test_the_list_has_overrides_and_then_what_is_remembered() -> None:
    asking = Asking(addresses={"Fixed.test": ["192.0.2.9"]}, forwards={"corp.test": [TWO]})
    asking.look_up("plain.test", "A")
    asking.look_up("nowhere.test", "MX")
    asking.ask(DnsOverride, domain="added.test", addresses=["192.0.2.8", "2001:DB8::8"])
    asking.rig.network.udp[ONE] = refused
    asking.look_up("trouble.test", "A")
    rows = asking.list()
    assert short(rows) == [
        ("override", "added.test", None, "added", "192.0.2.8", "2001:db8::8"),
        ("override", "fixed.test", None, "configured", "192.0.2.9"),
        ("servers", "corp.test", None, "configured", "192.0.2.2:53"),
        ("answer", "nowhere.test", "MX", "no such name"),
        ("answer", "plain.test", "A", "records", "192.0.2.3"),
        ("answer", "trouble.test", "A", "failed"),
    ]
    assert rows[-1]["reason"] == "192.0.2.1:53: Connection refused"


def test_a_long_list_comes_in_pages() -> None:
    asking = Asking(entries=2000)
    for number in range(1200):
        asking.rig.cache.put(Answer(Key(f"h{number}.test", "MX"), False, (), f"h{number}.test", ttl=300))
    for number in range(700):
        asking.rig.resolver.overrides.set(f"o{number}.test", ["192.0.2.8"])
    first = asking.ask(DnsList, after=None)
    assert 0 < len(first["rows"]) < 700
    assert first["cursor"] is not None
    names = [row["name"] for row in asking.list()]
    assert names == [
        *sorted(f"o{number}.test" for number in range(700)),
        *sorted(f"h{number}.test" for number in range(1200)),
    ]


@pytest.mark.parametrize("cursor", ["", "x", "5", "[]", "[1,2,3]", '["2"]', "null"])
def test_what_is_no_cursor(cursor: str) -> None:
    kind, _ = Asking().ask(DnsList, after=cursor)
    assert kind is BadArgument


def test_forgetting() -> None:
    asking = Asking()
    asking.look_up("a.test")
    asking.look_up("plain.test", "A")
    assert asking.ask(DnsClear, name="MX1.a.test") == {"cleared": 2}
    assert asking.ask(DnsClear, name="mx1.a.test") == {"cleared": 0}
    assert asking.ask(DnsClear, name=None) == {"cleared": 4}
    assert asking.list() == []
    assert asking.ask(DnsClear, name="a..test")[0] is BadArgument


def test_an_override_and_its_end() -> None:
    asking = Asking(addresses={"a.test": ["192.0.2.7"]})
    assert asking.ask(DnsOverride, domain="A.test", addresses=["192.0.2.77"]) == {"overrides": 1}
    assert short(asking.look_up("a.test", "A")) == [("override", "a.test", "A", "records", "192.0.2.77")]
    assert asking.ask(DnsOverride, domain="a.test", addresses=[]) == {"overrides": 0}
    assert short(asking.look_up("a.test", "A")) == [("override", "a.test", "A", "records", "192.0.2.7")]
    kind, words = asking.ask(DnsOverride, domain="a.test", addresses=[])
    assert (kind, words) == (BadArgument, "'a.test' has no override that was set while the server runs")


@pytest.mark.parametrize(
    ("domain", "addresses"),
    [
        ("a..test", ["192.0.2.1"]),
        ("a.test", ["nowhere"]),
        ("a.test", ["192.0.2.0/24"]),
        ("a.test", "192.0.2.1"),
        ("a.test", [1]),
        ("a.test", None),
        ("a.test", ["192.0.2.1"] * (overrides.ADDRESSES + 1)),
    ],
)
def test_what_can_be_no_override(domain: str, addresses: Any) -> None:
    asking = Asking()
    assert asking.ask(DnsOverride, domain=domain, addresses=addresses)[0] is BadArgument
    assert asking.list() == []
