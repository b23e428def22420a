"""Holding, releasing, retrying, bouncing and dropping what waits, beside deliveries that go on."""

from __future__ import annotations

from typing import Any

import pytest
from relay.fakes import LATER, Rig
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from mtatwist.envelope import State
from mtatwist.relay import administration as module
from mtatwist.relay.administration import Administration, Changed, Stopped
from mtatwist.spool.selection import Selection
from mtatwist.store.trouble import StoreBroken


@pytest.fixture
def rig() -> Rig:
    return Rig()


def asking(
    rig: Rig, action: str, reason: str = "", by: str = "", dry_run: bool = False, after: str | None = None, **given: Any
) -> Any:
    """The answer as it comes: a list that holds it, once it is there."""
    administration = Administration(rig.spool, rig.manager, clock=rig.clock, wall=rig.clock.seconds)
    answers: list[Any] = []
    change = administration.change(action, Selection(**given), reason=reason, by=by, dry_run=dry_run, after=after)
    Deferred.fromCoroutine(change).addBoth(answers.append)
    return answers


def change(rig: Rig, action: str, **asked: Any) -> Changed:
    (answer,) = asking(rig, action, **asked)
    if isinstance(answer, Failure):
        answer.raiseException()
    assert isinstance(answer, Changed)
    return answer


def states(rig: Rig) -> dict[str, State]:
    return {r.address: r.state for m in rig.spool.messages.values() for r in m.envelope.recipients}


def deferred(rig: Rig, *to: str) -> None:
    """A message for these, which wait for their next attempt."""
    judge, rig.transport().judge = rig.transport().judge, lambda message, recipient: LATER
    rig.accept(*to)
    rig.transport().judge = judge
    rig.transport().attempts.clear()


def test_what_is_held_is_not_tried_until_it_is_released(rig: Rig) -> None:
    deferred(rig, "a@there.test", "b@there.test")
    assert change(rig, "hold", recipient="a@*") == Changed(1, 1, 0, None)
    rig.pass_time(2000)
    assert [to for _, to in rig.attempts()] == [["b@there.test"]]
    assert states(rig)["a@there.test"] is State.HELD
    assert change(rig, "release") == Changed(1, 1, 0, None)
    rig.pass_time(1)
    assert [to for _, to in rig.attempts()] == [["b@there.test"], ["a@there.test"]]
    assert rig.spool.messages == {}


def test_hold_twice_and_release_what_is_not_held_is_nobody(rig: Rig) -> None:
    deferred(rig, "a@there.test")
    assert change(rig, "release") == Changed(0, 0, 0, None)
    change(rig, "hold")
    assert change(rig, "hold") == Changed(0, 0, 0, None)
    assert change(rig, "retry") == Changed(0, 0, 0, None)


def test_what_waits_in_memory_for_a_connection_is_held_too_and_what_is_on_its_way_is_not(rig: Rig) -> None:
    transport = rig.transport()
    transport.hold = True
    for number in range(10):
        rig.accept(f"{number}@there.test")
    begun = len(rig.attempts())
    assert 0 < begun < 10
    assert change(rig, "hold") == Changed(10 - begun, 10 - begun, begun, None)
    transport.hold = False
    transport.go_on()
    rig.pass_time(100)
    assert len(rig.attempts()) == begun
    assert list(states(rig).values()) == [State.HELD] * (10 - begun)
    assert rig.metrics.in_flight.value == 0


def test_of_one_piece_of_work_only_those_that_are_meant_are_taken_back(rig: Rig) -> None:
    transport = rig.transport()
    transport.hold = True
    for number in range(2):
        rig.accept(f"first{number}@there.test")
    rig.accept("a@there.test", "b@there.test", "c@there.test")
    assert change(rig, "hold", recipient="b@*") == Changed(1, 1, 0, None)
    transport.hold = False
    transport.go_on()
    assert rig.attempts()[-1][1] == ["a@there.test", "c@there.test"]
    assert rig.metrics.in_flight.value == 0
    assert states(rig)["b@there.test"] is State.HELD


def test_a_retry_is_tried_at_once_though_the_destination_is_left_alone(rig: Rig) -> None:
    rig.transport().down = True
    rig.accept("a@there.test")
    for _ in range(6):
        rig.pass_time(120)
    rig.transport().down = False
    before = len(rig.attempts())
    assert change(rig, "retry").recipients == 1
    rig.pass_time(0.1, 0.05)
    assert len(rig.attempts()) == before + 1
    assert rig.spool.messages == {}


def test_a_bounce_tells_the_sender_the_reason(rig: Rig) -> None:
    deferred(rig, "a@there.test", "b@there.test")
    change(rig, "hold", recipient="a@*")
    bodies: list[bytes] = []
    rig.transport().judge = lambda message, recipient: bodies.append(message.body) or LATER  # type: ignore[func-returns-value]
    assert change(rig, "bounce", recipient="a@*", reason="We do not want this") == Changed(1, 1, 0, None)
    assert [to for _, to in rig.attempts()] == [["me@here.test"]]
    assert b"554 5.0.0 We do not want this" in bodies[0]
    assert b"a@there.test" in bodies[0]
    assert b"b@there.test" not in bodies[0]
    assert states(rig)["b@there.test"] is State.DEFERRED
    change(rig, "bounce", recipient="b@*")
    assert [len(m.envelope.recipients) for m in rig.spool.messages.values()] == [1, 1], "just the two reports"


def test_who_wants_to_hear_of_no_failure_hears_of_no_bounce(rig: Rig) -> None:
    message = rig.store("a@there.test")
    rig.spool.messages[message.number].envelope.recipients[0].notify = "NEVER"
    rig.spool.claims.clear()
    assert change(rig, "bounce") == Changed(1, 1, 0, None)
    assert rig.attempts() == []
    assert rig.spool.messages == {}


def test_a_dropped_message_is_gone_and_nobody_is_told(rig: Rig) -> None:
    deferred(rig, "a@there.test", "b@there.test")
    assert change(rig, "drop", recipient="a@*") == Changed(1, 1, 0, None)
    assert states(rig) == {"a@there.test": State.FAILED, "b@there.test": State.DEFERRED}
    assert change(rig, "drop") == Changed(1, 1, 0, None)
    assert rig.spool.messages == {}
    assert rig.attempts() == []
    assert rig.metrics.in_flight.value == 0


def test_the_log_says_at_whose_word_something_was_changed_and_nothing_of_what_was_not(rig: Rig) -> None:
    deferred(rig, "a@there.test", "b@there.test")
    with capturedLogs() as events:
        change(rig, "hold", recipient="a@*", reason="wait", by="root (desk)")
        change(rig, "hold", recipient="a@*", by="root")
        change(rig, "drop", by="root", dry_run=True)
        change(rig, "bounce", recipient="a@*", by="ann")
        change(rig, "drop", recipient="b@*", by="bob")
    said = [(event["log_format"], event["by"]) for event in events if "by" in event]
    assert said == [
        ("queue_changed", "root (desk)"),
        ("bounced_by_admin", "ann"),
        ("queue_changed", "ann"),
        ("dropped", "bob"),
        ("queue_changed", "bob"),
    ]
    assert next(event for event in events if event["log_format"] == "queue_changed")["reason"] == "wait"


def test_a_dry_run_counts_and_changes_nothing(rig: Rig) -> None:
    deferred(rig, "a@there.test", "b@there.test")
    before = states(rig)
    assert change(rig, "drop", dry_run=True) == Changed(1, 2, 0, None)
    assert states(rig) == before


def test_many_are_changed_in_batches_and_each_message_is_counted_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "COUNTED", 2)
    for _ in range(3):
        deferred(rig, "a@there.test", "b@there.test", "c@there.test")
    assert change(rig, "hold", dry_run=True) == Changed(3, 9, 0, None)
    assert change(rig, "hold") == Changed(3, 9, 0, None)
    monkeypatch.setattr(module, "CALL_SECONDS", 0.0)
    cursor: str | None = None
    messages = recipients = calls = 0
    while calls == 0 or cursor is not None:
        answer = change(rig, "release", after=cursor)
        messages, recipients, cursor = messages + answer.messages, recipients + answer.recipients, answer.cursor
        calls += 1
    assert (messages, recipients, calls) == (3, 9, 5)


def test_when_it_can_not_be_written_what_was_taken_back_is_put_back(rig: Rig) -> None:
    transport = rig.transport()
    transport.hold = True
    for number in range(5):
        rig.accept(f"{number}@there.test")
    write, rig.spool.change = rig.spool.change, lambda request: fail(StoreBroken())
    with pytest.raises(StoreBroken):
        change(rig, "hold")
    rig.spool.change = write
    transport.hold = False
    transport.go_on()
    rig.pass_time(5)
    assert rig.spool.messages == {}
    assert sorted(to for _, (to,) in rig.attempts()) == [f"{number}@there.test" for number in range(5)]
    assert rig.metrics.in_flight.value == 0


def test_who_does_not_wait_any_more_leaves_no_step_half_done(rig: Rig) -> None:
    transport = rig.transport()
    transport.hold = True
    for number in range(5):
        rig.accept(f"{number}@there.test")
    written: Deferred[Any] = Deferred()
    write = rig.spool.change
    asked: list[Any] = []
    rig.spool.change = lambda request: asked.append(request) or written
    administration = Administration(rig.spool, rig.manager, clock=rig.clock, wall=rig.clock.seconds)
    waiting = Deferred.fromCoroutine(administration.change("hold", Selection()))
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    rig.spool.change = write
    write(asked[0]).addBoth(written.callback)
    transport.hold = False
    transport.go_on()
    rig.pass_time(100)
    assert list(states(rig).values()) == [State.HELD] * 3
    assert rig.metrics.in_flight.value == 0


def test_nothing_is_changed_while_the_server_stops(rig: Rig) -> None:
    deferred(rig, "a@there.test")
    rig.stopping()
    with pytest.raises(Stopped):
        change(rig, "hold")
    assert states(rig) == {"a@there.test": State.DEFERRED}


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"action": "burn"}, "action"),
        ({"action": "hold", "after": "x"}, "after"),
        ({"action": "hold", "after": "1.0." + "F" * 40}, "after"),
        ({"action": "bounce", "reason": "a\r\nb"}, "reason"),
        ({"action": "bounce", "reason": "a" * 501}, "reason"),
    ],
)
def test_what_makes_no_sense_is_said(rig: Rig, asked: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word}: "):
        change(rig, **asked)
