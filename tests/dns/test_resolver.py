"""What is looked up, where, how long it is remembered, and what happens when the DNS is away."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from rigs.fake_dns import IN_FLIGHT, ONE, TWO, Rig, Zone, rcode, refused, silent

from mtatwist.dns import cache, overrides, resolver
from mtatwist.dns.names import BadName
from mtatwist.dns.network import Server
from mtatwist.dns.resolver import MAX_CNAMES, DnsTrouble

THREE = Server("2001:db8::3", 5353)


def test_records_are_found() -> None:
    rig = Rig(Zone("a.test MX 10 mx.a.test.", "a.test MX 20 mx2.a.test.", "mx.a.test A 192.0.2.9"))
    answer = rig.lookup("A.Test", "MX")
    assert sorted(record.to_text() for record in answer.records) == ["10 mx.a.test.", "20 mx2.a.test."]
    assert (answer.exists, answer.canonical, answer.stale, answer.secure) == (True, "a.test", False, False)
    assert rig.texts("mx.a.test.") == ["192.0.2.9"]
    assert rig.metrics.dns_answered.value == 2
    assert rig.network.open == 0


def test_the_query_is_recursive_and_says_what_fits() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    rig.lookup("a.test")
    (_, over, query) = rig.network.sent[0]
    assert over == "udp"
    assert query.payload == 1232
    assert query.flags & 0x0100
    assert not query.flags & 0x0020


def test_names_in_other_scripts_are_asked_for_in_their_ascii_form() -> None:
    zone = Zone("xn--bcher-kva.test A 192.0.2.9", "xn--fa-hia.test A 192.0.2.8", "_x.xn--bcher-kva.test TXT ok")
    rig = Rig(zone)
    assert rig.texts("Bücher.TEST") == ["192.0.2.9"]
    assert rig.texts("faß。test") == ["192.0.2.8"]
    assert rig.texts("_x.bücher.test", "TXT") == ['"ok"']


@pytest.mark.parametrize(
    "name", ["", "a..test", "a" * 64 + ".test", "a.b" * 90, "a\\.b", "a b", "💩\u0600.test", "a\0b"]
)
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    rig = Rig()
    assert isinstance(rig.lookup(name), BadName)
    assert rig.network.sent == []


@pytest.mark.parametrize("name", ["hidden.onion", "x.invalid"])
def test_names_that_the_dns_must_not_see(name: str) -> None:
    rig = Rig(silent)
    assert not rig.lookup(name).exists
    assert rig.network.sent == []


# --- nothing there, and trouble -----------------------------------------------------------------------------


def test_nothing_is_an_answer() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    nodata = rig.lookup("a.test", "MX")
    assert (nodata.exists, nodata.records) == (True, ())
    nxdomain = rig.lookup("b.test", "MX")
    assert (nxdomain.exists, nxdomain.records) == (False, ())
    assert rig.metrics.dns_absent.value == 2


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTAUTH", "YXDOMAIN"])
def test_these_are_trouble(code: str) -> None:
    rig = Rig(rcode(code))
    trouble = rig.lookup("a.test")
    assert isinstance(trouble, DnsTrouble)
    assert code in str(trouble)
    assert "192.0.2.1:53" in str(trouble)
    assert rig.metrics.dns_failed.value == 1
    assert len(rig.network.sent) == 1


def test_a_dead_dns_is_trouble_in_time() -> None:
    rig = Rig(silent, seconds=10.0)
    begun = rig.clock.seconds()
    assert isinstance(rig.lookup("a.test"), DnsTrouble)
    assert rig.clock.seconds() - begun == pytest.approx(10, abs=0.1)
    assert rig.network.open == 0
    assert len(rig.network.sent) == 3
    assert not rig.clock.getDelayedCalls()


def test_a_closed_port_is_trouble_at_once() -> None:
    rig = Rig(refused)
    begun = rig.clock.seconds()
    assert "Connection refused" in str(rig.lookup("a.test"))
    assert rig.clock.seconds() - begun < 0.1


def test_no_socket_left_is_no_fault_of_the_server() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    rig.network.trouble = OSError(errno.EMFILE, "Too many open files")
    assert "Too many open files" in str(rig.lookup("a.test"))
    assert rig.metrics.dns_server_failures.value == 0
    rig.network.trouble = None
    rig.clock.advance(6)
    assert rig.texts("a.test") == ["192.0.2.9"]


def test_trouble_is_remembered_for_a_moment() -> None:
    rig = Rig(rcode("SERVFAIL"))
    rig.lookup("a.test")
    assert isinstance(rig.lookup("a.test"), DnsTrouble)
    assert len(rig.network.sent) == 1
    rig.clock.advance(5)
    rig.lookup("a.test")
    assert len(rig.network.sent) == 2


# --- several servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [silent, refused, rcode("SERVFAIL"), rcode("REFUSED")])
def test_the_next_server_has_the_answer(bad: Any) -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"), servers=[ONE, TWO])
    rig.network.udp[ONE] = bad
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert rig.network.asked() == [ONE.address, TWO.address]


def test_a_silent_server_is_not_waited_for_when_another_one_has_spoken() -> None:
    rig = Rig(rcode("SERVFAIL"), servers=[ONE, TWO])
    rig.network.udp[ONE] = silent
    begun = rig.clock.seconds()
    assert "SERVFAIL" in str(rig.lookup("a.test"))
    assert rig.clock.seconds() - begun < 3
    assert rig.network.asked() == [ONE.address, TWO.address]


def test_a_server_that_failed_is_put_behind_and_gets_another_chance() -> None:
    zone = Zone("a.test A 192.0.2.9", "b.test A 192.0.2.9", "c.test A 192.0.2.9", "d.test A 192.0.2.9")
    rig = Rig(zone, servers=[ONE, TWO])
    rig.network.udp[ONE] = silent
    rig.lookup("a.test")
    assert rig.metrics.dns_server_failures.value == 1
    rig.lookup("b.test")
    assert rig.network.asked() == [ONE.address, TWO.address, TWO.address]
    rig.clock.advance(31)
    rig.network.udp[ONE] = zone
    rig.network.sent.clear()
    rig.lookup("c.test")
    rig.lookup("d.test")
    assert rig.network.asked() == [ONE.address, ONE.address]


def test_only_one_query_finds_out_whether_a_server_is_back() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9", "b.test A 192.0.2.9", "c.test A 192.0.2.9"), servers=[ONE, TWO])
    rig.network.udp[ONE] = silent
    rig.lookup("a.test")
    rig.clock.advance(31)
    rig.network.sent.clear()
    both = rig.begin("b.test"), rig.begin("c.test")
    assert rig.network.asked() == [ONE.address, TWO.address]
    for each in both:
        rig.wait(each)


def test_a_name_that_takes_long_says_nothing_about_the_server() -> None:
    zone = Zone("quick.test A 192.0.2.9")

    def speak(query: Any) -> Any:
        return None if "slow" in query.question[0].name.to_text() else zone(query)

    rig = Rig(speak, servers=[ONE, TWO])
    slow = rig.begin("slow.test")
    rig.clock.advance(0.5)
    rig.lookup("quick.test")
    rig.clock.advance(2)
    rig.network.sent.clear()
    rig.cache.clear()
    rig.lookup("quick.test")
    assert rig.network.asked()[0] == ONE.address
    rig.wait(slow)


def test_servers_can_change() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"), servers=[ONE])
    rig.network.udp[THREE] = rig.network.udp[ONE]
    rig.servers[:] = [THREE]
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert rig.network.asked() == [THREE.address]


# --- what is shared, and how much at once -------------------------------------------------------------------


def test_lookups_of_the_same_share_one_query() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    several = [rig.begin("a.test") for _ in range(50)]
    for each in several:
        assert rig.wait(each).exists
    assert len(rig.network.sent) == 1


def test_one_who_waits_no_more_does_not_end_it_for_the_others() -> None:
    from twisted.internet.defer import Deferred

    rig = Rig(Zone("a.test A 192.0.2.9"))
    first = Deferred.fromCoroutine(rig.resolver.lookup("a.test", "A"))
    first.addErrback(lambda _: None)
    second = rig.begin("a.test")
    first.cancel()
    assert rig.wait(second).exists


def test_so_many_ask_at_the_same_time_and_no_more() -> None:
    rig = Rig(Zone(*(f"h{number}.test A 192.0.2.9" for number in range(300))))
    several = [rig.begin(f"h{number}.test") for number in range(300)]
    for each in several:
        assert rig.wait(each).exists
    assert rig.network.most_open == IN_FLIGHT
    assert rig.network.open == 0


def test_too_many_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "WAITING", 2 * IN_FLIGHT)
    rig = Rig(silent)
    for number in range(2 * IN_FLIGHT):
        rig.begin(f"h{number}.test")
    assert "too many" in str(rig.begin("one-more.test")[0])


def test_stopping_ends_all() -> None:
    rig = Rig(silent)
    several = [rig.begin(f"h{number}.test") for number in range(3 * IN_FLIGHT)]
    rig.resolver.stop()
    assert all(isinstance(each[0], DnsTrouble) for each in several)
    assert rig.network.open == 0
    assert not rig.clock.getDelayedCalls()


# --- CNAMEs -------------------------------------------------------------------------------------------------


def test_cnames_are_followed_in_the_reply() -> None:
    rig = Rig(Zone("a.test 900 CNAME b.test.", "b.test 30 CNAME c.test.", "c.test A 192.0.2.9"))
    answer = rig.lookup("a.test")
    assert (answer.canonical, answer.ttl) == ("c.test", 30)
    assert [record.to_text() for record in answer.records] == ["192.0.2.9"]


def test_cnames_that_the_server_does_not_follow_are_followed_by_us() -> None:
    zone = Zone("a.test 20 CNAME b.test.", "b.test A 192.0.2.9")

    def speak(query: Any) -> Any:
        reply = zone(query)
        if len(reply.answer) > 1:
            del reply.answer[1:]
        return reply

    rig = Rig(speak)
    answer = rig.lookup("a.test")
    assert (answer.canonical, answer.ttl, len(answer.records)) == ("b.test", 20, 1)
    assert len(rig.network.sent) == 2


def test_a_cname_to_nothing() -> None:
    rig = Rig(Zone("a.test CNAME b.test."))
    assert not rig.lookup("a.test", "MX").exists


def test_endless_cnames_end() -> None:
    rig = Rig(Zone("a.test CNAME b.test.", "b.test CNAME a.test."))
    assert isinstance(rig.lookup("a.test"), DnsTrouble)

    def endless(query: Any) -> Any:
        name = query.question[0].name.to_text(omit_final_dot=True)
        reply = Zone(f"{name} CNAME x{name}.")(query)
        reply.authority.clear()
        reply.set_rcode(0)
        return reply

    rig = Rig(endless)
    assert "CNAME" in str(rig.lookup("a.test"))
    assert len(rig.network.sent) <= MAX_CNAMES + 1


# --- what is remembered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "seconds"), [(1, 60), (300, 300), (999999, 3600)])
def test_answers_are_remembered_for_their_time_within_limits(ttl: int, seconds: float) -> None:
    rig = Rig(Zone(f"a.test {ttl} A 192.0.2.9"), minimum_ttl=60, maximum_ttl=3600)
    rig.lookup("a.test")
    rig.clock.advance(seconds - 1)
    rig.lookup("a.test")
    assert len(rig.network.sent) == 1
    assert rig.metrics.dns_cache_hits.value == 1
    rig.clock.advance(1)
    rig.lookup("a.test")
    assert len(rig.network.sent) == 2


def test_nothing_is_remembered_for_as_long_as_the_zone_says() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    rig.lookup("b.test")
    rig.lookup("a.test", "MX")
    rig.clock.advance(59)
    rig.lookup("b.test")
    rig.lookup("a.test", "MX")
    assert len(rig.network.sent) == 2
    rig.clock.advance(2)
    rig.lookup("b.test")
    rig.lookup("a.test", "MX")
    assert len(rig.network.sent) == 4


def test_the_least_used_goes() -> None:
    rig = Rig(Zone(*(f"h{number}.test A 192.0.2.9" for number in range(10))), entries=3)
    for number in (0, 1, 2, 0, 3):
        rig.lookup(f"h{number}.test")
    assert [each.key.name for each in rig.resolver.remembered(10)] == ["h0.test", "h2.test", "h3.test"]
    assert rig.metrics.dns_cache_entries.value == 3


def test_large_answers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "OCTETS_LIMIT", 2000)
    rig = Rig(Zone(*(f"h{number}.test TXT {'x' * 200}" for number in range(30))))
    for number in range(30):
        rig.lookup(f"h{number}.test", "TXT")
    assert 5 < len(rig.cache) < 10
    # What is too large for it is still an answer.
    monkeypatch.setattr(cache, "OCTETS_LIMIT", 200)
    assert len(rig.lookup("h0.test", "TXT").records) == 1
    assert len(rig.cache) == 0


def test_what_is_remembered_can_be_looked_at_refreshed_and_forgotten() -> None:
    zone = Zone("a.test A 192.0.2.9", "a.test MX 1 a.test.", "b.test A 192.0.2.9")
    rig = Rig(zone)
    rig.lookup("a.test")
    rig.lookup("a.test", "MX")
    rig.lookup("b.test")
    rig.clock.advance(100)
    listed = [(each.key, round(each.left)) for each in rig.resolver.remembered(10)]
    assert listed == [(("a.test", "A"), 200), (("a.test", "MX"), 200), (("b.test", "A"), 200)]
    assert round(rig.resolver.left(rig.lookup("a.test")) or 0) == 200
    first = rig.resolver.remembered(2)
    assert [each.key for each in first] == [("a.test", "A"), ("a.test", "MX")]
    assert [each.key for each in rig.resolver.remembered(2, first[-1].key)] == [("b.test", "A")]
    zone.records["a.test", "A"] = ["192.0.2.10"]
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert rig.lookup("a.test", refresh=True).records[0].to_text() == "192.0.2.10"
    assert rig.texts("a.test") == ["192.0.2.10"]
    assert rig.resolver.clear("A.test") == 2
    assert rig.resolver.clear() == 1
    assert rig.resolver.remembered(10) == []


def test_what_is_listed_of_trouble() -> None:
    zone = Zone("a.test 60 A 192.0.2.9")
    rig = Rig(zone)
    rig.lookup("a.test")
    assert rig.resolver.servers == [(ONE, True)]
    rig.network.udp[ONE] = refused
    rig.clock.advance(70)
    assert rig.lookup("a.test").stale
    assert isinstance(rig.lookup("b.test"), DnsTrouble)
    old, failed = rig.resolver.remembered(10)
    assert old.answer is not None
    assert old.left < 0
    assert old.trouble == failed.trouble == "192.0.2.1:53: Connection refused"
    assert failed.answer is None
    assert rig.resolver.servers == [(ONE, False)]
    rig.clock.advance(10)
    (old,) = rig.resolver.remembered(10)
    assert old.trouble, "for longer than the other"


# --- the DNS is away: old answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [silent, refused, rcode("SERVFAIL")])
def test_an_old_answer_is_better_than_none(bad: Any) -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    rig.lookup("a.test")
    rig.clock.advance(301)
    zone, rig.network.udp[ONE] = rig.network.udp[ONE], bad
    begun = rig.clock.seconds()
    answer = rig.lookup("a.test")
    assert answer.stale
    assert len(answer.records) == 1
    assert rig.clock.seconds() - begun < 2
    assert rig.metrics.dns_stale.value == 1
    rig.clock.advance(10)
    # The DNS has just been found to be in trouble: nobody waits for it again.
    begun = rig.clock.seconds()
    assert rig.lookup("a.test").stale
    assert rig.clock.seconds() == begun
    # It comes back.
    rig.network.udp[ONE] = zone
    rig.clock.advance(30)
    assert not rig.lookup("a.test").stale


def test_an_answer_can_be_too_old() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"), maximum_stale=3600)
    rig.lookup("a.test")
    rig.network.udp[ONE] = silent
    rig.clock.advance(301 + 3600)
    assert isinstance(rig.lookup("a.test"), DnsTrouble)


def test_old_answers_can_be_unwanted() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"), maximum_stale=0)
    rig.lookup("a.test")
    rig.network.udp[ONE] = silent
    rig.clock.advance(301)
    assert isinstance(rig.lookup("a.test"), DnsTrouble)


def test_an_old_denial_fails_nobody() -> None:
    rig = Rig(Zone())
    assert not rig.lookup("a.test").exists
    rig.network.udp[ONE] = silent
    rig.clock.advance(301)
    assert isinstance(rig.lookup("a.test"), DnsTrouble)


def test_a_late_answer_is_taken_by_the_cache() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"))
    rig.lookup("a.test")
    rig.clock.advance(301)
    rig.network.latency = 1.9
    assert rig.lookup("a.test").stale
    rig.clock.advance(1)
    assert not rig.lookup("a.test").stale


# --- whom to believe ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trust", "ad", "secure"), [(True, True, True), (True, False, False), (False, True, False)])
def test_secure_is_what_a_trusted_server_says(trust: bool, ad: bool, secure: bool) -> None:
    rig = Rig(Zone("a.test A 192.0.2.9", ad=ad), trust_ad=trust)
    assert rig.lookup("a.test").secure is secure
    assert rig.lookup("a.test").secure is secure
    assert bool(rig.network.sent[0][2].flags & 0x0020) is trust


@pytest.mark.parametrize("signed", [(True, False), (False, True)])
def test_a_chain_is_as_secure_as_its_weakest_part(signed: tuple[bool, bool]) -> None:
    first, second = Zone("a.test CNAME b.test.", ad=signed[0]), Zone("b.test A 192.0.2.9", ad=signed[1])

    def speak(query: Any) -> Any:
        if "a.test" not in query.question[0].name.to_text():
            return second(query)
        reply = first(query)
        reply.authority.clear()
        reply.set_rcode(0)
        return reply

    rig = Rig(speak, trust_ad=True)
    answer = rig.lookup("a.test")
    assert answer.records
    assert not answer.secure


# --- what the administrator says ----------------------------------------------------------------------------


def test_fixed_addresses() -> None:
    rig = Rig(silent, addresses={"Relay.test": ["192.0.2.7", "2001:db8::7"]})
    assert rig.texts("relay.test") == ["192.0.2.7"]
    assert rig.texts("relay.test", "AAAA") == ["2001:db8::7"]
    nodata = rig.lookup("relay.test", "MX")
    assert (nodata.exists, nodata.records) == (True, ())
    assert rig.addresses("relay.test").addresses == ("2001:db8::7", "192.0.2.7")
    assert rig.network.sent == []


def test_overrides_while_it_runs() -> None:
    rig = Rig(Zone("a.test A 192.0.2.9"), known={"a.test": ("192.0.2.1",)})
    rig.resolver.overrides.set("A.test", ["192.0.2.77"])
    assert list(rig.resolver.overrides) == [("a.test", ("192.0.2.77",), True)]
    assert rig.addresses("a.test").addresses == ("192.0.2.77",)
    assert rig.resolver.overrides.remove("a.test")
    assert not rig.resolver.overrides.remove("a.test")
    assert rig.texts("a.test") == ["192.0.2.9"]
    for wrong in ([], ["not an address"], ["192.0.2.1"] * (overrides.ADDRESSES + 1)):
        with pytest.raises(ValueError):
            rig.resolver.overrides.set("a.test", wrong)


def test_an_override_covers_what_the_configuration_says_until_it_is_taken_back() -> None:
    rig = Rig(silent, addresses={"a.test": ["192.0.2.7"], "b.test": ["192.0.2.8"]}, forwards={"corp.test": [TWO]})
    both = rig.resolver.overrides
    both.set("a.test", ["192.0.2.77"])
    assert list(both) == [("a.test", ("192.0.2.77",), True), ("b.test", ("192.0.2.8",), False)]
    assert both.added == 1
    assert both.domains == {"corp.test": (TWO,)}
    assert rig.texts("a.test") == ["192.0.2.77"]
    assert both.remove("a.test")
    assert rig.texts("a.test") == ["192.0.2.7"]
    assert not both.remove("b.test"), "that stands in the configuration"
    assert rig.texts("b.test") == ["192.0.2.8"]


def test_overrides_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "LIMIT", 2)
    both = Rig().resolver.overrides
    for name in ("a.test", "b.test", "a.test"):
        both.set(name, ["192.0.2.7"])
    with pytest.raises(ValueError, match="2 overrides already"):
        both.set("c.test", ["192.0.2.7"])


def test_a_domain_with_servers_of_its_own() -> None:
    rig = Rig(
        Zone("a.test A 192.0.2.9", ad=True), forwards={"corp.test": [TWO], "deep.corp.test": [THREE]}, trust_ad=True
    )
    rig.network.udp[TWO] = Zone("corp.test A 192.0.2.8", "x.corp.test A 192.0.2.8", ad=True)
    rig.network.udp[THREE] = Zone("x.deep.corp.test A 192.0.2.7")
    assert rig.texts("corp.test") == ["192.0.2.8"]
    assert rig.texts("x.corp.test") == ["192.0.2.8"]
    assert rig.texts("x.deep.corp.test") == ["192.0.2.7"]
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert rig.lookup("a.test").secure
    assert not rig.lookup("corp.test").secure
    assert rig.network.asked() == [TWO.address, TWO.address, THREE.address, ONE.address]
