"""When to try again: the schedule, its jitter and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import random

JITTER = 0.1
"""Up to this part of an interval is added or taken, so that what failed together is not tried together."""


class Schedule:
    """Intervals between attempts, in seconds; the last one repeats until ``max_age`` seconds after acceptance.

    All times are the queue's (store.queue_time): a clock that is set makes no message older.
    """

    def __init__(
        self,
        intervals: Sequence[float],
        max_age: float,
        random: Callable[[], float] = random,
        *,
        warn_after: float = 0.0,
    ) -> None:
        """``warn_after``: seconds after acceptance at which a message is late; 0: never."""
        self.warn_after = warn_after
        self.max_age = max_age
        self._intervals = tuple(intervals)
        self._random = random

    @property
    def longest(self) -> float:
        """The longest time from an attempt to the next one."""
        return max(self._intervals) * (1 + JITTER)

    def expired(self, received_at: float, now: float) -> bool:
        """Has the message been tried for long enough?"""
        return now - received_at >= self.max_age

    def late(self, received_at: float, now: float) -> bool:
        """Has it been tried for so long that its sender should know?"""
        return 0 < self.warn_after <= now - received_at

    def ends_at(self, received_at: float) -> float:
        """Until when is the message tried?"""
        return received_at + self.max_age

    def next_attempt(self, received_at: float, attempts: int, now: float) -> float:
        """When to try again after ``attempts`` attempts; one last attempt falls on the end of max_age."""
        interval = self._intervals[min(attempts, len(self._intervals)) - 1]
        due = now + interval * (1 + JITTER * (2 * self._random() - 1))
        return min(due, max(received_at + self.max_age, now + 1.0))
