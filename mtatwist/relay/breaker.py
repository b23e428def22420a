"""Destinations that can't be reached are left alone for a while, one attempt after each pause (a circuit breaker)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from mtatwist.envelope import Deferral
    from mtatwist.metrics.instruments import Instruments

FIRST_PAUSE = 1.0
"""Seconds after the first failure: long enough to spare what waits the same experience, short enough for a restart."""

LONGEST_PAUSE = 600.0
"""Each further failure doubles the pause up to this."""

JITTER = 0.2
"""Up to this part of the pause is taken away, so that what went down together is not tried together."""

REMEMBERED = 10_000
"""Destinations remembered; the one whose last failure is the longest ago makes room."""

FORGET = 3600.0
"""Seconds after its pause when a destination that nobody wanted any more is forgotten."""


@dataclass(slots=True)
class Down:
    """A destination that could not be reached: how often in a row, until when it is left alone, and what it said."""

    failures: int
    until: float
    outcome: Deferral


class Breakers:
    """The destinations that are down; all others are up. What goes on with a destination matters to no other."""

    def __init__(self, clock: IReactorTime, metrics: Instruments, random: Callable[[], float] = random) -> None:
        self._clock = clock
        self._metrics = metrics
        self._random = random
        self._down: dict[Hashable, Down] = {}  # in order of their last failures

    def get(self, destination: Hashable) -> Down | None:
        """What is known of a destination that is down, be its pause over or not."""
        return self._down.get(destination)

    def failed(self, destination: Hashable, outcome: Deferral) -> Down:
        """It could not be reached. What else was on its way during the pause makes that no longer."""
        now = self._clock.seconds()
        down = self._down.pop(destination, None)
        if down is None:
            down = Down(0, now, outcome)
        if now >= down.until:
            pause = min(FIRST_PAUSE * 2.0 ** min(down.failures, 32), LONGEST_PAUSE)
            down.failures += 1
            down.until = now + pause * (1 - JITTER * self._random())
        down.outcome = outcome
        self._down[destination] = down
        self._forget(now)
        return down

    def end_pause(self, destination: Hashable) -> None:
        """It may be tried now; another failure makes the next pause as long as it would have been."""
        down = self._down.get(destination)
        if down is not None:
            down.until = min(down.until, self._clock.seconds())

    def reached(self, destination: Hashable) -> bool:
        """It answers. Was it down?"""
        was_down = self._down.pop(destination, None) is not None
        if was_down:
            self._metrics.destinations_down.value = len(self._down)
        return was_down

    def _forget(self, now: float) -> None:
        while self._down:
            oldest = next(iter(self._down))
            if len(self._down) <= REMEMBERED and now < self._down[oldest].until + FORGET:
                break
            del self._down[oldest]
        self._metrics.destinations_down.value = len(self._down)
