"""A count over a sliding window of time, in little memory."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from mtatwist.store.usage import KeptWindow

PARTS = 60
"""Parts of a window. Each counts as a whole: what is up to a 60th of the window too old still counts, and never is
there more than the limit in any window."""

NEAR = 0.8
"""The part of a limit at which somebody is to be warned."""


class Limit(NamedTuple):
    """No more than ``most`` of ``what`` ("messages" or "recipients") in any ``seconds``; ``words`` say it: "100/h"."""

    what: str
    most: int
    seconds: float
    words: str


def newest(kept: KeptWindow) -> float:
    """About when the last was counted."""
    return kept.parts[-1][0] * kept.seconds / PARTS if kept.parts else 0.0


class Window:
    """What one account did, under one limit. Pure: time, in seconds, is passed in."""

    __slots__ = ("_parts", "_total", "_warned_until", "_width", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._width = limit.seconds / PARTS
        self._parts: deque[tuple[int, int]] = deque()
        self._total = 0
        self._warned_until = 0.0

    def total(self, now: float) -> int:
        """How many there were in the window that ends now."""
        oldest = int(now // self._width) - PARTS
        while self._parts and self._parts[0][0] < oldest:
            self._total -= self._parts.popleft()[1]
        return self._total

    def room(self, now: float) -> int:
        """How many more there may be."""
        return self.limit.most - self.total(now)

    def add(self, now: float, count: int) -> bool:
        """Count some. Is it time to warn, once in the time of a window?"""
        self._add(int(now // self._width), count)
        if self.total(now) < NEAR * self.limit.most or now < self._warned_until:
            return False
        self._warned_until = now + self.limit.seconds
        return True

    def _add(self, part: int, count: int) -> None:
        if self._parts and self._parts[-1][0] >= part:
            part, before = self._parts.pop()
            count, self._total = count + before, self._total - before
        self._parts.append((part, count))
        self._total += count

    def kept(self) -> KeptWindow:
        """What a later run has to know."""
        return KeptWindow(self.limit.what, self.limit.seconds, self._warned_until, list(self._parts))

    def restore(self, kept: KeptWindow, now: float) -> None:
        """Put what an earlier run kept before what has been counted since. What seems to come from the future, after
        a clock was set back, counts as of now."""
        self._warned_until = max(self._warned_until, min(kept.warned_until, now + self.limit.seconds))
        since, self._parts, self._total = self._parts, deque(), 0
        newest = since[0][0] if since else int(now // self._width)
        for part, count in kept.parts:
            self._add(min(part, newest), count)
        for part, count in since:
            self._add(part, count)
