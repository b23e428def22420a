"""The relay manager with a spool in memory and a clock: what becomes of each message, and when."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from metrics.reading import reports, tried
from relay.fakes import DOWN, GONE, LATER, TAKEN, Delivery, Rig
from twisted.internet.defer import Deferred, fail, succeed

from mtatwist.envelope import Message, Outcome, Recipient, State
from mtatwist.relay import manager as module
from mtatwist.relay.manager import RECIPIENTS_LIMIT
from mtatwist.relay.record import REWRITE_SECONDS
from mtatwist.relay.route import Route
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports.failures import ConnectFailed

Patch = pytest.MonkeyPatch


def by_address(**outcomes: Outcome) -> Any:
    """A judge: the local part decides."""
    return lambda message, recipient: outcomes.get(recipient.address.partition("@")[0], TAKEN)


def test_a_new_message_is_tried_at_once() -> None:
    rig = Rig()
    rig.accept("you@there.test")
    assert rig.attempts() == [(1, ["you@there.test"])]
    assert rig.spool.messages == {}
    assert tried(rig.metrics, "delivered") == 1
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
    assert (tried(rig.metrics, "deferred"), tried(rig.metrics, "delivered")) == (2, 1)


def test_a_refusal_becomes_a_report_and_the_message_is_gone() -> None:
    rig = Rig()
    rig.transport().judge = by_address(gone=GONE)
    rig.accept("gone@there.test")
    assert rig.attempts() == [(1, ["gone@there.test"]), (2, ["me@here.test"])]
    assert rig.spool.messages == {}
    assert (tried(rig.metrics, "failed"), reports(rig.metrics)) == (1, 1)


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


def test_those_that_failed_in_one_transaction_are_tried_in_one_again() -> None:
    """Not each at a time of its own, or a message for a hundred would be sent a hundred times."""
    rig = Rig()
    chances = itertools.cycle([0.0, 1.0, 0.3, 0.7])
    rig.manager._recorder._schedule._random = lambda: next(chances)
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept(*(f"{number}@there.test" for number in range(50)))
    rig.transport().judge = lambda message, recipient: TAKEN
    rig.pass_time(70)
    assert [len(paths) for _, paths in rig.attempts()] == [50, 50]


def test_an_expired_message_goes_back_after_a_last_attempt() -> None:
    rig = Rig()
    rig.transport().judge = by_address(you=LATER)
    rig.accept("you@there.test")
    rig.pass_time(1005)
    # At 0, 60, 360, 660, 960 and, the last one, 1000 seconds.
    assert [paths for _, paths in rig.attempts()] == [["you@there.test"]] * 6 + [["me@here.test"]]
    assert rig.spool.messages == {}
    assert tried(rig.metrics, "expired") == 1


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
    assert reports(rig.metrics) == 0


def test_a_report_that_fails_makes_no_report() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: GONE
    rig.accept("gone@there.test")
    assert rig.attempts() == [(1, ["gone@there.test"]), (2, ["me@here.test"])]
    assert rig.spool.messages == {}
    assert reports(rig.metrics) == 1


def test_what_no_route_matches_goes_by_mx() -> None:
    rig = Rig(Route("there.test", "smtp", "next.test:25"))
    rig.accept("you@there.test", "you@nowhere.test")
    assert rig.attempts() == [(1, ["you@there.test"])]
    assert rig.attempts("nowhere.test") == [(1, ["you@nowhere.test"])]


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


def test_a_dead_next_hop_is_left_alone_and_what_waits_for_it_too() -> None:
    rig = Rig()
    rig.transport().down = True
    for _ in range(3):
        rig.accept("x@there.test")
    first, *others = [message.envelope.recipients[0] for message in rig.spool.messages.values()]
    assert (first.state, first.last_reply, first.attempts) == (State.DEFERRED, DOWN.reply, 1)
    assert [(recipient.state, recipient.attempts) for recipient in others] == [(State.PENDING, 0)] * 2
    assert rig.spool.claims == set()
    assert rig.metrics.connect_failures.value == 1
    rig.transport().down = False
    rig.pass_time(2)
    assert sorted(number for number, _ in rig.attempts()) == [2, 3], "as soon as it is there again"
    rig.pass_time(62)
    assert rig.spool.messages == {}


def test_what_waits_for_a_dead_next_hop_is_neither_claimed_nor_written(monkeypatch: Patch) -> None:
    rig = Rig()
    rig.transport().down = True
    for _ in range(30):
        rig.accept("x@there.test")
    writes: list[str] = []
    for name in ("settle", "release", "claim_due"):
        asked = getattr(rig.spool, name)
        monkeypatch.setattr(
            rig.spool, name, lambda *args, asked=asked, name=name: writes.append(name) or asked(*args), raising=True
        )
    rig.pass_time(600)
    # One attempt after each pause: of 1, 2, 4 ... 256 seconds.
    tried = rig.metrics.connect_failures.value
    assert 8 <= tried <= 12
    assert len(writes) <= 2 * tried
    assert rig.spool.claims == set()


def test_new_mail_for_a_dead_next_hop_waits_for_the_next_attempt() -> None:
    rig = Rig()
    rig.transport().down = True
    rig.accept("x@there.test")
    rig.accept("x@there.test")
    rig.pass_time(1)  # the second failure: two seconds
    assert rig.metrics.connect_failures.value == 2
    rig.transport().down = False
    rig.accept("x@there.test")
    assert rig.attempts() == []
    rig.pass_time(3)
    assert [number for number, _ in rig.attempts()] == [3]


def test_a_destination_that_is_being_tried_again_gets_one_message_until_it_answers() -> None:
    rig = Rig()
    rig.transport().down = True
    for _ in range(10):
        rig.accept("x@there.test")
    rig.transport().down = False
    rig.transport().hold_connect = True
    rig.pass_time(2)
    rig.accept("x@there.test")
    assert len(rig.transport().connecting) == 1
    assert rig.metrics.in_flight.value == 1
    rig.transport().hold_connect = False
    rig.transport().connecting.pop().callback(Delivery(rig.transport()))
    rig.pass_time(1)
    assert len(rig.attempts()) == 10


def test_a_failure_for_good_is_everybodys() -> None:
    """A domain that does not exist: nobody there will ever answer."""
    rig = Rig(Route("*", "smtp", "next.test:25", connections=1))
    rig.transport().hold_connect = True
    for _ in range(3):
        rig.accept("x@there.test", reverse_path="")
    rig.transport().connecting[0].errback(ConnectFailed(GONE))
    assert rig.spool.messages == {}
    assert (tried(rig.metrics, "failed"), rig.metrics.destinations_down.value) == (3, 0)


def test_who_waits_for_a_dead_next_hop_too_long_goes_back_with_what_was_said_last() -> None:
    rig = Rig(Route("there.test", "smtp", "dead:25"), Route("*", "smtp", "next.test:25"))
    rig.transport("dead:25").down = True
    for _ in range(3):
        rig.accept("x@there.test")
    rig.pass_time(1100)
    assert rig.spool.messages == {}
    assert tried(rig.metrics, "expired") == 3
    assert [paths for _, paths in rig.attempts()] == [["me@here.test"]] * 3


def test_a_full_next_hop_leaves_work_in_the_spool_until_there_is_room(monkeypatch: Patch) -> None:
    monkeypatch.setattr("mtatwist.relay.destinations.QUEUE_LIMIT", 2)
    monkeypatch.setattr("mtatwist.relay.hop.LOW_WATER", 0)
    rig = Rig(Route("*", "smtp", "next.test:25", connections=1))
    rig.transport().hold = True
    for _ in range(9):
        rig.store("x@there.test")
    rig.spool.claims.clear()
    rig.pass_time(100)
    assert rig.metrics.in_flight.value == len(rig.spool.claims) == 2
    rig.transport().hold = False
    rig.transport().go_on()
    rig.pass_time(3)
    assert len(rig.attempts()) == 9
    assert rig.spool.messages == {}
    # Nothing was tried in vain, so nothing counts as an attempt.
    assert tried(rig.metrics, "deferred") == 0


def left_behind(*paths: str) -> Any:
    """A spool in which an earlier run has left messages to these."""
    spool: Any = MemorySpool()
    first = Rig(spool=spool)
    for path in paths:
        first.store(path)
    first.stopping()
    spool.claims.clear()
    return spool


def test_one_message_does_not_wait_behind_a_thousand() -> None:
    """All of them are due, and all of the others were before it."""
    spool = left_behind(*["x@big.test"] * 1000, "x@small.test")
    rig = Rig(Route("*", "smtp"), spool=spool)
    rig.pass_time(1)
    numbers = [number for number, _ in rig.attempts("small.test")]
    assert numbers == [1001]
    rig.pass_time(30)
    assert len(rig.attempts("big.test")) == 1000
    assert spool.messages == {}


def test_what_waits_for_one_that_is_slow_is_in_nobodys_way() -> None:
    spool = left_behind(*["x@slow.test"] * 3000, *["x@fast.test"] * 300)
    rig = Rig(Route("*", "smtp"), spool=spool)
    rig.transport("slow.test").hold = True
    rig.pass_time(20)
    assert len(rig.attempts("fast.test")) == 300
    assert rig.metrics.in_flight.value <= 600
    rig.accept("new@fast.test")
    assert len(rig.attempts("fast.test")) == 301


def test_the_queues_of_slow_next_hops_leave_room_for_others(monkeypatch: Patch) -> None:
    """Of new mail and of old: however much there is for those that are slow."""
    monkeypatch.setattr(module, "IN_FLIGHT_LIMIT", 40)
    slow = [f"slow{number}.test" for number in range(5)]
    spool = left_behind(*(f"x@{name}" for name in slow * 100))
    rig = Rig(Route("*", "smtp"), spool=spool)
    for name in slow:
        rig.transport(name).hold = True
    rig.pass_time(10)
    for name in slow * 20:
        rig.accept(f"x@{name}")
    rig.transport("fast.test").judge = lambda message, recipient: LATER
    rig.accept("x@fast.test")
    rig.transport("fast.test").judge = lambda message, recipient: TAKEN
    assert len(rig.attempts("fast.test")) == 1
    rig.pass_time(70)
    assert len(rig.attempts("fast.test")) == 2
    assert rig.metrics.in_flight.value <= 80


def test_after_an_outage_of_ours_the_others_are_not_stormed() -> None:
    spool = left_behind(*(f"x@d{number}.test" for number in range(1000)))
    rig = Rig(Route("*", "smtp"), spool=spool)
    begun = []
    for _ in range(5):
        begun.append(sum(len(transport.attempts) for transport in rig.transports.values()))
        rig.pass_time(1)
    assert begun[0] <= 100
    assert all(later <= 2 * earlier + 100 for earlier, later in itertools.pairwise(begun))
    rig.pass_time(5)
    assert spool.messages == {}


def test_each_domain_without_a_smart_host_is_a_destination_of_its_own() -> None:
    rig = Rig(Route("*", "smtp"))
    rig.transport("dead.test").down = True
    rig.accept("x@dead.test", "y@live.test", "z@live.test")
    rig.accept("x@dead.test")
    assert rig.attempts("live.test") == [(1, ["y@live.test", "z@live.test"])]
    assert rig.metrics.connect_failures.value == 1
    assert rig.metrics.destinations_down.value == 1


def test_many_destinations_leave_nothing_behind() -> None:
    rig = Rig(Route("*", "smtp"))
    for number in range(500):
        rig.accept(f"x@d{number}.test")
    rig.pass_time(10)
    assert rig.spool.messages == {}
    assert rig.manager._destinations._hops == {}
    assert len(rig.clock.getDelayedCalls()) == 1, "the next look"


def test_the_total_of_connections_is_kept_and_everybody_gets_a_turn() -> None:
    rig = Rig(Route("*", "smtp"), connections=4)
    for number in range(12):
        rig.transport(f"d{number}.test").hold = True
        for _ in range(3):
            rig.accept(f"x@d{number}.test")
    for _ in range(60):
        assert sum(len(transport.open) for transport in rig.transports.values()) <= 4
        for transport in rig.transports.values():
            transport.go_on(1)
        rig.pass_time(1)
    assert rig.spool.messages == {}


def test_above_the_limit_in_flight_new_mail_stays_in_the_spool(monkeypatch: Patch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_LIMIT", 3)
    rig = Rig()
    rig.transport().hold = True
    for _ in range(6):
        rig.accept("x@there.test")
    assert rig.metrics.in_flight.value == 2, "one next hop leaves room for another"
    assert len(rig.spool.messages) == 6
    rig.pass_time(10)
    assert rig.metrics.in_flight.value <= 6, "three of new mail, and three that had to wait"
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

    def next_due(self, *arguments: Any) -> Any:
        return self._try("next_due", *arguments)

    def due_domains(self, *arguments: Any) -> Any:
        return self._try("due_domains", *arguments)

    def claim_late(self, *arguments: Any) -> Any:
        return self._try("claim_late", *arguments)

    def settle(self, *arguments: Any) -> Any:
        return self._try("settle", *arguments)

    def release(self, *arguments: Any) -> Any:
        return self._try("release", *arguments)

    def read(self, *arguments: Any) -> Any:
        return self._try("read", *arguments)


@pytest.mark.parametrize("call", ["due_domains", "claim_due", "claim_late", "next_due"])
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
    assert (rig.metrics.in_flight.value, tried(rig.metrics, "delivered")) == (0, 1)


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
    recipient = rig.spool.messages[1].envelope.recipients[0]
    assert (recipient.state, recipient.attempts) == (State.PENDING, 0), "it was us who ended it"
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
    found = rig.spool.due_domains
    rig.spool.due_domains = lambda now, *more: looks.append(now) or found(now, *more)
    rig.manager._backlog._wall = lambda: rig.clock.seconds() - 500_000
    rig.pass_time(300)
    assert len(looks) >= 4


def test_a_large_queue_is_claimed_by_the_piece(monkeypatch: Patch) -> None:
    monkeypatch.setattr("mtatwist.relay.backlog.CLAIM_LIMIT", 10)
    spool = left_behind(*["x@there.test"] * 35)
    claimed: list[int] = []
    found = spool.claim_due
    spool.claim_due = lambda now, shares: claimed.append(sum(share for _, share in shares)) or found(now, shares)
    rig = Rig(spool=spool)
    assert len(rig.attempts()) == 35
    assert max(claimed) <= 10


def test_a_claim_that_can_not_be_recorded_after_the_stop_is_no_complaint() -> None:
    """It is void after the next start, and the work is done again."""
    spool = BrokenSpool()
    rig = Rig(spool=spool)
    rig.transport().hold = True
    rig.accept("x@there.test")
    done = rig.stopping()
    spool.broken = {"settle"}
    rig.transport().go_on()
    assert done
    assert rig.metrics.relay_errors.value == 0


def test_due_work_that_could_not_be_claimed_is_looked_for_soon() -> None:
    spool = left_behind("x@there.test")
    found = spool.claim_due
    spool.claim_due = lambda now, shares: succeed([])
    rig = Rig(spool=spool)
    spool.claim_due = found
    rig.pass_time(2)
    assert len(rig.attempts()) == 1
