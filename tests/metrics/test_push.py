"""The loop of pushes: when it pushes, what it says when that fails, and that nothing ends it but the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from mtatwist.metrics.collector import PushFailed
from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.push import PushLoop

INTERVAL = 15.0


class Loop:
    """A loop under a clock. ``behave`` answers each push; ``at`` is when they came."""

    def __init__(self, behave: Callable[[], Any] | None = None, *, random: float = 1.0) -> None:
        self.clock = Clock()
        self.metrics = Instruments()
        self.behave = behave or (lambda: succeed((0, "")))
        self.at: list[float] = []
        self.messages: list[bytes] = []
        self.message: Callable[[], bytes] = lambda: b"%d" % len(self.at)
        self.events: list[dict[str, Any]] = []
        self.service = PushLoop(
            self._push,
            lambda: self.message(),
            interval=INTERVAL,
            clock=self.clock,
            random=lambda: random,
            metrics=self.metrics,
            endpoint="http://collector.test/",
        )

    async def _push(self, message: bytes) -> tuple[int, str]:
        self.at.append(self.clock.seconds())
        self.messages.append(message)
        return await self.behave()

    def __enter__(self) -> Loop:
        globalLogPublisher.addObserver(self._observe)
        self.service.startService()
        return self

    def __exit__(self, *exc: object) -> None:
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace") == "mtatwist.metrics.push":
            self.events.append(event)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1)

    def said(self) -> list[str]:
        return [event["log_format"] for event in self.events]


def failing(kind: str = "refused", **facts: Any) -> Callable[[], Any]:
    async def behave() -> Any:
        raise PushFailed(kind, "no", **facts)

    return behave


def test_it_pushes_every_interval_from_some_moment_of_the_first() -> None:
    with Loop(random=0.4) as loop:
        loop.pass_time(60)
    assert loop.at == [6, 21, 36, 51]
    assert loop.metrics.pushes.value == loop.metrics.push_seconds.count == 4
    assert loop.said() == []


def test_nobody_says_that_metrics_are_taken_before_they_were() -> None:
    loop = Loop()
    with loop:
        assert loop.service.facts()["pushed"] is False
        loop.pass_time(INTERVAL)
        assert loop.service.facts()["pushed"] is True


def test_a_slow_collector_is_not_asked_twice_at_once() -> None:
    slow: list[Deferred[Any]] = []

    def behave() -> Deferred[Any]:
        slow.append(Deferred())
        return slow[-1]

    with Loop(behave) as loop:
        loop.pass_time(60)
        assert loop.at == [15]
        slow[0].callback((0, ""))
        loop.pass_time(1)
        assert len(loop.at) == 2, "the next was due long ago"


def test_failures_double_the_wait_up_to_five_minutes_with_jitter() -> None:
    with Loop(failing()) as loop:
        loop.pass_time(1200)
    waits = [later - sooner for sooner, later in zip(loop.at, loop.at[1:], strict=False)]
    assert waits == [30, 60, 120, 240, 300, 300]
    with Loop(failing(), random=0.0) as other:
        other.pass_time(700)
    waits = [later - sooner for sooner, later in zip(other.at, other.at[1:], strict=False)]
    assert waits[:5] == [15, 30, 60, 120, 150]


def test_after_a_thousand_failures_it_still_tries() -> None:
    with Loop(failing()) as loop:
        for _ in range(1100):
            loop.clock.advance(300)
        assert len(loop.at) > 1000
        assert len(loop.clock.getDelayedCalls()) == 1, "nothing piles up"
        loop.behave = lambda: succeed((0, ""))
        loop.clock.advance(300)
    assert loop.metrics.pushes.value == 1
    assert loop.said() == ["metrics_push_failed", "metrics_push_again"]
    assert loop.events[1]["failures"] == loop.metrics.push_failures.value > 1000


@pytest.mark.parametrize(("asked", "wait"), [(100.0, 100), (5.0, 30), (1e9, 3600)])
def test_the_collector_may_ask_for_more_time_within_bounds(asked: float, wait: float) -> None:
    with Loop(failing("503", retry_after=asked)) as loop:
        loop.pass_time(3700)
    assert loop.at[1] - loop.at[0] == wait


def test_each_change_is_logged_once_with_the_setting_to_look_at() -> None:
    with Loop(failing("401", setting="metrics.api_key")) as loop:
        loop.pass_time(200)
        loop.behave = failing("refused")
        loop.pass_time(700)
        loop.behave = lambda: succeed((0, ""))
        loop.pass_time(400)
    assert loop.said() == ["metrics_push_failed", "metrics_push_failed", "metrics_push_again"]
    assert [event.get("setting") for event in loop.events] == ["metrics.api_key", "metrics.endpoint", None]


def crash() -> Any:
    raise ZeroDivisionError("a bug")


def test_bugs_are_counted_and_survived() -> None:
    with Loop(crash) as loop:
        loop.pass_time(16)
        loop.behave = lambda: succeed((0, ""))
        loop.message = crash
        loop.pass_time(31)
        loop.message = lambda: b"x"
        loop.pass_time(60)
    assert loop.metrics.push_failures.value == 2
    assert loop.metrics.pushes.value == 1
    assert loop.said() == ["metrics_push_failed", "metrics_push_again"]


def test_what_the_collector_rejects_is_counted_and_told_once() -> None:
    with Loop(lambda: succeed((2, "out of order"))) as loop:
        loop.pass_time(60)
    assert loop.metrics.push_rejected.value == 8
    assert loop.metrics.pushes.value == 4
    assert [(event["log_format"], event["reason"]) for event in loop.events] == [("metrics_rejected", "out of order")]


def stopped(loop: Loop) -> list[Any]:
    ended: list[Any] = []
    stopping = loop.service.stopService()
    stopping.addBoth(ended.append)
    return ended


def test_the_last_push_comes_at_the_end() -> None:
    with Loop() as loop:
        loop.pass_time(20)
        assert stopped(loop) == [None]
        loop.pass_time(100)
    assert loop.at == [15, 20]
    assert loop.clock.getDelayedCalls() == []


def test_a_collector_that_hangs_holds_up_the_end_for_two_seconds() -> None:
    def hang() -> Deferred[Any]:
        """As Collector.push() has it: cancelled, it says that it failed."""
        return Deferred().addErrback(lambda _: Failure(PushFailed("aborted", "no")))

    with Loop(hang) as loop:
        loop.pass_time(20)
        ended = stopped(loop)
        assert (len(loop.at), ended) == (2, []), "the push under way was given up for the last one"
        assert (loop.metrics.push_failures.value, loop.said()) == (0, []), "which is nobody's fault"
        loop.clock.advance(1.9)
        assert ended == []
        loop.clock.advance(0.1)
        assert ended == [None]
        loop.pass_time(1000)
    assert len(loop.at) == 2
    assert loop.clock.getDelayedCalls() == []


@pytest.mark.parametrize("behave", [failing(), crash])
def test_a_collector_that_fails_holds_up_nothing(behave: Callable[[], Any]) -> None:
    with Loop(behave) as loop:
        assert stopped(loop) == [None]
    assert loop.clock.getDelayedCalls() == []
