"""Refusals while the message is on its way, connections lost at its end, and replies that take their time."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from transports.peer import TIMEOUTS, Client, Peer, message, now, waits
from twisted.internet.defer import Deferred

from mtatwist.envelope import Deferral, Delivered, Failure, Outcome
from mtatwist.transports.body import Body
from mtatwist.transports.client import MAX_TEXT
from mtatwist.transports.failures import ConnectFailed, Stale

Patch = pytest.MonkeyPatch
BODY = b"Subject: x\r\n\r\nhello\r\n"

both = pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lockstep", "pipelining"])
either = pytest.mark.parametrize("extensions", [("8BITMIME",), ("8BITMIME", "CHUNKING")], ids=["DATA", "BDAT"])


def kinds(outcomes: list[Any]) -> list[tuple[type, int]]:
    return [(type(outcome), outcome.reply.code) for outcome in outcomes]


class Sending:
    """A message of 600 kB that is half sent to a server that does not read on."""

    def __init__(self, patch: Patch, extensions: tuple[str, ...], in_memory: bool = False) -> None:
        self.peer = Peer(extensions=extensions)
        self.client = Client(patch, self.peer)
        self.delivery = self.client.connect()
        self.peer.say = lambda command: "silence" if command[:4] in ("DATA", "RCPT") else None
        what = message(b"x" * 600_000, "c@d.test", "e@d.test")
        self.client.spool.messages[1] = what
        if not in_memory:
            what = dataclasses.replace(what, body=None)
        self.pending: Deferred[list[Outcome]] = self.client.delivering(self.delivery, what)
        self.peer.feed(b"250 2.1.5 ok\r\n")
        self.client.run()
        self.peer.slow = True
        self.peer.feed(b"250 2.1.5 ok\r\n")
        if "CHUNKING" not in extensions:
            self.client.run()
            self.peer.feed(b"354 go on\r\n")
        assert waits(self.pending)
        assert self.peer.written.count(b"x") >= 262_144

    def goes_on(self) -> None:
        """The server reads again."""
        if not self.peer.gone:
            self.peer.protocol.resumeProducing()


@either
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("said", "expected"), [(b"552 5.3.4 too big", Failure), (b"452 4.3.1 full", Deferral)])
def test_a_refusal_before_the_end_is_the_verdict(
    monkeypatch: Patch, said: bytes, expected: type, in_memory: bool, extensions: tuple[str, ...]
) -> None:
    """It has no need of the rest; and what is not ended can't be taken."""
    sending = Sending(monkeypatch, extensions, in_memory)
    sending.peer.feed(said + b"\r\n")
    assert kinds(now(sending.pending)) == [(expected, int(said[:3]))] * 2
    assert sending.peer.aborted
    assert not sending.delivery.usable
    assert sending.client.metrics.uncertain.value == 0


@either
def test_a_refusal_before_the_end_and_then_nobody(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    sending = Sending(monkeypatch, extensions)
    sending.peer.protocol.dataReceived(b"552 5.3.4 too")
    assert waits(sending.pending)
    sending.peer.protocol.dataReceived(b" big\r\n")
    sending.peer.vanish()
    assert kinds(now(sending.pending)) == [(Failure, 552)] * 2


@either
def test_a_refusal_that_comes_in_pieces_while_the_message_ends(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    sending = Sending(monkeypatch, extensions)
    sending.peer.feed(b"552 5.3")
    for _ in range(3):
        sending.goes_on()
    assert waits(sending.pending)
    sending.peer.feed(b".4 too big\r\n")
    if "CHUNKING" in extensions:
        sending.peer.feed(b"250 2.0.0 reset\r\n")
    assert kinds(now(sending.pending)) == [(Failure, 552)] * 2


@either
@pytest.mark.parametrize("said", [b"250 2.0.0 got it\r\n", b"250-got\r\n", b"250 2.0", b"354 go on\r\n", b"2"])
def test_success_before_the_end_is_none(monkeypatch: Patch, said: bytes, extensions: tuple[str, ...]) -> None:
    sending = Sending(monkeypatch, extensions)
    sending.peer.feed(said)
    sending.goes_on()
    assert kinds(now(sending.pending)) == [(Deferral, 451)] * 2
    assert sending.peer.aborted


@either
def test_two_refusals_are_no_two_verdicts(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    sending = Sending(monkeypatch, extensions)
    sending.peer.protocol.dataReceived(b"552 5.3.4 too big\r\n250 2.0.0 got it\r\n")
    assert kinds(now(sending.pending)) == [(Failure, 552)] * 2
    assert not sending.delivery.usable


@either
def test_a_close_in_the_middle_ends_nothing(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """A QUIT would be part of the message."""
    sending = Sending(monkeypatch, extensions)
    sending.delivery.close()
    assert kinds(now(sending.pending)) == [(Deferral, 451)] * 2
    assert sending.peer.aborted
    assert b"QUIT" not in sending.peer.written


@either
def test_an_error_of_ours_in_the_middle_ends_the_connection(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """What came next would be taken for the rest of the message."""
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()

    async def part(body: Body) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(Body, "part", part)
    with pytest.raises(ZeroDivisionError):
        client.over(delivery, message(BODY))
    assert peer.aborted
    assert not delivery.usable


# The end.


@both
@pytest.mark.parametrize("chunking", [(), ("CHUNKING",)])
@pytest.mark.parametrize("said", ["vanish", "babble", "2500 what"])
def test_what_got_no_reply_is_tried_again_and_counted(
    monkeypatch: Patch, said: str, chunking: tuple[str, ...], extensions: tuple[str, ...]
) -> None:
    end = "BDAT" if chunking else "."
    peer = Peer(lambda command: said if command.startswith(end) else None, extensions=(*extensions, *chunking))
    client = Client(monkeypatch, peer)
    assert kinds(client.deliver(message(BODY, "c@d.test", "e@d.test"))) == [(Deferral, 451)] * 2
    assert client.metrics.uncertain.value == 1


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
def test_what_was_not_sent_is_not_uncertain(monkeypatch: Patch, stage: str) -> None:
    client = Client(monkeypatch, Peer(lambda command: "vanish" if command.startswith(stage) else None))
    client.deliver(message(BODY))
    assert client.metrics.uncertain.value == 0


def test_a_421_to_the_end_is_counted_too(monkeypatch: Patch) -> None:
    """Dovecot says it when it is stopped, of messages that it has saved."""
    client = Client(monkeypatch, Peer(lambda command: "421 4.3.2 bye" if command == "." else None))
    assert kinds(client.deliver(message(BODY))) == [(Deferral, 421)]
    assert client.metrics.uncertain.value == 1


# Servers that leave, or are out of step.


@both
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", ".", "BDAT"])
def test_after_a_421_nothing_is_said_but_quit(monkeypatch: Patch, stage: str, extensions: tuple[str, ...]) -> None:
    """Even if the server hangs on, silently."""
    left = False

    def say(command: str) -> str | None:
        nonlocal left
        if left:
            return "silence"
        left = command.startswith(stage)
        return "421 4.3.2 going down" if left else None

    peer = Peer(say, extensions=(*extensions, *(["CHUNKING"] if stage == "BDAT" else [])))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    heard = len(peer.heard)
    outcomes = client.over(delivery, message(BODY, "c@d.test", "e@d.test"))
    assert kinds(outcomes) == [(Deferral, 421)] * 2
    assert "RSET" not in peer.heard[heard:]
    assert not delivery.usable
    delivery.close()
    assert peer.written.endswith(b"QUIT\r\n")


@both
def test_a_kept_connection_that_gets_421_is_stale(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    peer.say = lambda command: "421 4.4.2 too late" if command[:4] == "MAIL" else "silence"
    with pytest.raises(Stale):
        client.over(delivery, message(BODY))


@both
@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
def test_354_for_an_envelope_is_no_success(monkeypatch: Patch, stage: str, extensions: tuple[str, ...]) -> None:
    peer = Peer(lambda command: "354 go on" if command.startswith(stage) else None, extensions=extensions)
    client = Client(monkeypatch, peer)
    assert kinds(client.deliver(message(BODY))) == [(Deferral, 451)]
    assert peer.messages == []
    assert peer.aborted


def test_no_empty_message_for_recipients_of_a_refused_sender(monkeypatch: Patch) -> None:
    """The server refuses MAIL, and takes RCPT and DATA all the same."""
    peer = Peer(lambda command: "550 5.7.1 no" if command[:4] == "MAIL" else None, extensions=("PIPELINING",))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert kinds(client.over(delivery, message(BODY, "c@d.test"))) == [(Failure, 550)]
    assert peer.messages == []
    assert peer.aborted
    assert not delivery.usable


# Time and room.


def test_each_pipelined_reply_has_its_own_time(monkeypatch: Patch) -> None:
    peer = Peer(lambda command: "silence", extensions=("PIPELINING",))
    peer.say = lambda command: None if command[:4] == "EHLO" else "silence"
    client = Client(monkeypatch, peer)
    pending = client.delivering(client.connect(), message(BODY, "c@d.test", "e@d.test"))
    for seconds in (TIMEOUTS.mail, TIMEOUTS.rcpt, TIMEOUTS.rcpt):
        client.clock.advance(seconds - 0.1)
        peer.feed(b"250 2.0.0 ok\r\n")
    client.clock.advance(TIMEOUTS.data_init - 0.1)
    assert waits(pending)
    client.clock.advance(0.2)
    assert kinds(now(pending)) == [(Deferral, 451)] * 2
    assert peer.aborted


@both
def test_recipients_that_all_take_their_time_have_a_bound(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    peer.say = lambda command: "silence" if command[:4] in ("RCPT", "DATA") else None
    pending = client.delivering(delivery, message(BODY, *(f"{number}@d.test" for number in range(100))))
    said = 0
    while not peer.gone:
        client.clock.advance(TIMEOUTS.rcpt - 1)
        peer.feed(b"250 2.1.5 ok\r\n")
        client.run()
        said += 1
    assert said < 10
    assert {type(outcome) for outcome in now(pending)} == {Deferral}
    assert not client.clock.getDelayedCalls()


@both
def test_a_reply_that_trickles_in_is_not_waited_for(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(lambda command: "silence" if command[:4] == "MAIL" else None, extensions=extensions)
    client = Client(monkeypatch, peer)
    pending = client.delivering(client.connect(), message(BODY))
    waited = 0
    while not peer.gone:
        peer.feed(b"250-still here\r\n")
        client.clock.advance(1)
        waited += 1
    assert waited <= TIMEOUTS.mail + 1
    assert kinds(now(pending)) == [(Deferral, 451)]


def test_a_reply_of_many_long_lines_is_cut(monkeypatch: Patch) -> None:
    peer = Peer(greeting="220-" + "x" * 2000)
    connecting = Client(monkeypatch, peer).connecting()
    sent = 2000
    while not peer.gone:
        peer.feed(b"220-" + b"x" * 2000 + b"\r\n")
        sent += 2000
    assert sent <= MAX_TEXT + 2000
    with pytest.raises(ConnectFailed):
        now(connecting)


def test_octets_above_127_in_a_reply(monkeypatch: Patch) -> None:
    peer = Peer(lambda command: "550 5.1.1 gr\xfcn \x1b[2J" if command[:4] == "RCPT" else None)
    (outcome,) = Client(monkeypatch, peer).deliver(message(BODY))
    assert isinstance(outcome, Failure)
    assert outcome.reply.text.isprintable()


def test_the_message_is_whole_after_all(monkeypatch: Patch) -> None:
    """The rig means something: the same message, read to its end, is delivered."""
    sending = Sending(monkeypatch, ("8BITMIME",))
    sending.peer.slow = False
    sending.peer.expect_data()
    for _ in range(3):
        sending.goes_on()
        sending.client.run()
    assert kinds(now(sending.pending)) == [(Delivered, 250)] * 2
