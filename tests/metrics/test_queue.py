"""The queue is counted now and then, never twice at once, and trouble with that ends nothing."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.queue import QueueWatch
from mtatwist.spool.survey import Survey


class Counts:
    """A watch whose counts are answered by the test."""

    def __init__(self) -> None:
        self.clock, self.metrics = Clock(), Instruments()
        self.asked: list[tuple[float, Deferred[Any]]] = []
        self.watch = QueueWatch(
            self._survey, interval=15, clock=self.clock, now=lambda: 1000 + self.clock.seconds(), metrics=self.metrics
        )
        self.watch.startService()

    def _survey(self, now: float) -> Deferred[Any]:
        self.asked.append((now, Deferred()))
        return self.asked[-1][1]

    def values(self) -> tuple[float, ...]:
        metrics = self.metrics
        of_state = (metrics.queue_pending, metrics.queue_deferred, metrics.queue_held)
        return tuple(one.value for one in (*of_state, metrics.queue_due, metrics.queue_oldest))


def test_it_counts_at_once_and_then_every_interval() -> None:
    counts = Counts()
    counts.asked[0][1].callback(Survey(5, 7, 3, 2, 400.0))
    assert counts.values() == (5, 7, 3, 2, 600)
    counts.clock.advance(15)
    assert [now for now, _ in counts.asked] == [1000, 1015]
    counts.asked[1][1].callback(Survey(0, 0, 0, 0, None))
    assert counts.values() == (0, 0, 0, 0, 0)


def test_a_slow_count_has_no_second_beside_it() -> None:
    counts = Counts()
    counts.clock.advance(100)
    assert len(counts.asked) == 1
    counts.asked[0][1].callback(Survey(1, 0, 0, 1, 2000.0))
    assert counts.values() == (1, 0, 0, 1, 0), "nothing is younger than now"


def test_a_count_that_takes_its_time_comes_less_often() -> None:
    counts = Counts()
    counts.clock.advance(0.5)
    counts.asked[0][1].callback(Survey(0, 500_000, 0, 0, None))
    counts.clock.advance(49)
    assert len(counts.asked) == 1
    counts.clock.advance(1)
    assert len(counts.asked) == 2


def test_trouble_is_counted_and_over_when_it_is() -> None:
    counts = Counts()
    counts.asked[0][1].errback(OSError("the disk"))
    counts.clock.advance(15)
    counts.asked[1][1].errback(OSError("the disk"))
    counts.clock.advance(15)
    counts.asked[2][1].callback(Survey(3, 0, 0, 0, None))
    assert counts.metrics.queue_errors.value == 2
    assert counts.values() == (3, 0, 0, 0, 0)


def test_after_its_end_nothing_is_left() -> None:
    counts = Counts()
    counts.watch.stopService()
    counts.asked[0][1].errback(OSError("closed"))
    assert counts.clock.getDelayedCalls() == []
    waiting = Counts()
    waiting.asked[0][1].callback(Survey(0, 0, 0, 0, None))
    waiting.watch.stopService()
    assert waiting.clock.getDelayedCalls() == []
