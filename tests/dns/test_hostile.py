"""Replies from servers, and from others who would like to be taken for them."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rigs.fake_dns import ONE, TWO, Rig, Zone, rcode, silent, unreachable
from twisted.logger import capturedLogs

from mtatwist.dns.message import MAX_RECORDS, BadReply, NotOurs, Reply, Truncated, make_query, read_reply
from mtatwist.dns.names import wire_name
from mtatwist.dns.network import STRANGERS
from mtatwist.dns.resolver import DnsTrouble

ZONE = Zone("a.test A 192.0.2.9", "a.test MX 10 mx.a.test.")
EVIL = Zone("a.test A 203.0.113.66", "other.test A 203.0.113.66")


def forged(change: Any) -> Any:
    """A server whose true reply comes after one that was changed."""

    def speak(query: dns.message.Message) -> list[Any]:
        false = EVIL(query)
        made = change(false)
        return [false if made is None else made, ZONE(query)]

    return speak


def other_id(reply: Any) -> None:
    reply.id ^= 1


def other_question(reply: Any) -> None:
    reply.question = [dns.rrset.from_text("other.test.", 0, "IN", "A")]


def other_type(reply: Any) -> None:
    reply.question = [dns.rrset.from_text("a.test.", 0, "IN", "AAAA")]


def other_class(reply: Any) -> None:
    reply.question = [dns.rrset.from_text("a.test.", 0, "CH", "A")]


def two_questions(reply: Any) -> None:
    reply.question.append(dns.rrset.from_text("b.test.", 0, "IN", "A"))


def no_question(reply: Any) -> None:
    reply.question = []


def a_query(reply: Any) -> None:
    reply.flags &= ~dns.flags.QR


def notify(reply: Any) -> None:
    reply.set_opcode(dns.opcode.NOTIFY)


@pytest.mark.parametrize(
    "change",
    [other_id, other_question, other_type, other_class, two_questions, no_question, a_query, notify],
    ids=lambda change: change.__name__,
)
def test_what_is_no_reply_to_our_query_is_passed_over(change: Any) -> None:
    rig = Rig(forged(change))
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert [over for _, over, _ in rig.network.sent] == ["udp"]


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 11, b"\0" * 12, b"\xff" * 4096], ids=len)
def test_garbage_is_passed_over(data: bytes) -> None:
    rig = Rig(lambda query: [data, ZONE(query)])
    assert rig.texts("a.test") == ["192.0.2.9"]


def cut(query: dns.message.Message) -> bytes:
    return ZONE(query).to_wire()[:-3]


def trailing(query: dns.message.Message) -> bytes:
    return ZONE(query).to_wire() + b"junk"


def pointing_at_itself(query: dns.message.Message) -> bytes:
    wire = ZONE(query).to_wire()
    return wire[:12] + b"\xc0\x0c" + wire[14:]


def counting_wrong(query: dns.message.Message) -> bytes:
    wire = ZONE(query).to_wire()
    return wire[:6] + b"\x00\x09" + wire[8:]


@pytest.mark.parametrize("speak", [cut, trailing, pointing_at_itself, counting_wrong], ids=lambda f: f.__name__)
def test_a_reply_that_cannot_be_read_is_asked_for_over_tcp(speak: Any) -> None:
    rig = Rig(speak, servers=[ONE, TWO])
    rig.network.tcp[ONE] = ZONE
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert [(server, over) for server, over, _ in rig.network.sent] == [(ONE, "udp"), (ONE, "tcp")]
    assert rig.network.open == 0


def nothing(query: bytes) -> bytes:
    return b""


def trouble(query: bytes) -> OSError:
    return OSError()


@pytest.mark.parametrize("speak", [cut, counting_wrong, nothing, trouble, other_id], ids=lambda f: f.__name__)
def test_if_that_is_no_better_the_next_server_is_asked(speak: Any) -> None:
    rig = Rig(cut, servers=[ONE, TWO])
    rig.network.tcp[ONE] = (lambda query: EVIL(query).to_wire()[:1]) if speak is other_id else speak
    rig.network.udp[TWO] = ZONE
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert rig.network.open == 0


def test_many_strangers_make_it_ask_over_tcp() -> None:
    def guessing(query: dns.message.Message) -> list[Any]:
        guesses = []
        for number in range(STRANGERS):
            reply = EVIL(query)
            reply.id ^= number + 1
            guesses.append(reply)
        return [*guesses, EVIL(query)]

    rig = Rig(guessing)
    rig.network.tcp[ONE] = ZONE
    assert rig.texts("a.test") == ["192.0.2.9"]


def test_a_truncated_reply_is_fetched_over_tcp() -> None:
    def short(query: dns.message.Message) -> dns.message.Message:
        reply = EVIL(query)
        reply.flags |= dns.flags.TC
        return reply

    rig = Rig(short)
    rig.network.tcp[ONE] = ZONE
    assert rig.texts("a.test") == ["192.0.2.9"]
    rig = Rig(short)
    rig.network.tcp[ONE] = short
    assert isinstance(rig.lookup("a.test"), DnsTrouble)
    rig = Rig(short)
    assert "TCP" in str(rig.lookup("a.test"))


def test_tcp_that_says_nothing_ends_in_time() -> None:
    rig = Rig(cut, seconds=5)
    rig.network.tcp[ONE] = silent
    begun = rig.clock.seconds()
    assert isinstance(rig.lookup("a.test"), DnsTrouble)
    assert rig.clock.seconds() - begun == pytest.approx(5, abs=0.1)
    assert rig.network.open == 0


def test_tcp_that_does_not_connect_ends_in_time() -> None:
    rig = Rig(cut, seconds=5)
    rig.network.tcp[ONE] = unreachable
    begun = rig.clock.seconds()
    with capturedLogs() as events:
        assert str(rig.lookup("a.test")) == "no DNS server answers"
    assert "lookup_crashed" not in {event["log_format"] for event in events}
    assert rig.clock.seconds() - begun == pytest.approx(5, abs=0.1)
    assert not rig.clock.getDelayedCalls()


def test_a_server_that_does_not_know_edns_is_asked_without() -> None:
    def old(query: dns.message.Message) -> Any:
        return rcode("FORMERR")(query) if query.edns >= 0 else ZONE(query)

    rig = Rig(old)
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert [query.edns for _, _, query in rig.network.sent] == [0, -1]


def test_an_error_without_the_question_is_one() -> None:
    def speak(query: dns.message.Message) -> dns.message.Message:
        reply = rcode("SERVFAIL")(query)
        reply.question = []
        return reply

    assert "SERVFAIL" in str(Rig(speak).lookup("a.test"))


def test_a_lame_server_is_passed_over() -> None:
    def lame(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.authority.append(dns.rrset.from_text("test.", 300, "IN", "NS", "ns.elsewhere.example."))
        return reply

    rig = Rig(lame, servers=[ONE, TWO])
    rig.network.udp[TWO] = ZONE
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert "lame" in str(Rig(lame).lookup("a.test"))


def test_records_beside_the_answer_are_not_taken() -> None:
    def generous(query: dns.message.Message) -> dns.message.Message:
        reply = ZONE(query)
        reply.answer.append(dns.rrset.from_text("bank.test.", 300, "IN", "A", "203.0.113.66"))
        reply.additional.append(dns.rrset.from_text("mx.a.test.", 300, "IN", "A", "203.0.113.66"))
        return reply

    rig = Rig(generous)
    assert rig.texts("a.test") == ["192.0.2.9"]
    assert [each.key.name for each in rig.resolver.remembered(10)] == ["a.test"]


def test_a_crowd_of_records_is_not_read() -> None:
    zone = Zone(*(f"a.test A 10.0.{number // 250}.{number % 250}" for number in range(MAX_RECORDS + 1)))
    rig = Rig(lambda query: zone(query).to_wire(max_size=65535))
    assert "too many records" in str(rig.lookup("a.test"))
    assert rig.metrics.dns_server_failures.value == 0


def test_what_somebody_put_into_a_zone_says_nothing_about_the_server() -> None:
    rig = Rig(cut)
    rig.network.tcp[ONE] = cut
    assert "unreadable" in str(rig.lookup("a.test"))
    assert rig.metrics.dns_server_failures.value == 0


def test_nothing_without_a_soa_is_not_believed_for_long() -> None:
    def speak(query: dns.message.Message) -> dns.message.Message:
        reply = Zone()(query)
        reply.authority.clear()
        return reply

    rig = Rig(speak)
    assert not rig.lookup("a.test").exists
    rig.lookup("a.test")
    assert len(rig.network.sent) == 2


QUERY = make_query(wire_name("a.test"), dns.rdatatype.MX, 4711)
WIRE = ZONE(dns.message.from_wire(QUERY.wire)).to_wire()


def judge(data: bytes) -> Reply | None:
    """Reading ends with a reply or with one of its own exceptions, whatever comes."""
    try:
        return read_reply(data, QUERY)
    except (NotOurs, Truncated, BadReply):
        return None


def test_the_true_reply_is_read() -> None:
    reply = judge(WIRE)
    assert reply is not None
    assert [record.to_text() for record in reply.records] == ["10 mx.a.test."]
    assert reply.size == len(WIRE)


@given(st.binary(max_size=600))
@example(b"\x12\x67\x80" + b"\0" * 9)
def test_any_octets_are_survived(data: bytes) -> None:
    judge(data)
    judge(WIRE[:12] + data)
    judge(WIRE[:2] + data)


@given(st.lists(st.tuples(st.integers(2, len(WIRE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(WIRE)))
def test_any_damage_is_survived(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(WIRE)
    for place, octet in changes:
        data[place] = octet
    judge(bytes(data))
    judge(bytes(data[:length]))


def test_ids_are_hard_to_guess() -> None:
    rig = Rig(ZONE)
    for number in range(300):
        rig.lookup(f"h{number}.test")
    ids = {query.id for _, _, query in rig.network.sent}
    assert len(ids) > 280
    assert max(ids) > 50_000
