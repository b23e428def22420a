"""Which way mail would go, as a whole server in memory tells it over the control socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control.visitor import Site
from receive.whole import Whole
from rigs.fake_dns import Zone, refused

from mtatwist.control.commands import BadArgument, RouteTest
from mtatwist.control.route import NAMED
from mtatwist.wiring.control import make_responders

DNS = {"dns.servers": '["192.0.2.53"]', "route.domain": '"other.test"'}
ZONE = (
    "a.test MX 20 mx2.a.test.",
    "a.test MX 10 mx1.a.test.",
    "mx1.a.test A 198.51.100.1",
    "mx2.a.test A 198.51.100.2",
    "plain.test A 198.51.100.3",
    "null.test MX 0 .",
)


class Asking:
    """An administrator before a server."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.server = Whole(patch, directory, {**DNS, **(settings or {})})
        self.server.network.default = Zone(*ZONE)
        self.visitor = Site(make_responders(self.server.mta, self.server.reactor)).visitor()
        self.visitor.hello()

    def ask(self, address: str) -> Any:
        asked = self.visitor.send(RouteTest, address=address)
        for _ in range(1000):
            answer = self.visitor.answer(RouteTest, asked)
            if answer is not None:
                return answer
            self.server.pass_time(0.05)
        raise AssertionError("no answer")

    def test(self, address: str) -> dict[str, Any]:
        route: dict[str, Any] = self.ask(address)["route"]
        return route

    def way(self, address: str) -> dict[str, Any]:
        (way,) = self.test(address)["ways"]
        return dict(way)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asking:
    return Asking(monkeypatch, tmp_path)


def hosts(way: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(each["preference"], each["host"], each["address"], each["port"]) for each in way["targets"]]


def test_by_mx(asking: Asking) -> None:
    assert asking.test("You@A.test") == {
        "address": "You@a.test",
        "accepted_from": "networks and users",
        "why": "a.test is none of relay.domains",
        "reply": None,
        "recipients": ["You@a.test"],
        "more_recipients": 0,
        "ways": [
            {
                "domain": "a.test",
                "route": "*",
                "transport": "smtp",
                "next_hop": "a.test",
                "exchanges": True,
                "tls": "may",
                "full": False,
                "failures": 0,
                "left_alone": 0.0,
                "trouble": "",
                "targets": [
                    {"preference": 10, "host": "mx1.a.test", "address": "198.51.100.1", "port": 25},
                    {"preference": 20, "host": "mx2.a.test", "address": "198.51.100.2", "port": 25},
                ],
                "reply": None,
            }
        ],
        "more_ways": 0,
    }
    assert asking.server.reactor.tcpClients == [], "nothing is sent"


def test_where_the_dns_has_no_exchange(asking: Asking) -> None:
    assert hosts(asking.way("you@plain.test")) == [(None, "plain.test", "198.51.100.3", 25)]
    assert hosts(asking.way("you@[192.0.2.9]")) == [(None, "192.0.2.9", "192.0.2.9", 25)]
    for domain, reply in (
        ("null.test", "556 5.1.10 null.test takes no mail (null MX)"),
        ("nowhere.test", "550 5.1.2 There is no domain nowhere.test"),
    ):
        way = asking.way(f"you@{domain}")
        assert (way["targets"], way["reply"]) == ([], reply)


def test_the_dns_is_away(asking: Asking) -> None:
    asking.server.network.default = refused
    way = asking.way("you@a.test")
    assert way["targets"] == []
    assert way["reply"].startswith("451 4.4.3 Cannot look up a.test: 192.0.2.53:53: ")


def test_by_a_smart_host(asking: Asking) -> None:
    way = asking.way("you@other.test")
    assert (way["route"], way["next_hop"], way["exchanges"]) == ("other.test", "next.test:25", False)
    assert hosts(way) == [(None, "next.test", "192.0.2.1", 25)]


def test_to_a_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"route.domain": '"here.test"', "route.transport": '"lmtp"', "route.next_hop": '"unix:/run/lmtp"'}
    way = Asking(monkeypatch, tmp_path, settings).way("you@here.test")
    assert (way["transport"], way["next_hop"]) == ("lmtp", "unix:/run/lmtp")
    assert hosts(way) == [(None, "unix:/run/lmtp", "/run/lmtp", None)]


def test_into_a_maildir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {
        "route.domain": '"here.test"',
        "route.transport": '"maildir"',
        "route.next_hop": f'"{tmp_path}/{{local}}"',
    }
    asking = Asking(monkeypatch, tmp_path, settings)
    way = asking.way("you@here.test")
    assert (way["transport"], way["targets"], way["reply"]) == ("maildir", [], None)
    refused = asking.test('"../you"@here.test')
    assert (refused["accepted_from"], refused["ways"]) == ("nobody", [])
    assert refused["reply"] == "550 5.1.3 This address can't be a mailbox here"


def test_mail_for_us_is_taken_from_everybody(asking: Asking) -> None:
    ours = asking.test("anybody@HERE.test")
    assert (ours["accepted_from"], ours["why"]) == ("everybody", "here.test is one of relay.domains")


def test_postmaster_without_a_domain(asking: Asking) -> None:
    found = asking.test("postmaster")
    assert found["accepted_from"] == "everybody"
    assert found["recipients"] == [asking.server.config.relay.postmaster]


def test_aliases_and_who_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text(
        "team: bob, ann@a.test, joe@other.test\nall: " + ", ".join(f"u{n}" for n in range(80))
    )
    (tmp_path / "recipients").write_text("bob\n" + "\n".join(f"u{n}" for n in range(80)) + "\n")
    settings = {"relay.aliases": f'"{tmp_path}/aliases"', "relay.recipients": f'"{tmp_path}/recipients"'}
    asking = Asking(monkeypatch, tmp_path, settings)
    assert asking.test("bob@here.test")["why"] == "here.test is one of relay.domains"
    team = asking.test("team@here.test")
    assert team["recipients"] == ["bob@here.test", "ann@a.test", "joe@other.test"]
    assert team["why"] == "here.test is one of relay.domains, and the address stands for others"
    assert [way["domain"] for way in team["ways"]] == ["here.test", "a.test", "other.test"]
    nobody = asking.test("carol@here.test")
    assert (nobody["accepted_from"], nobody["recipients"], nobody["ways"]) == ("nobody", [], [])
    assert nobody["reply"].startswith("550 5.1.1 ")
    many = asking.test("all@here.test")
    assert (len(many["recipients"]), many["more_recipients"]) == (NAMED, 80 - NAMED)


def test_a_destination_that_is_left_alone(asking: Asking) -> None:
    asking.server.connect("198.51.100.9").send("you@other.test")
    asking.server.pass_time(0.1)
    asking.server.next_hop_is_down()
    way = asking.way("you@other.test")
    assert way["failures"] >= 1
    assert "192.0.2.1" in way["trouble"]


@pytest.mark.parametrize(
    "address", ["", "you", "you@", "@here.test", "you@a b.test", "<you@here.test> x", "y\x00@a.test"]
)
def test_what_is_no_address(asking: Asking, address: str) -> None:
    assert asking.ask(address)[0] is BadArgument
