"""Other routes, limits and schedules while mail flows: what is under way ends as it began, the rest goes by the new."""

from __future__ import annotations

from relay.fakes import LATER, Rig, _Way

from mtatwist.relay.report import Reporter
from mtatwist.relay.retry import Schedule
from mtatwist.relay.route import Route

NEXT = "next.test:25"
OTHER = Route("*", "smtp", "other.test:25")


def reroute(rig: Rig, *routes: Route) -> None:
    rig.manager.go(routes=routes, transport=lambda route: _Way(rig, route))


def judge_by(rig: Rig, schedule: Schedule, connections: int = 500) -> None:
    reporter = Reporter(rig.spool, hostname="mta.test", return_size=1, shown=lambda at: at, metrics=rig.metrics)
    rig.manager.use(schedule=schedule, reporter=reporter, connections=connections)


def test_what_is_being_delivered_ends_there_and_what_waits_goes_the_new_way() -> None:
    rig = Rig(Route("*", "smtp", NEXT, connections=2))
    before = rig.transport(NEXT)
    before.hold = True
    for number in range(5):
        rig.accept(f"{number}@a.test")
    assert len(before.attempts) == 2
    reroute(rig, OTHER)
    rig.clock.advance(1)
    assert len(before.attempts) == 2
    assert sorted(number for number, _ in rig.transport("other.test:25").attempts) == [3, 4, 5]
    assert before.stopped == 0
    before.go_on()
    assert rig.spool.messages == {}
    assert not before.open
    assert before.stopped == 1


def test_a_way_that_nobody_is_on_ends_at_once() -> None:
    rig = Rig()
    rig.accept("a@a.test")
    assert len(rig.transport().open) == 1
    reroute(rig, OTHER)
    assert not rig.transport().open
    assert rig.transport().stopped == 1
    rig.accept("b@a.test")
    assert len(rig.transport("other.test:25").attempts) == 1


def test_there_and_back_again_while_the_first_is_busy() -> None:
    rig = Rig(Route("*", "smtp", NEXT, connections=1))
    before = rig.transport(NEXT)
    before.hold = True
    rig.accept("a@a.test")
    reroute(rig, OTHER)
    reroute(rig, Route("*", "smtp", NEXT, connections=1))
    rig.accept("b@a.test")
    assert [number for number, _ in before.attempts] == [1, 2]
    before.go_on()
    assert rig.spool.messages == {}


def test_what_is_down_is_tried_by_another_way_at_once() -> None:
    rig = Rig()
    rig.transport().down = True
    rig.accept("a@a.test")
    assert rig.metrics.destinations_down.value == 1
    reroute(rig, OTHER)
    rig.accept("b@a.test")
    rig.clock.advance(60)
    assert sorted(number for number, _ in rig.transport("other.test:25").attempts) == [1, 2]


def test_a_stop_cuts_what_a_way_of_before_still_does() -> None:
    rig = Rig()
    before = rig.transport()
    before.hold = True
    rig.accept("a@a.test")
    reroute(rig, OTHER)
    stopped: list[object] = []
    rig.manager.stopService().addCallback(stopped.append)
    assert not stopped
    rig.clock.advance(rig.grace)
    assert stopped
    assert not before.open
    assert 1 in rig.spool.messages


def test_another_schedule_counts_from_the_next_attempt() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("a@a.test")
    (recipient,) = rig.spool.messages[1].envelope.recipients
    assert recipient.next_attempt == rig.clock.seconds() + 60
    judge_by(rig, Schedule([7.0], 1000.0, random=lambda: 0.5))
    rig.accept("b@a.test")
    (other,) = rig.spool.messages[2].envelope.recipients
    assert other.next_attempt == rig.clock.seconds() + 7
    assert recipient.next_attempt == rig.clock.seconds() + 60


def test_messages_become_too_old_by_another_age() -> None:
    rig = Rig()
    rig.transport().judge = lambda message, recipient: LATER
    rig.accept("a@a.test")
    judge_by(rig, Schedule([60.0], 30.0, random=lambda: 0.5))
    for _ in range(62):
        rig.clock.advance(1)
    assert 1 not in rig.spool.messages
    (report,) = rig.spool.messages.values()
    assert report.envelope.reverse_path == ""


def test_fewer_and_more_connections() -> None:
    rig = Rig(connections=8)
    transport = rig.transport()
    transport.hold = True
    schedule = Schedule([60.0], 1000.0)
    judge_by(rig, schedule, connections=2)
    for number in range(6):
        rig.accept(f"{number}@a.test")
    assert len(transport.open) == 1
    judge_by(rig, schedule, connections=40)
    transport.go_on()
    rig.clock.advance(1)
    assert len(transport.open) > 1
