"""Delivery by LMTP: a reply for each recipient, after the message (RFC 2033)."""

from __future__ import annotations

from typing import Any

import pytest
from transports.peer import TIMEOUTS, Client, Peer, Say, message, now, waits

from mtatwist.envelope import Deferral, Delivered, Failure, Handed
from mtatwist.transports.failures import ConnectFailed

Patch = pytest.MonkeyPatch
BODY = b"Subject: x\r\n\r\nhello\r\n"
USERS = ("a@d.test", "b@d.test", "c@d.test")

every = pytest.mark.parametrize(
    "extensions",
    [(), ("PIPELINING",), ("CHUNKING",), ("PIPELINING", "CHUNKING")],
    ids=["lockstep", "pipelining", "chunking", "both"],
)


def lmtp(say: Say | None = None, **settings: Any) -> Peer:
    return Peer(say, lmtp=True, **settings)


def kinds(outcomes: list[Any]) -> list[tuple[type, str]]:
    return [(type(outcome), outcome.reply.enhanced) for outcome in outcomes]


@every
def test_each_recipient_has_its_own_fate(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    said = {
        "RCPT TO:<b@d.test>": "550 5.1.1 unknown",
        ".<a@d.test>": "552 5.2.2 over quota",
        ".<d@d.test>": "450 4.2.0 later",
    }
    peer = lmtp(said.get, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    outcomes = client.over(delivery, message(BODY, *USERS, "d@d.test"))
    assert kinds(outcomes) == [(Failure, "5.2.2"), (Failure, "5.1.1"), (Delivered, "2.0.0"), (Deferral, "4.2.0")]
    assert isinstance(outcomes[2], Delivered)
    assert outcomes[2].handed is Handed.MAILBOX
    assert peer.heard[0] == "LHLO mta.test"
    assert peer.messages == [BODY]
    assert kinds(client.over(delivery, message(BODY, "c@d.test"))) == [(Delivered, "2.0.0")]
    assert delivery.usable


@every
def test_fewer_replies_than_recipients(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """Whoever has no reply is tried again: what became of him, nobody knows."""
    peer = lmtp({".<b@d.test>": "vanish"}.get, extensions=extensions)
    client = Client(monkeypatch, peer)
    assert kinds(client.deliver(message(BODY, *USERS))) == [
        (Delivered, "2.0.0"),
        (Deferral, "4.4.2"),
        (Deferral, "4.4.2"),
    ]
    assert client.metrics.uncertain.value == 1


@every
def test_a_reply_that_does_not_come(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = lmtp({".<c@d.test>": "silence"}.get, extensions=extensions)
    client = Client(monkeypatch, peer)
    pending = client.delivering(client.connect(), message(BODY, *USERS))
    assert waits(pending)
    client.clock.advance(TIMEOUTS.data_done + 0.1)
    assert kinds(now(pending)) == [(Delivered, "2.0.0"), (Delivered, "2.0.0"), (Deferral, "4.4.2")]
    assert peer.aborted


def test_replies_that_all_take_their_time_have_a_bound(monkeypatch: Patch) -> None:
    users = [f"{number}@d.test" for number in range(50)]
    peer = lmtp(lambda command: "silence" if command.startswith(".") else None)
    client = Client(monkeypatch, peer)
    pending = client.delivering(client.connect(), message(BODY, *users))
    came = 0
    while not peer.gone:
        client.clock.advance(TIMEOUTS.data_done - 1)
        if not peer.gone:
            peer.feed(b"250 2.0.0 one more\r\n")
            came += 1
    assert came == 4
    assert [type(outcome) for outcome in now(pending)] == [Delivered] * 4 + [Deferral] * 46


@every
def test_more_replies_than_recipients(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = lmtp({".<b@d.test>": "250 2.0.0 fine\r\n250 2.0.0 and another"}.get, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert kinds(client.over(delivery, message(BODY, "a@d.test", "b@d.test"))) == [(Delivered, "2.0.0")] * 2
    assert not delivery.usable


@every
def test_421_in_the_middle_of_the_replies(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = lmtp({".<b@d.test>": "421 4.3.2 going down", ".<c@d.test>": "vanish"}.get, extensions=extensions)
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, *USERS))
    assert kinds(outcomes) == [(Delivered, "2.0.0"), (Deferral, "4.3.2"), (Deferral, "4.3.2")]


@every
def test_nobody_is_left(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """LMTP has no empty message: without recipients there is no reply to one (RFC 2033 §4.2)."""

    def say(command: str) -> str | None:
        if command[:4] == "RCPT":
            return "550 5.1.1 unknown"
        return "503 5.5.1 no recipients" if command == "DATA" else None

    peer = lmtp(say, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert kinds(client.over(delivery, message(BODY, *USERS))) == [(Failure, "5.1.1")] * 3
    assert peer.messages == []
    assert delivery.usable


def test_a_server_that_goes_on_without_recipients_is_left(monkeypatch: Patch) -> None:
    peer = lmtp(lambda command: "550 5.1.1 unknown" if command[:4] == "RCPT" else None, extensions=("PIPELINING",))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert kinds(client.over(delivery, message(BODY, *USERS))) == [(Failure, "5.1.1")] * 3
    assert peer.aborted
    assert not delivery.usable


def test_there_is_no_helo(monkeypatch: Patch) -> None:
    peer = lmtp(lambda command: "500 5.5.1 what" if command[:4] == "LHLO" else None)
    with pytest.raises(ConnectFailed) as caught:
        Client(monkeypatch, peer).connect()
    assert isinstance(caught.value.outcome, Deferral)
    assert peer.heard == ["LHLO mta.test", "QUIT"]


def test_a_refusal_before_the_end_is_that_of_the_first(monkeypatch: Patch) -> None:
    peer = lmtp(lambda command: "silence" if command == "DATA" else None)
    client = Client(monkeypatch, peer)
    pending = client.delivering(client.connect(), message(BODY, *USERS))
    peer.slow = True
    peer.feed(b"354 go on\r\n")
    peer.feed(b"552 5.3.4 too big\r\n")
    assert kinds(now(pending)) == [(Failure, "5.3.4"), (Deferral, "4.4.2"), (Deferral, "4.4.2")]
    assert peer.aborted
