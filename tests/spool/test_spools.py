"""What every spool promises, asked of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.messages import AT, REPLIES, body, claim_due, envelope, settled
from rigs.pump import Pump
from twisted.internet.defer import Deferred

from mtatwist.envelope import Envelope, Message, State
from mtatwist.interfaces import ISpool
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.memory import MemorySpool
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.spool.writer import IN_ROW, WRITE_SIZE

SMALL, LARGE = 2_000, IN_ROW + 3 * WRITE_SIZE + 17


class Rig:
    """A spool, asked without a reactor."""

    def __init__(self, spool: Any, wait: Callable[[Deferred[Any]], Any]) -> None:
        self.spool: ISpool = spool
        self.wait = wait

    def write(self, writer: Any, data: bytes, size: int = 50_000) -> Any:
        """Give ``data`` to a writer in chunks, waiting when it asks for it."""
        for start in range(0, len(data), size):
            pause = writer.write(data[start : start + size])
            if pause is not None:
                self.wait(pause)
        return writer

    def store(self, to: Envelope | None = None, data: bytes = b"Subject: hello\r\n\r\n") -> Message:
        message: Message = self.wait(self.write(self.spool.create(to or envelope()), data).commit())
        return message

    def due(self, now: float = AT, limit: int = 100) -> dict[int, list[int]]:
        """Claim what is due: message number to recipients' indexes."""
        return {message.number: indexes(message) for message in claim_due(self.spool, self.wait, now, limit)}

    def release(self, message: Message, due: float = AT) -> None:
        self.wait(self.spool.release([(message.number, r.index, due) for r in message.envelope.recipients]))

    def settle(self, *results: Any, reports: Any = ()) -> list[Message]:
        stored: list[Message] = self.wait(self.spool.settle(results, reports))
        return stored

    def read(self, message: Message) -> bytes:
        """All of a message, in pieces."""
        parts: list[bytes] = []
        while part := self.wait(self.spool.read(message, sum(map(len, parts)), 65_521)):
            parts.append(part)
        return b"".join(parts)


def indexes(message: Message) -> list[int]:
    return sorted(recipient.index for recipient in message.envelope.recipients)


@pytest.fixture(params=["sqlite", "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    pump = Pump()
    if request.param == "memory":
        yield Rig(MemorySpool(), pump.wait)
        return
    spool = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    yield Rig(spool, pump.wait)
    spool.stop()


def test_has_room(rig: Rig) -> None:
    assert rig.spool.has_room(25 << 20)


@pytest.mark.parametrize("size", [0, 1, SMALL, IN_ROW, IN_ROW + 1, LARGE])
def test_a_message_comes_back_byte_for_byte(rig: Rig, size: int) -> None:
    data = body(size)
    message = rig.store(data=data)
    assert message.size == size
    rig.release(message)
    (claimed,) = claim_due(rig.spool, rig.wait, AT)
    assert (claimed.number, claimed.size) == (message.number, size)
    assert rig.read(claimed) == rig.read(message) == data


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(("offset", "count"), [(0, 10), (7, 1000), (-5, 100), (0, 0)])
def test_any_part_can_be_read(rig: Rig, size: int, offset: int, count: int) -> None:
    data = body(size)
    message = rig.store(data=data)
    rig.release(message)
    (claimed,) = claim_due(rig.spool, rig.wait, AT)
    offset %= size
    assert rig.wait(rig.spool.read(claimed, offset, count)) == data[offset : offset + count]
    assert rig.wait(rig.spool.read(claimed, size, 10)) == b""


def test_everything_the_envelope_says_is_kept(rig: Rig) -> None:
    to = envelope("a@example.org", "Ü@example.net")
    to.body_type, to.smtputf8, to.envid, to.ret = "8BITMIME", True, "QQ314159", "HDRS"
    to.session, to.peer, to.helo, to.protocol, to.tls, to.user = "s1", "192.0.2.1", "c.example", "ESMTPS", "TLS", "u"
    to.recipients[1].orcpt, to.recipients[1].notify = "rfc822;x@example.net", "FAILURE,DELAY"
    message = rig.store(to)
    rig.release(message)
    (claimed,) = claim_due(rig.spool, rig.wait, AT)
    claimed.envelope.recipients.sort(key=lambda r: r.index)
    for recipient in to.recipients:
        recipient.next_attempt = AT
    assert claimed.envelope == to


def test_numbers_are_never_given_twice(rig: Rig) -> None:
    numbers = [rig.spool.create(envelope()).number for _ in range(5)]
    assert len(set(numbers)) == 5
    assert sorted(numbers) == numbers


def test_a_new_message_is_claimed_by_who_stored_it(rig: Rig) -> None:
    rig.store()
    assert rig.due() == {}
    assert rig.wait(rig.spool.next_due(0.0)) is None


def test_released_work_is_due_again_and_not_counted(rig: Rig) -> None:
    message = rig.store()
    rig.release(message, AT + 5)
    assert rig.wait(rig.spool.next_due(0.0)) == AT + 5
    assert rig.due(AT + 4) == {}
    (claimed,) = claim_due(rig.spool, rig.wait, AT + 5)
    assert claimed.envelope.recipients[0].attempts == 0
    assert claimed.envelope.recipients[0].state is State.PENDING


def test_what_is_claimed_is_not_given_again(rig: Rig) -> None:
    rig.release(rig.store())
    assert len(rig.due()) == 1
    assert rig.due() == {}


def test_the_earliest_go_first_and_no_more_than_asked_for(rig: Rig) -> None:
    messages = [rig.store() for _ in range(5)]
    for message, due in zip(messages, (50.0, 10.0, 40.0, 20.0, 30.0), strict=True):
        rig.release(message, AT + due)
    assert rig.wait(rig.spool.next_due(0.0)) == AT + 10
    assert rig.due(AT + 100, 2) == {messages[1].number: [0], messages[3].number: [0]}
    assert rig.wait(rig.spool.next_due(0.0)) == AT + 30
    assert rig.due(AT + 100, 2) == {messages[4].number: [0], messages[2].number: [0]}


def test_those_of_one_message_at_one_domain_are_claimed_together(rig: Rig) -> None:
    """Else each share of a large domain would be a transaction of its own, and take the message along."""
    message = rig.store(envelope(*(f"{n}@example.org" for n in range(7)), "x@example.net"))
    rig.release(message)
    (claimed,) = rig.wait(rig.spool.claim_due(AT, [("example.org", 3)]))
    assert indexes(claimed) == list(range(7))
    (claimed,) = rig.wait(rig.spool.claim_due(AT, [("example.org", 3), ("example.net", 3)]))
    assert indexes(claimed) == [7]


def test_each_domain_has_its_share(rig: Rig) -> None:
    for _ in range(5):
        rig.release(rig.store(envelope("a@big.test")))
    rig.release(rig.store(envelope("a@small.test")))
    claimed = rig.wait(rig.spool.claim_due(AT, [("big.test", 2), ("small.test", 2), ("gone.test", 2)]))
    assert [message.envelope.recipients[0].domain for message in claimed] == ["big.test", "big.test", "small.test"]


def test_domains_are_visited_in_order_and_by_the_piece(rig: Rig) -> None:
    for domain in ("d.test", "a.test", "c.test", "b.test", "e.test"):
        rig.release(rig.store(envelope(f"x@{domain}")), AT + (100 if domain == "b.test" else 0))
    rig.store(envelope("x@claimed.test"))
    pages = []
    following: str | None = ""
    while following is not None:
        domains, following = rig.wait(rig.spool.due_domains(AT, following, 2))
        pages.append(domains)
    assert pages == [["a.test"], ["c.test", "d.test"], ["e.test"]]


def test_a_domain_without_a_name_is_found_too(rig: Rig) -> None:
    """However it came there: what is in the spool is tried."""
    rig.release(rig.store(envelope("odd@")))
    assert rig.wait(rig.spool.due_domains(AT, "", 1))[0] == [""]
    assert len(rig.due()) == 1


def test_the_next_time_is_later_than_what_is_due(rig: Rig) -> None:
    for due in (10.0, 20.0):
        rig.release(rig.store(), AT + due)
    assert rig.wait(rig.spool.next_due(AT + 10)) == AT + 20
    assert rig.wait(rig.spool.next_due(AT + 20)) is None


def test_old_messages_are_claimed_whether_they_are_due_or_not(rig: Rig) -> None:
    messages = [rig.store(envelope("a@example.org", "b@example.org", received_at=AT + n)) for n in range(5)]
    for message in messages[:4]:
        rig.release(message, AT + 1e6)
    first, second = rig.wait(rig.spool.claim_late(AT + 2, 0, False, 4))
    assert [(m.number, indexes(m)) for m in (first, second)] == [(m.number, [0, 1]) for m in messages[:2]]
    (third,) = rig.wait(rig.spool.claim_late(AT + 2, second.number, False, 4))
    assert third.number == messages[2].number, "and not the one that is too young, or the one that is claimed"
    assert rig.wait(rig.spool.claim_late(AT + 2, 0, False, 4)) == []


def test_who_was_warned_is_not_claimed_for_that_again(rig: Rig) -> None:
    message = rig.store(envelope("a@example.org", "b@example.org"))
    rig.settle(settled(message, 0, State.DEFERRED, AT + 1e6, warned=True), settled(message, 1, State.DEFERRED, AT))
    (claimed,) = rig.wait(rig.spool.claim_late(AT, 0, True, 10))
    assert indexes(claimed) == [1]
    (claimed,) = rig.wait(rig.spool.claim_late(AT, 0, False, 10))
    assert indexes(claimed) == [0]


def test_each_recipient_has_a_state_of_its_own(rig: Rig) -> None:
    message = rig.store(envelope("a@example.org", "b@example.org", "c@example.org"))
    rig.settle(
        settled(message, 0, State.DELIVERED),
        settled(message, 1, State.DEFERRED, AT + 60),
        settled(message, 2, State.DEFERRED, AT + 300),
    )
    assert rig.wait(rig.spool.next_due(0.0)) == AT + 60
    (claimed,) = claim_due(rig.spool, rig.wait, AT + 60)
    (recipient,) = claimed.envelope.recipients
    assert (recipient.index, recipient.address) == (1, "b@example.org")
    assert (recipient.state, recipient.attempts) == (State.DEFERRED, 1)
    assert recipient.last_reply == REPLIES[State.DEFERRED]
    assert (recipient.last_host, recipient.last_at) == ("mx.example.org", AT + 1)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("end", [State.DELIVERED, State.FAILED])
def test_a_message_leaves_when_nobody_needs_it(rig: Rig, end: State, size: int) -> None:
    message = rig.store(envelope("a@example.org", "b@example.org"), body(size))
    message.body = None
    rig.settle(settled(message, 0, end))
    assert rig.read(message) == body(size)
    rig.settle(settled(message, 1, end))
    assert rig.due(AT + 1e9) == {}
    with pytest.raises(LookupError):
        rig.wait(rig.spool.read(message, 0, 10))


def test_a_result_counts_only_for_a_claim_that_is_ours(rig: Rig) -> None:
    message = rig.store()
    rig.release(message)
    rig.settle(settled(message, 0, State.DELIVERED))
    assert rig.due() == {message.number: [0]}
    rig.settle(settled(message, 0, State.DEFERRED, AT + 60))
    rig.settle(settled(message, 0, State.FAILED))
    (claimed,) = claim_due(rig.spool, rig.wait, AT + 60)
    assert claimed.envelope.recipients[0].attempts == 1


def test_only_a_claim_that_is_ours_can_be_released(rig: Rig) -> None:
    message = rig.store()
    rig.settle(settled(message, 0, State.DEFERRED, AT + 60))
    rig.release(message, AT)
    assert rig.wait(rig.spool.next_due(0.0)) == AT + 60
    (claimed,) = claim_due(rig.spool, rig.wait, AT + 60)
    rig.settle(settled(claimed, 0, State.DELIVERED))
    rig.release(claimed)
    assert rig.wait(rig.spool.next_due(0.0)) is None


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_report_is_stored_with_the_failure_it_tells_of(rig: Rig, size: int) -> None:
    message = rig.store()
    to_sender = envelope("me@example.com", reverse_path="")
    report = rig.write(rig.spool.create(to_sender), body(size))
    (stored,) = rig.settle(settled(message, 0, State.FAILED), reports=[report])
    assert stored.number == report.number
    assert stored.envelope.recipients[0].address == "me@example.com"
    assert rig.read(stored) == body(size)
    assert rig.due() == {}, "the report is claimed by who stored it"
    rig.release(stored)
    assert rig.due() == {stored.number: [0]}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_report_that_was_prepared_can_be_stored_again_and_is_there_once(rig: Rig, size: int) -> None:
    """As when the disk said no, and yet had done it."""
    message = rig.store()
    report = rig.write(rig.spool.create(envelope("me@example.com", reverse_path="")), body(size))
    rig.wait(Deferred.fromCoroutine(report.prepare()))
    result = settled(message, 0, State.FAILED)
    numbers = [stored.number for _ in range(2) for stored in rig.settle(result, reports=[report])]
    assert numbers == [report.number] * 2
    rig.release(rig.settle(result, reports=[report])[0])
    assert rig.due() == {report.number: [0]}
    assert rig.due() == {}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_aborted_message_can_not_be_prepared(rig: Rig, size: int) -> None:
    writer = rig.write(rig.spool.create(envelope()), body(size))
    writer.abort()
    with pytest.raises(RuntimeError):
        rig.wait(Deferred.fromCoroutine(writer.prepare()))


def test_who_was_warned_stays_warned(rig: Rig) -> None:
    message = rig.store(envelope("a@example.org", "b@example.org"))
    seen = []
    for warned in (False, True, False):
        results = [
            settled(message, 0, State.DEFERRED, AT, warned=warned),
            settled(message, 1, State.DEFERRED, AT),
        ]
        rig.settle(*results)
        (message,) = claim_due(rig.spool, rig.wait, AT)
        seen.append([r.warned for r in sorted(message.envelope.recipients, key=lambda r: r.index)])
    assert seen == [[False, False], [True, False], [True, False]]


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_an_aborted_message_was_never_there(rig: Rig, size: int) -> None:
    writer = rig.write(rig.spool.create(envelope()), body(size))
    writer.abort()
    assert rig.due(AT + 1e9) == {}
    with pytest.raises(LookupError):
        rig.wait(rig.spool.read(Message(writer.number, envelope(), size), 0, 10))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_aborted_message_can_not_be_committed(rig: Rig, size: int) -> None:
    """A session that ends while a policy is asked about its message."""
    writer = rig.write(rig.spool.create(envelope()), body(size))
    writer.abort()
    writer.write(body(10))
    with pytest.raises(RuntimeError):
        rig.wait(writer.commit())
    assert rig.due(AT + 1e9) == {}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_abort_during_the_commit_comes_too_late(rig: Rig, size: int) -> None:
    """A session that ends before its 250: the message is there, and whole."""
    writer = rig.write(rig.spool.create(envelope()), body(size))
    done = writer.commit()
    writer.abort()
    message = rig.wait(done)
    message.body = None
    assert rig.read(message) == body(size)


def test_many_at_once(rig: Rig) -> None:
    """More than one statement and one group hold."""
    writers = [
        rig.write(rig.spool.create(envelope("a@example.org", "b@example.org")), body(100, n)) for n in range(300)
    ]
    commits = [writer.commit() for writer in writers]
    messages = [rig.wait(commit) for commit in commits]
    assert [rig.read(message) for message in messages] == [body(100, n) for n in range(300)]
    rig.settle(*(settled(message, 0, State.DELIVERED) for message in messages))
    for message in messages:
        rig.release(message)
    assert rig.due(AT, 1000) == {message.number: [1] for message in messages}
    rig.settle(*(settled(message, 1, State.FAILED) for message in messages))
    assert rig.wait(rig.spool.next_due(0.0)) is None
