"""The search for due work: round the domains, by the piece, and no faster than it is good for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay import backlog as module
from mtatwist.relay.backlog import FIRST_CLAIMS, LATE_SECONDS, RAMP_SECONDS, SCAN_SECONDS, Backlog
from mtatwist.spool.memory import MemorySpool

Patch = pytest.MonkeyPatch


class Rig:
    """A backlog over a spool in memory; ``share`` is how many are wanted of a domain, ``room`` in all."""

    def __init__(self, ages: Sequence[tuple[float, bool]] = (), share: int = 1000, room: int = 100_000) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.spool: Any = MemorySpool()
        self.metrics = Instruments()
        self.share = share
        self.room = room
        self.blocked: set[str] = set()
        self.taken: list[tuple[int, bool]] = []
        self.visits: list[str] = []
        self.backlog = Backlog(
            self.spool,
            take=lambda message, late: self.taken.append((message.number, late)),
            shares=self.shares,
            room=lambda: self.room - len(self.taken),
            ages=ages,
            clock=self.clock,
            wall=self.clock.seconds,
            metrics=self.metrics,
        )

    def shares(self, domains: Sequence[str], limit: int, free: int) -> list[tuple[str, int]]:
        self.visits += domains
        wanted = [domain for domain in domains if domain not in self.blocked]
        return [(domain, min(self.share, max(1, limit // len(wanted)))) for domain in wanted]

    def store(self, domain: str, count: int = 1, due: float = 0.0) -> None:
        """Messages of an earlier run for this domain, due in so many seconds."""
        for _ in range(count):
            recipient = Recipient(0, f"x@{domain}", domain)
            writer = self.spool.create(Envelope("me@here.test", [recipient], received_at=self.clock.seconds()))
            stored: list[Message] = []
            writer.commit().addCallback(stored.append)
            self.spool.release([(stored[0].number, 0, self.clock.seconds() + due)])

    def numbers(self) -> list[int]:
        return [number for number, _ in self.taken]

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))


def test_all_domains_are_visited_page_by_page(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "DOMAINS_LIMIT", 3)
    rig = Rig()
    for number in range(10):
        rig.store(f"d{number}.test")
    rig.backlog.start()
    assert sorted(rig.numbers()) == list(range(1, 11))


def test_the_turn_goes_on_where_there_was_no_more_room(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "CLAIM_LIMIT", 1)
    rig = Rig(share=1, room=2)
    for domain in ("a.test", "b.test", "c.test", "d.test"):
        rig.store(domain, 3)
    rig.backlog.start()
    seen = []
    for _ in range(6):
        seen.append("".join(rig.spool.messages[number].envelope.recipients[0].domain[0] for number in rig.numbers()))
        rig.taken.clear()
        rig.backlog.room_again()
        rig.pass_time(1.5)
    assert "".join(seen).startswith("abcdabcd")


def test_a_look_that_ended_for_want_of_room_goes_on_when_there_is_some() -> None:
    rig = Rig(room=0)
    rig.store("a.test")
    rig.backlog.start()
    rig.pass_time(5)
    assert rig.taken == []
    rig.room = 1000
    rig.backlog.room_again()
    rig.pass_time(0.2)
    assert rig.numbers() == [1]


def test_what_becomes_due_is_found_then() -> None:
    rig = Rig()
    rig.store("a.test", due=30)
    rig.store("b.test", due=12)
    rig.backlog.start()
    rig.pass_time(11.9)
    assert rig.taken == []
    rig.pass_time(0.3)
    assert rig.numbers() == [2]
    rig.pass_time(18)
    assert rig.numbers() == [2, 1]


def test_due_work_that_nobody_wants_now_keeps_nobody_busy() -> None:
    rig = Rig()
    rig.blocked = {"dead.test"}
    rig.store("dead.test", 100)
    rig.backlog.start()
    rig.visits.clear()
    rig.pass_time(3 * SCAN_SECONDS)
    assert len(rig.visits) <= 4
    rig.blocked.clear()
    rig.backlog.look()
    rig.pass_time(0.2)
    assert len(rig.taken) == 100


def test_a_look_that_is_asked_for_during_a_look_takes_place() -> None:
    rig = Rig()
    rig.blocked = {"a.test"}
    rig.store("a.test")
    held: list[Deferred[None]] = []
    found = rig.spool.next_due
    rig.spool.next_due = lambda after: held.append(Deferred()) or held[-1].addCallback(lambda _: found(after))
    rig.backlog.start()
    rig.blocked.clear()
    rig.backlog.look()
    held.pop().callback(None)
    rig.pass_time(0.2)
    assert rig.numbers() == [1]


def test_many_domains_of_which_none_can_be_sent_are_visited_with_rests(monkeypatch: Patch) -> None:
    """Of the time that passes, the search takes a quarter at most."""
    monkeypatch.setattr(module, "DOMAINS_LIMIT", 2)
    rig = Rig()
    rig.blocked = {f"d{number}.test" for number in range(8)}
    for domain in rig.blocked:
        rig.store(domain)
    found = rig.spool.due_domains

    def slowly(*arguments: Any) -> Any:
        later: Deferred[None] = Deferred()
        rig.clock.callLater(1.0, later.callback, None)
        return later.addCallback(lambda _: found(*arguments))

    rig.spool.due_domains = slowly
    rig.backlog.start()
    rig.pass_time(5.5)
    assert len(rig.visits) == 4
    rig.pass_time(9)
    assert len(rig.visits) == 8


def test_the_pace_doubles_after_the_start_and_then_there_is_none() -> None:
    rig = Rig(share=1_000_000)
    rig.store("a.test", 20 * FIRST_CLAIMS)
    rig.backlog.start()
    counts = [len(rig.taken)]
    for _ in range(5):
        rig.pass_time(1)
        counts.append(len(rig.taken))
    assert counts[0] == FIRST_CLAIMS
    assert all(count <= FIRST_CLAIMS * 2**second for second, count in enumerate(counts))
    assert counts[-1] == 20 * FIRST_CLAIMS
    rig.pass_time(RAMP_SECONDS)
    rig.store("a.test", 1000)
    rig.backlog.look()
    rig.pass_time(0.2)
    assert len(rig.taken) == 20 * FIRST_CLAIMS + 1000


def test_the_old_are_claimed_whatever_becomes_of_their_destination() -> None:
    rig = Rig(ages=[(1000.0, False), (300.0, True)])
    rig.blocked = {"dead.test"}
    rig.store("dead.test", 3)
    rig.backlog.start()
    rig.pass_time(299)
    assert rig.taken == []
    rig.pass_time(LATE_SECONDS + 2)
    assert rig.taken == [(1, True), (2, True), (3, True)]
    # Their senders have been told, and they wait on.
    for number in (1, 2, 3):
        rig.spool.messages[number].envelope.recipients[0].warned = True
        rig.spool.release([(number, 0, rig.clock.seconds() + 1e6)])
    rig.taken.clear()
    rig.pass_time(1000 - 299 - LATE_SECONDS - 2)
    assert rig.taken == []
    rig.pass_time(LATE_SECONDS + 2)
    assert rig.taken == [(1, True), (2, True), (3, True)]


def test_the_old_are_claimed_by_the_piece_and_those_that_come_back_again(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "LATE_LIMIT", 2)
    rig = Rig(ages=[(0.0, False)])
    rig.blocked = {"dead.test"}
    rig.store("dead.test", 5)
    rig.backlog.start()
    assert rig.numbers() == [1, 2]
    rig.spool.release([(number, 0, 0.0) for number in (1, 2)])
    rig.pass_time(1.5)
    assert rig.numbers() == [1, 2, 3, 4]
    rig.pass_time(3 * LATE_SECONDS)
    assert rig.numbers() == [1, 2, 3, 4, 5, 1, 2]


@pytest.mark.parametrize("call", ["due_domains", "claim_due", "next_due", "claim_late"])
def test_an_exception_ends_one_look_and_is_counted(call: str) -> None:
    rig = Rig(ages=[(1e6, False)])
    works = getattr(rig.spool, call)

    def broken(*arguments: Any) -> Any:
        raise OSError("the disk is broken")

    setattr(rig.spool, call, broken)
    rig.store("a.test")
    rig.backlog.start()
    assert rig.metrics.relay_errors.value == 1
    setattr(rig.spool, call, works)
    rig.pass_time(2)
    assert rig.numbers() == [1]
    assert rig.metrics.relay_errors.value == 1


def test_nothing_is_begun_after_the_stop() -> None:
    rig = Rig()
    rig.backlog.start()
    rig.backlog.stop()
    rig.store("a.test")
    rig.backlog.look()
    rig.backlog.look_by(0.0)
    rig.pass_time(100)
    assert rig.taken == []
    assert not rig.clock.getDelayedCalls()


def test_a_stop_during_a_look_ends_it() -> None:
    rig = Rig()
    answer: Deferred[None] = Deferred()
    rig.spool.due_domains = lambda *arguments: answer.addCallback(lambda _: succeed(([], "more")))
    rig.backlog.start()
    rig.backlog.stop()
    answer.callback(None)
    assert not rig.clock.getDelayedCalls()
