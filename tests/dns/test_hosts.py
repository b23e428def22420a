"""Host names, and what the machine itself says about names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs.fake_dns import ONE, Rig, Zone, rcode, silent
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mtatwist.dns.names import BadName, ascii_name, text_name, wire_name
from mtatwist.dns.network import Server
from mtatwist.dns.resolver import DnsTrouble
from mtatwist.dns.system import ResolvConf, WatchedFile, parse_hosts, parse_resolv_conf

KNOWN = {"printer": ("192.0.2.50", "2001:db8::50"), "mail.example": ("192.0.2.51",)}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:DB8::1", ("2001:db8::1",)),
        ("localhost", ("127.0.0.1", "::1")),
        ("Some.LocalHost", ("127.0.0.1", "::1")),
        ("Printer", ("192.0.2.50", "2001:db8::50")),
        ("mail.example.", ("192.0.2.51",)),
    ],
)
def test_these_need_no_dns(host: str, expected: tuple[str, ...]) -> None:
    rig = Rig(silent, known=KNOWN)
    (found,) = rig.run(rig.hosts.addresses(host))
    assert found.addresses == expected
    assert rig.network.sent == []


@pytest.mark.parametrize(("ipv6", "order"), [(True, [True, False, False]), (False, [False, True, False])])
def test_addresses_of_both_families_in_turn(ipv6: bool, order: list[bool]) -> None:
    rig = Rig(Zone("h.test A 192.0.2.1", "h.test A 192.0.2.2", "h.test AAAA 2001:db8::1"), ipv6=ipv6)
    found = rig.addresses("h.test")
    assert [":" in address for address in found.addresses] == order
    assert {"192.0.2.1", "192.0.2.2", "2001:db8::1"} == set(found.addresses)


def test_a_cname_says_the_true_name() -> None:
    rig = Rig(Zone("w.test CNAME h.test.", "h.test A 192.0.2.1", ad=True), trust_ad=True)
    assert rig.addresses("w.test") == (("192.0.2.1",), "h.test", True, True)


def test_no_such_host() -> None:
    rig = Rig(Zone("h.test MX 1 h.test."))
    assert (rig.addresses("h.test").addresses, rig.addresses("h.test").exists) == ((), True)
    assert not rig.addresses("x.test").exists
    assert isinstance(rig.addresses("a..b"), BadName)


def test_half_of_an_answer_will_do() -> None:
    zone = Zone("h.test A 192.0.2.1")

    def speak(query: Any) -> Any:
        return rcode("SERVFAIL")(query) if query.question[0].rdtype == 28 else zone(query)

    assert Rig(speak).addresses("h.test").addresses == ("192.0.2.1",)
    # Without it, nobody knows.
    assert isinstance(Rig(speak).addresses("x.test"), DnsTrouble)


def test_to_cancel_ends_both_halves() -> None:
    rig = Rig(silent)
    waiting = Deferred.fromCoroutine(rig.hosts.addresses("h.test"))
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    rig.resolver.stop()
    assert not rig.clock.getDelayedCalls()


# --- search lists -------------------------------------------------------------------------------------------


def asked(rig: Rig, host: str) -> list[str]:
    """The names that are looked up to find this one."""
    rig.wait(rig.run(rig.hosts.search(host)))
    return list(dict.fromkeys(name for name, _ in rig.network.udp[ONE].asked))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("host", "system", "names"),
    [
        ("mail", ResolvConf(), ["mail"]),
        ("mail", ResolvConf(search=("a.test", "b.test")), ["mail.a.test", "mail.b.test", "mail"]),
        ("x.mail", ResolvConf(search=("a.test",)), ["x.mail", "x.mail.a.test"]),
        ("x.mail", ResolvConf(search=("a.test",), ndots=5), ["x.mail.a.test", "x.mail"]),
        ("x.mail.", ResolvConf(search=("a.test",), ndots=5), ["x.mail"]),
    ],
)
def test_what_is_appended(host: str, system: ResolvConf, names: list[str]) -> None:
    assert asked(Rig(Zone(), system=lambda: system), host) == names


def test_the_first_that_is_there_is_taken() -> None:
    rig = Rig(Zone("mail.b.test A 192.0.2.1"), system=lambda: ResolvConf(search=("a.test", "b.test", "c.test")))
    assert rig.wait(rig.run(rig.hosts.search("mail"))).addresses == ("192.0.2.1",)
    assert "mail.c.test" not in asked(rig, "mail")


def test_trouble_on_the_way_is_trouble() -> None:
    rig = Rig(silent, system=lambda: ResolvConf(search=("a.test",)))
    assert isinstance(rig.wait(rig.run(rig.hosts.search("mail"))), DnsTrouble)


# --- the files ----------------------------------------------------------------------------------------------


def test_resolv_conf() -> None:
    text = """# made by hand
domain old.test
search a.test B.test ; more
nameserver 192.0.2.53
nameserver 2001:db8::53  # the other
nameserver nonsense
nameserver
options rotate ndots:2 timeout:1
sortlist 1.2.3.4
"""
    conf = parse_resolv_conf(text)
    assert conf.servers == (Server("192.0.2.53", 53), Server("2001:db8::53", 53))
    assert conf.search == ("a.test", "b.test")
    assert conf.ndots == 2
    assert parse_resolv_conf("") == ResolvConf((Server("127.0.0.1", 53),))
    assert len(parse_resolv_conf("nameserver 192.0.2.1\n" * 100).servers) == 8


def test_hosts_file() -> None:
    text = "127.0.0.1 localhost\n::1\tLocalhost ip6-localhost # x\n192.0.2.1 a.test A\nx y\n192.0.2.2 a\n192.0.2.3\n"
    assert parse_hosts(text) == {
        "localhost": ("127.0.0.1", "::1"),
        "ip6-localhost": ("::1",),
        "a.test": ("192.0.2.1",),
        "a": ("192.0.2.1", "192.0.2.2"),
    }


@given(st.text(), st.text(alphabet="12.:ab# \n\tnameserchdotpi", max_size=200))
def test_any_file_is_survived(text: str, like_one: str) -> None:
    for each in (text, like_one):
        assert parse_resolv_conf(each).servers
        for name, addresses in parse_hosts(each).items():
            assert name
            assert addresses


@given(st.one_of(st.text(), st.text(alphabet="aü.-_ß。xn", max_size=80)))
def test_any_text_is_a_name_or_none(text: str) -> None:
    try:
        name = ascii_name(text)
    except BadName:
        return
    assert name.isascii()
    assert name == ascii_name(name)
    assert text_name(wire_name(name)) == name


class Watched:
    def __init__(self, path: Path) -> None:
        self.clock: Any = Clock()
        self.checks = 0
        self.hold: Deferred[Any] | None = None
        self.file = WatchedFile(str(path), str.strip, clock=self.clock, in_thread=self.in_thread, empty="(nothing)")

    def in_thread(self, read: Any) -> Any:
        self.checks += 1
        if self.hold is not None:
            return self.hold
        return succeed(read())


def test_a_change_is_seen_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    watched = Watched(path)
    path.write_text("the other")
    assert watched.file.value == "one"
    watched.clock.advance(5)
    assert watched.file.value == "one" or watched.file.value == "the other"
    assert watched.file.value == "the other"
    assert watched.checks == 1
    watched.clock.advance(5)
    path.unlink()
    for _ in range(3):
        assert watched.file.value == "the other"


def test_a_file_that_takes_long_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    watched = Watched(path)
    watched.hold = Deferred()
    watched.clock.advance(5)
    for _ in range(3):
        assert watched.file.value == "one"
    assert watched.checks == 1
    watched.hold.errback(RuntimeError("no threads"))
    watched.hold = None
    path.write_text("two!")
    watched.clock.advance(5)
    assert watched.file.value in ("one", "two!")
    assert watched.file.value == "two!"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert Watched(tmp_path / "absent").file.value == "(nothing)"
