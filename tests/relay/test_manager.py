"""The relay manager with a spool in memory and a clock: what becomes of each message, and when."""

from __future__ import annotations

from typing import Any

import pytest
from relay.fakes import DOWN, GONE, LATER, TAKEN, Rig
from twisted.internet.defer import Deferred, fail

from mtatwist.envelope import Message, Outcome, Recipient, State
from mtatwist.relay import manager as module
from mtatwist.relay.manager import PARK_SECONDS, RECIPIENTS_LIMIT
from mtatwist.relay.record import REWRITE_SECONDS
from mtatwist.relay.route import BY_MX, Route
from mtatwist.spool.memory import MemorySpool

Patch = pytest.MonkeyPatch


def by_address(**outcomes: Outcome) -> Any:
    """A judge: the local part decides."""
    return lambda message, recipient: outcomes.get(recipient.address.partition("@")[0], TAKEN)


def test_a_new_message_is_tried_at_once() -> None:
    rig = Rig()
    rig.accept("you@there.test")
    assert rig.attempts() == [(1, ["you@there.test"])]
    assert rig.spool.messages == {}
    assert rig.metrics.delivered.value == 1
    assert rig.metrics.in_flight.value == 0


def test_what_an_earlier_run_left_is_tried_at_the_start() -> None:
    spool = MemorySpool()
    first = Rig(spool=spool)
    first.store("you@there.test")
    spool.claims.clear()
    second = Rig(spool=spool)
    assert second.attempts() == [(1, ["you@there.test"])]
    assert spool.messages == {}


def test_a_deferral_is_tried_again_on_the_schedule() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("you@there.test")
    recipient = rig.spool.messages[1].envelope.recipients[0]
    assert (recipient.state, recipient.attempts, recipient.last_reply) == (State.DEFERRED, 1, LATER.reply)
    rig.pass_time(59)
    assert len(rig.attempts()) == 1
    rig.pass_time(2)
    assert len(rig.attempts()) == 2
    rig.pass_time(298)
    assert len(rig.attempts()) == 2
    rig.transport().judge = lambda message, recipient: TAKEN
    rig.pass_time(4)
    assert len(rig.attempts()) == 3
    assert rig.spool.messages == {}
    assert (rig.metrics.deferred.value, rig.metrics.delivered.value) == (2, 1)


def test_a_refusal_becomes_a_report_and_the_message_is_gone() -> None:
    rig = Rig()
    rig.transport().judge = by_address(gone=GONE)
    rig.accept("gone@there.test")
    assert rig.attempts() == [(1, ["gone@there.test"]), (2, ["me@here.test"])]
    assert rig.spool.messages == {}
    assert (rig.metrics.failed.value, rig.metrics.reports.value) == (1, 1)


def test_the_report_says_what_happened_and_has_the_null_reverse_path() -> None:
    rig = Rig()
    seen: list[Message] = []

    def judge(message: Message, recipient: Recipient) -> Outcome:
        seen.append(message)
        return GONE if recipient.address == "gone@there.test" else TAKEN

    rig.transport().judge = judge
    rig.accept("gone@there.test", body=b"Subject: bl\xc3\xa5b\xc3\xa6r\r\n\r\nbody\r\n")
    report = seen[1]
    assert report.envelope.reverse_path == ""
    assert report.envelope.body_type == "8BITMIME"
    assert report.body is not None
    assert b"550 5.1.1 no such user" in report.body
    assert b"Subject: bl\xc3\xa5b\xc3\xa6r" in report.body


def test_an_expired_message_goes_back_after_a_last_attempt() -> None:
    rig = Rig()
    rig.transport().judge = by_address(you=LATER)
    rig.accept("you@there.test")
    rig.pass_time(1005)
    # At 0, 60, 360, 660, 960 and, the last one, 1000 seconds.
    assert [paths for _, paths in rig.attempts()] == [["you@there.test"]] * 6 + [["me@here.test"]]
    assert rig.spool.messages == {}
    assert rig.metrics.expired.value == 1


def test_each_recipient_has_its_own_outcome() -> None:
    rig = Rig()
    rig.transport().judge = by_address(gone=GONE, later=LATER)
    rig.accept("good@a.test", "gone@a.test", "later@a.test")
    states = {recipient.address: recipient.state for recipient in rig.spool.messages[1].envelope.recipients}
    assert states == {
        "good@a.test": State.DELIVERED,
        "gone@a.test": State.FAILED,
        "later@a.test": State.DEFERRED,
    }
    rig.transport().judge = by_address()
    rig.pass_time(62)
    assert [paths for _, paths in rig.attempts()] == [
        ["good@a.test", "gone@a.test", "later@a.test"],
        ["me@here.test"],
        ["later@a.test"],
    ]
    assert rig.spool.messages == {}


def test_a_message_with_the_null_reverse_path_never_makes_a_report() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: GONE
    rig.accept("gone@there.test", reverse_path="")
    assert rig.attempts() == [(1, ["gone@there.test"])]
    assert rig.spool.messages == {}
    assert rig.metrics.reports.value == 0


def test_a_report_that_fails_makes_no_report() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: GONE
    rig.accept("gone@there.test")
    assert rig.attempts() == [(1, ["gone@there.test"]), (2, ["me@here.test"])]
    assert rig.spool.messages == {}
    assert rig.metrics.reports.value == 1


def test_what_no_route_matches_goes_by_mx() -> None:
    rig = Rig(Route("there.test", "smtp", "next.test:25"))
    rig.accept("you@there.test", "you@nowhere.test")
    assert rig.attempts() == [(1, ["you@there.test"])]
    assert rig.attempts(BY_MX.next_hop) == [(1, ["you@nowhere.test"])]


def test_routes_part_a_message() -> None:
    rig = Rig(Route("a.test", "smtp", "one:25"), Route("*", "smtp", "two:25", connections=1))
    rig.accept("x@a.test", "y@b.test", "z@a.test")
    assert rig.attempts("one:25") == [(1, ["x@a.test", "z@a.test"])]
    assert rig.attempts("two:25") == [(1, ["y@b.test"])]


def test_a_transaction_has_as_many_recipients_as_every_server_takes() -> None:
    rig = Rig()
    rig.accept(*(f"{number}@there.test" for number in range(2 * RECIPIENTS_LIMIT + 5)))
    assert sorted(len(paths) for _, paths in rig.attempts()) == [5, RECIPIENTS_LIMIT, RECIPIENTS_LIMIT]
    assert rig.spool.messages == {}


def test_a_next_hop_that_hangs_delays_no_other() -> None:
    rig = Rig(Route("slow.test", "smtp", "slow:25", connections=2), Route("*", "smtp", "fast:25"))
    rig.transport("slow:25").hold = True
    for _ in range(10):
        rig.accept("x@slow.test", "y@fast.test")
    assert len(rig.attempts("fast:25")) == 10
    assert len(rig.attempts("slow:25")) == 2
    rig.pass_time(100)
    rig.accept("y@fast.test")
    assert len(rig.attempts("fast:25")) == 11


def test_a_dead_next_hop_defers_everything_for_it() -> None:
    rig = Rig()
    rig.transport().down = True
    for _ in range(3):
        rig.accept("x@there.test")
    states = [message.envelope.recipients[0] for message in rig.spool.messages.values()]
    assert [(recipient.state, recipient.last_reply) for recipient in states] == [(State.DEFERRED, DOWN.reply)] * 3
    rig.transport().down = False
    rig.pass_time(62)
    assert rig.spool.messages == {}


def test_a_full_next_hop_parks_work_in_the_spool_until_there_is_room(monkeypatch: Patch) -> None:
    monkeypatch.setattr("mtatwist.relay.hop.QUEUE_LIMIT", 2)
    rig = Rig(Route("*", "smtp", "next.test:25", connections=1))
    rig.transport().hold = True
    for _ in range(5):
        rig.accept("x@there.test")
    assert rig.metrics.in_flight.value == 3
    assert len(rig.spool.claims) == 3
    rig.transport().hold = False
    rig.transport().go_on()
    assert len(rig.attempts()) == 3
    rig.pass_time(PARK_SECONDS + 2)
    assert len(rig.attempts()) == 5
    assert rig.spool.messages == {}
    # Nothing was tried in vain, so nothing counts as an attempt.
    assert rig.metrics.deferred.value == 0


def test_above_the_limit_in_flight_new_mail_stays_in_the_spool(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_LIMIT", 3)
    rig = Rig()
    rig.transport().hold = True
    for _ in range(6):
        rig.accept("x@there.test")
    assert rig.metrics.in_flight.value == 3
    assert len(rig.spool.messages) == 6
    rig.pass_time(10)
    assert rig.metrics.in_flight.value <= 3
    for _ in range(10):
        rig.transport().go_on()
        rig.pass_time(2)
    assert rig.spool.messages == {}
    assert len(rig.attempts()) == 6


def test_bodies_wait_in_bounded_memory(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "MEMORY_LIMIT", 100)
    rig = Rig(Route("*", "smtp", "next.test:25", connections=1))
    rig.transport().hold = True
    held: list[bool] = []

    def judge(message: Message, recipient: Recipient) -> Outcome:
        held.append(message.body is not None)
        return TAKEN

    rig.transport().judge = judge
    for _ in range(4):
        rig.accept("x@there.test", body=b"x" * 40)
    while rig.transport().waiting:
        rig.transport().go_on(1)
    assert held == [True, True, False, False]
    rig.accept("x@there.test", body=b"x" * 40)
    rig.transport().go_on()
    assert held[-1], "what was delivered has made room"


class BrokenSpool(MemorySpool):
    """Fails those calls that are named in ``broken``."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _try(self, name: str, *arguments: Any) -> Any:
        if name in self.broken:
            return fail(OSError("the disk is broken"))
        return getattr(MemorySpool, name)(self, *arguments)

    def claim_due(self, *arguments: Any) -> Any:
        return self._try("claim_due", *arguments)

    def next_due(self) -> Any:
        return self._try("next_due")

    def settle(self, *arguments: Any) -> Any:
        return self._try("settle", *arguments)

    def release(self, *arguments: Any) -> Any:
        return self._try("release", *arguments)

    def read(self, *arguments: Any) -> Any:
        return self._try("read", *arguments)


@pytest.mark.parametrize("call", ["claim_due", "next_due"])
def test_the_search_for_due_work_survives_trouble(call: str) -> None:
    spool = BrokenSpool()
    rig = Rig(spool=spool)
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("you@there.test")
    spool.broken = {call}
    rig.pass_time(100)
    assert rig.metrics.relay_errors.value >= 1
    spool.broken = set()
    rig.transport().judge = lambda message, recipient: TAKEN
    rig.pass_time(320)
    assert spool.messages == {}


def test_what_was_delivered_is_written_down_however_often_it_takes() -> None:
    """Else it would be delivered again."""
    spool = BrokenSpool()
    rig = Rig(spool=spool)
    spool.broken = {"settle"}
    rig.accept("you@there.test")
    rig.pass_time(3 * REWRITE_SECONDS)
    assert rig.metrics.relay_errors.value >= 3
    assert rig.metrics.in_flight.value == 1
    spool.broken = set()
    rig.pass_time(REWRITE_SECONDS + 1)
    assert spool.messages == {}
    assert len(rig.attempts()) == 1
    assert (rig.metrics.in_flight.value, rig.metrics.delivered.value) == (0, 1)


def test_a_report_is_made_anew_for_each_try_to_write_it() -> None:
    spool = BrokenSpool()
    rig = Rig(spool=spool)
    rig.transport().judge = by_address(gone=GONE)
    made: list[Any] = []
    create = spool.create
    spool.create = lambda envelope: made.append(create(envelope)) or made[-1]  # type: ignore[func-returns-value]
    spool.broken = {"settle"}
    rig.accept("gone@there.test")
    rig.pass_time(2 * REWRITE_SECONDS + 1)
    spool.broken = set()
    rig.pass_time(REWRITE_SECONDS + 1)
    assert [paths for _, paths in rig.attempts()] == [["gone@there.test"], ["me@here.test"]]
    assert len(made) > 3
    assert spool.messages == {}
    assert rig.metrics.reports.value == 1


def test_a_message_that_cannot_be_read_still_goes_back() -> None:
    spool = BrokenSpool()
    rig = Rig(spool=spool)
    rig.transport().judge = by_address(gone=GONE)
    spool.broken = {"read"}
    rig.accept("gone@there.test")
    assert [paths for _, paths in rig.attempts()] == [["gone@there.test"], ["me@here.test"]]
    assert spool.messages == {}
    assert rig.metrics.relay_errors.value == 1


def test_stop_gives_back_what_has_not_begun_and_waits_for_the_rest() -> None:
    rig = Rig(Route("*", "smtp", "next.test:25", connections=1))
    rig.transport().hold = True
    for _ in range(3):
        rig.accept("x@there.test")
    done = rig.stopping()
    assert not done
    assert rig.spool.claims == {(1, 0)}
    rig.transport().go_on()
    assert done
    assert sorted(rig.spool.messages) == [2, 3]
    assert rig.spool.claims == set()
    recipient = rig.spool.messages[2].envelope.recipients[0]
    assert (recipient.attempts, recipient.state) == (0, State.PENDING)
    assert rig.transport().open == []
    assert rig.transport().stopped == 1
    assert not rig.clock.getDelayedCalls()


@pytest.mark.parametrize("where", ["delivery", "connect"])
def test_stop_cuts_what_hangs_after_the_grace(where: str) -> None:
    rig = Rig(grace=10.0)
    rig.transport().hold = where == "delivery"
    rig.transport().hold_connect = where == "connect"
    rig.accept("x@there.test")
    done = rig.stopping()
    rig.clock.advance(9.9)
    assert not done
    rig.clock.advance(0.2)
    assert done
    assert rig.spool.messages[1].envelope.recipients[0].state == State.DEFERRED
    assert rig.spool.claims == set()
    assert rig.metrics.relay_errors.value == 0
    assert not rig.clock.getDelayedCalls()


def test_a_message_accepted_while_stopping_is_left_to_the_next_start() -> None:
    rig = Rig()
    rig.transport().hold = True
    rig.accept("x@there.test")
    done = rig.stopping()
    rig.accept("y@there.test")
    assert [paths for _, paths in rig.attempts()] == [["x@there.test"]]
    rig.transport().go_on()
    assert done
    assert rig.spool.claims == set()
    again = Rig(spool=rig.spool)
    assert [paths for _, paths in again.attempts()] == [["y@there.test"]]


def test_nothing_is_tried_after_the_stop() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("x@there.test")
    assert rig.stopping()
    rig.accept("y@there.test")
    rig.pass_time(200)
    assert len(rig.attempts()) == 1
    assert rig.spool.claims == set()


def test_what_a_search_finds_after_the_stop_is_given_back() -> None:
    spool: Any = MemorySpool()
    rig = Rig(spool=spool)
    rig.store("x@there.test")
    spool.claims.clear()
    claim: Deferred[None] = Deferred()
    found = spool.claim_due
    spool.claim_due = lambda now, limit: claim.addCallback(lambda _: found(now, limit))
    rig.pass_time(61)
    done = rig.stopping()
    claim.callback(None)
    assert done
    assert spool.claims == set()
    assert rig.attempts() == []


def test_a_clock_that_jumps_back_stops_nothing_for_long() -> None:
    """The wall clock is only for what is stored: a look at the spool comes every minute, whatever it says."""
    rig = Rig()
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("x@there.test")
    looks: list[float] = []
    found = rig.spool.claim_due
    rig.spool.claim_due = lambda now, limit: looks.append(now) or found(now, limit)
    rig.manager._wall = lambda: rig.clock.seconds() - 500_000
    rig.pass_time(300)
    assert len(looks) >= 4


def test_a_large_queue_is_claimed_by_the_piece(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "CLAIM_LIMIT", 10)
    spool: Any = MemorySpool()
    first = Rig(spool=spool)
    for _ in range(35):
        first.store("x@there.test")
    spool.claims.clear()
    limits: list[int] = []
    found = spool.claim_due
    spool.claim_due = lambda now, limit: limits.append(limit) or found(now, limit)
    second = Rig(spool=spool)
    assert len(second.attempts()) == 35
    assert set(limits) == {10}
