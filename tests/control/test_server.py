"""The control socket's rules: who may, what is bounded, what is written down."""

from __future__ import annotations

import hashlib
import os
import pwd
from typing import Any

import pytest
from control.visitor import ROOT, Site, Visitor
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.protocols import amp

from mtatwist.control.callers import Callers, Peer, Token
from mtatwist.control.commands import (
    CONTRACT,
    AuthTest,
    BadArgument,
    Broken,
    NotAllowed,
    NotFound,
    OtherVersion,
    Ping,
    QueueRead,
    QueueShow,
    Unavailable,
)
from mtatwist.control.connection import (
    ANSWER_SECONDS,
    BOX_BYTES,
    BOX_SECONDS,
    DENIED_SECONDS,
    IDLE_SECONDS,
    UNANSWERED,
    WORDS,
)
from mtatwist.control.server import AT_ONCE, CLIENTS, OF_ONE_USER, READERS_AT_ONCE

NOBODY = pwd.getpwnam("nobody")
STRANGER = Peer(NOBODY.pw_uid, 99, frozenset({NOBODY.pw_gid}))
PONG = {"version": "1", "pid": 7}


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


TOKENS = Callers([Token("ops", hashed("s3cret"), admin=True), Token("eye", hashed("look"), admin=False)])


async def pong() -> dict[str, Any]:
    return PONG


async def read(id: str, offset: int) -> dict[str, Any]:
    if id == "gone":
        raise NotFound("there is no such message")
    if id == "crash":
        raise ZeroDivisionError("not for everybody")
    return {"data": b"x" * offset}


async def let_in(user: str, password: str) -> dict[str, Any]:
    return {"outcome": "let in", "account": {"user": user}}


ALL = {Ping: pong, QueueRead: read, AuthTest: let_in}


def audited(events: Any) -> list[dict[str, Any]]:
    """The events about commands, but those about a good Hello."""
    found = [event for event in events if event.get("log_format") == "control"]
    return [event for event in found if not (event["command"] == "Hello" and event["result"] == "ok")]


def test_whoever_may_is_answered() -> None:
    for peer in (ROOT, Peer(os.geteuid(), 8)):
        visitor = Site(ALL).visitor(peer)
        assert visitor.hello()["role"] == "admin"
        assert visitor.ask(Ping) == PONG
        assert visitor.ask(QueueRead, id="1", offset=5) == {"data": b"xxxxx"}


def test_strangers_are_refused() -> None:
    site = Site(ALL, Callers(group=4242))
    with capturedLogs() as events:
        assert site.visitor(STRANGER).hello()[0] is NotAllowed
        visitor = site.visitor(STRANGER)
        assert visitor.ask(Ping) == (NotAllowed, "the user nobody may not use this socket: see control.group")
        assert visitor.refused
    assert [(event["command"], event["user"], event["result"]) for event in audited(events)] == [
        ("Hello", "nobody", "not_allowed"),
        ("Ping", "nobody", "not_allowed"),
    ]
    member = site.visitor(Peer(STRANGER.uid, 99, frozenset({1, 4242})))
    assert member.hello()["role"] == "admin"
    assert Site(ALL).visitor(Peer(2**31 - 5, 1)).hello() == (
        NotAllowed,
        "the user 2147483643 may not use this socket: see control.group",
    )


def test_tokens() -> None:
    site = Site(ALL, TOKENS)
    ops, eye = site.visitor(), site.visitor()
    assert ops.hello("s3cret")["role"] == "admin"
    assert eye.hello("look")["role"] == "read"
    assert eye.ask(Ping) == ops.ask(Ping) == PONG
    assert ops.ask(QueueRead, id="1", offset=1) == {"data": b"x"}
    with capturedLogs() as events:
        refusal = eye.ask(QueueRead, id="1", offset=1)
    assert refusal == (NotAllowed, 'the token \'eye\' has the role "read": this command takes "admin"')
    (event,) = audited(events)
    assert (event["token"], event["result"], event["uid"]) == ("eye", "not_allowed", 0)
    assert site.metrics.control_denied.value == 1


@pytest.mark.parametrize("token", [None, "", "wrong", "s3cret ", "s3cret\u0301"])
def test_wrong_tokens_wait(token: str | None) -> None:
    site = Site(ALL, TOKENS)
    visitor = site.visitor()
    with capturedLogs() as events:
        assert visitor.hello(token) is None
        # Meanwhile it is nobody.
        impatient = site.visitor()
        assert impatient.hello(token) is None
        assert impatient.ask(Ping)[0] is NotAllowed
        assert impatient.refused
        assert not visitor.refused
        site.clock.advance(DENIED_SECONDS)
        # And takes no place any longer.
        assert visitor.refused
    words = "the token is none of those configured" if token else "the server wants a token"
    assert visitor.wire.value().count(words.encode()) == 1
    assert site.metrics.control_denied.value == 3
    assert {event["result"] for event in audited(events)} == {"not_allowed"}
    assert not token or token not in str(audited(events))


def test_hello_comes_first() -> None:
    visitor = Site(ALL).visitor()
    assert visitor.ask(Ping) == (NotAllowed, "a connection begins with Hello")


def test_other_versions() -> None:
    site = Site(ALL)
    kind, words = site.visitor().hello(contract=CONTRACT + 1)
    assert kind is OtherVersion
    assert f"mtactl speaks version {CONTRACT + 1} of the contract" in words
    visitor = site.visitor()
    visitor.hello()
    kind, words = visitor.ask(QueueShow, id="1", after=None)
    assert kind is OtherVersion
    assert "does not know the command QueueShow" in words
    # Twisted's own answer to it is not given either.
    visitor.write(amp.AmpBox({b"_command": b"StartTLS", b"_ask": b"9"}).serialize())
    assert b"does not know the command StartTLS" in visitor.wire.value()


def test_errors_and_crashes() -> None:
    site = Site(ALL)
    visitor = site.visitor()
    visitor.hello()
    with capturedLogs() as events:
        assert visitor.ask(QueueRead, id="gone", offset=1) == (NotFound, "there is no such message")
        assert visitor.ask(QueueRead, id="crash", offset=1) == (
            Broken,
            "ZeroDivisionError: the server's log has the reason",
        )
        visitor.write(
            amp.AmpBox({b"_command": b"QueueRead", b"_ask": b"9", b"id": b"\xff", b"offset": b"x"}).serialize()
        )
        visitor.write(amp.AmpBox({b"_command": b"QueueRead", b"_ask": b"10"}).serialize())
    assert visitor.ask(Ping) == PONG
    assert visitor.answer(QueueRead, b"9")[0] is visitor.answer(QueueRead, b"10")[0] is BadArgument
    assert [event["result"] for event in audited(events)] == ["not_found", "broken", "bad_argument", "bad_argument"]
    assert [event["log_format"] for event in events if event["log_level"].name == "critical"] == ["control_crashed"]
    assert (site.metrics.control_done.value, site.metrics.control_failed.value) == (2, 4)


def test_secrets_are_not_written_down() -> None:
    visitor = Site(ALL).visitor()
    with capturedLogs() as events:
        visitor.hello()
        assert visitor.ask(AuthTest, user="ann", password="pa55word") == {
            "outcome": "let in",
            "account": {"user": "ann"},
        }
        visitor.ask(QueueRead, id="y" * 4000, offset=60_000)
    tested, long = audited(events)
    assert tested["arguments"] == {"user": "ann", "password": "(hidden)"}
    assert "pa55word" not in str(events)
    assert len(str(long)) < 2500
    assert tested["pid"] == ROOT.pid


def test_an_answer_comes_in_time() -> None:
    held: list[Deferred[Any]] = []

    async def slow() -> dict[str, Any]:
        held.append(Deferred())
        await held[-1]
        return PONG

    site = Site({Ping: slow})
    visitors = [site.visitor() for _ in range(AT_ONCE + 2)]
    asked = []
    for visitor in visitors:
        visitor.hello()
        asked.append(visitor.send(Ping))
    # The others wait for their turn, and it comes.
    assert len(held) == AT_ONCE
    held[0].callback(None)
    assert len(held) == AT_ONCE + 1
    assert visitors[0].answer(Ping, asked[0]) == PONG
    site.clock.advance(ANSWER_SECONDS)
    for visitor, sent in zip(visitors[1:], asked[1:], strict=True):
        assert visitor.answer(Ping, sent)[0] is Unavailable
        assert not visitor.refused
    assert visitors[-1].hello()["role"] == "admin"


def test_who_hangs_up_leaves_nothing() -> None:
    done: Deferred[Any] = Deferred()

    async def slow() -> dict[str, Any]:
        await done
        return PONG

    site = Site({Ping: slow})
    visitor = site.visitor()
    visitor.hello()
    visitor.send(Ping)
    visitor.leave()
    with capturedLogs() as events:
        done.callback(None)
    # It is done, and written down all the same.
    assert [event["result"] for event in audited(events)] == ["ok"]
    assert not site.factory.connections
    assert not site.clock.getDelayedCalls()


def test_clients_are_bounded() -> None:
    site = Site(ALL, Callers(group=4242))
    member = Peer(STRANGER.uid, 99, frozenset({4242}))
    visitors = [site.visitor(member) for _ in range(OF_ONE_USER)]
    assert not any(visitor.refused for visitor in visitors)
    # Nobody keeps the others out.
    greedy = site.visitor(member)
    assert greedy.refused
    greedy.leave()
    others = [site.visitor() for _ in range(CLIENTS - OF_ONE_USER)]
    assert others[0].hello()["role"] == "admin"
    assert not any(visitor.refused for visitor in others)
    assert site.visitor().refused
    assert site.metrics.control_crowded.value == 2
    visitors[0].leave()
    assert site.visitor().hello()["role"] == "admin"


def test_who_takes_no_answers_is_not_listened_to() -> None:
    site = Site(ALL)
    visitor = site.visitor()
    visitor.hello()
    # As a real transport does once it holds more than 64 KiB.
    visitor.wire.producer.pauseProducing()
    assert visitor.wire.producerState == "paused"
    visitor.wire.producer.resumeProducing()
    assert visitor.wire.producerState == "producing"
    visitor.wire.producer.pauseProducing()
    site.clock.advance(IDLE_SECONDS)
    assert visitor.refused


def test_commands_come_one_after_the_other() -> None:
    site = Site(ALL)
    box = amp.AmpBox({b"_command": b"Ping", b"_ask": b"1"}).serialize()
    patient, flood, nobody = site.visitor(), site.visitor(), site.visitor()
    patient.hello()
    flood.hello()
    for _ in range(10):
        patient.write(box * UNANSWERED)
    with capturedLogs() as events:
        flood.write(box * 1000)
        nobody.write(box * 1000)
    # A thousand in one go would keep the mail waiting.
    assert (patient.refused, flood.refused, nobody.refused) == (False, True, True)
    assert len(audited(events)) == UNANSWERED + 1
    assert [event["reason"] for event in events if event["log_format"] == "control_client_refused"] == [
        "too many commands at once"
    ]


def test_who_may_only_look_is_not_in_the_way() -> None:
    never: list[Deferred[Any]] = []

    async def slow() -> dict[str, Any]:
        never.append(Deferred())
        await never[-1]
        return PONG

    site = Site({Ping: slow, QueueRead: read}, TOKENS)
    eyes = [site.visitor() for _ in range(AT_ONCE + 1)]
    for eye in eyes:
        eye.hello("look")
        eye.send(Ping)
    assert len(never) == READERS_AT_ONCE
    ops = site.visitor()
    ops.hello("s3cret")
    assert ops.ask(QueueRead, id="1", offset=1) == {"data": b"x"}


def test_a_token_that_is_gone_lets_nobody_go_on() -> None:
    site = Site(ALL, TOKENS)
    ops, eye = site.visitor(), site.visitor()
    ops.hello("s3cret")
    eye.hello("look")
    # Its role is another now; the other token is as it was.
    site.factory.callers = Callers(
        [Token("ops", hashed("s3cret"), admin=False), Token("eye", hashed("look"), admin=False)]
    )
    assert ops.ask(Ping) == (NotAllowed, "the token 'ops' is none of those configured any more")
    assert ops.refused
    assert eye.ask(Ping) == PONG
    open_to_all = Site(ALL)
    visitor = open_to_all.visitor()
    visitor.hello()
    open_to_all.factory.callers = TOKENS
    assert visitor.ask(Ping)[0] is NotAllowed


def test_an_answer_has_a_bound() -> None:
    async def wordy() -> dict[str, Any]:
        raise NotFound("w" * 70_000)

    site = Site({**ALL, Ping: wordy})
    visitor = site.visitor()
    visitor.hello()
    with capturedLogs() as events:
        assert visitor.ask(QueueRead, id="1", offset=70_000)[0] is Unavailable
        assert visitor.ask(Ping) == (NotFound, "w" * WORDS)
    assert [event["result"] for event in audited(events)] == ["unavailable", "not_found"]
    assert not visitor.refused


def test_commands_of_a_client_are_bounded() -> None:
    async def never() -> dict[str, Any]:
        await Deferred()
        return PONG

    site = Site({Ping: never})
    visitor = site.visitor()
    visitor.hello()
    for _ in range(UNANSWERED):
        visitor.send(Ping)
    assert not visitor.refused
    visitor.send(Ping)
    assert visitor.refused


def half_a_box(visitor: Visitor) -> None:
    visitor.write(b"\x00\x08_command\x00\x04Pi")


def test_half_a_box_is_not_waited_for() -> None:
    site = Site(ALL)
    silent, slow, idle = (site.visitor() for _ in range(3))
    idle.hello()
    half_a_box(slow)
    site.clock.advance(BOX_SECONDS - 1)
    assert not silent.refused
    slow.write(b"n")
    site.clock.advance(1)
    assert silent.refused
    assert slow.refused
    assert not idle.refused
    site.clock.advance(IDLE_SECONDS)
    assert idle.refused
    assert site.metrics.control_refused.value == 3


def test_a_box_has_a_bound() -> None:
    site = Site(ALL)
    visitor = site.visitor()
    key = b"\x00\x01"
    for number in range(3):
        if not visitor.refused:
            visitor.write(key + bytes([97 + number]) + b"\xff\xff" + b"x" * 65535)
    assert visitor.refused
    assert BOX_BYTES < 3 * 65535
    # As many as one likes, one after the other.
    patient = site.visitor()
    patient.hello()
    for _ in range(50):
        patient.ask(QueueRead, id="z" * 50_000, offset=1)
    assert not patient.refused


@given(st.binary(max_size=300), st.integers(1, 50))
def test_whatever_comes_is_survived(data: bytes, size: int) -> None:
    site = Site(ALL)
    visitor = site.visitor()
    for start in range(0, len(data), size):
        if not visitor.refused:
            visitor.write(data[start : start + size])
    other = site.visitor()
    assert other.hello()["role"] == "admin"
    assert other.ask(Ping) == PONG


@pytest.mark.parametrize(
    "box",
    [
        {b"_answer": b"1"},
        {b"_error": b"1", b"_error_code": b"X", b"_error_description": b"y"},
        {b"_command": b"Ping"},
        {b"x": b"y"},
    ],
    ids=["answer", "error", "unasked", "nothing"],
)
def test_only_commands_are_taken(box: dict[bytes, bytes]) -> None:
    visitor = Site(ALL).visitor()
    visitor.hello()
    with capturedLogs() as events:
        visitor.write(amp.AmpBox(box).serialize())
    assert visitor.refused
    assert [event["log_format"] for event in events] == ["control_client_refused"]
