"""When a login is refused: after the same time for every reason. Pure: time, in seconds, is passed in.

What takes time is hidden behind the longest that a check has taken lately, and behind a delay that grows with them.
"""

from __future__ import annotations

import math
from collections import deque

from mtatwist.auth.client import Client

FIRST_DELAY = 0.5
"""Seconds; what a directory or a good hash needs is less, on a machine that is not overloaded."""

LONGEST_DELAY = 5.0
"""The delay doubles with each refusal of the same name at the same address, up to this."""

LONGEST = 10.0
"""The most that a slow directory makes refusals take. It is also how long a login may take at all."""

STEP = 0.01
"""Seconds; what checks took is told apart by so much, which bounds what is remembered."""

CLIENTS = 10_000
"""Pairs whose refusals are counted; beyond that, those refused longest ago begin anew."""


class Pace:
    """How long refusals take."""

    def __init__(self, forgotten_after: float) -> None:
        """``forgotten_after``: seconds after which it counts no more how long a refusal took; and, when a client had
        none in that time, its delay is the first one again."""
        self.forgotten_after = forgotten_after
        # When, and how many steps: each took less than those before it, as others say nothing. So there are no more
        # of them than steps in LONGEST, and no number of quick ones pushes out a long one.
        self._taken: deque[tuple[float, int]] = deque()
        # How often, and when last: the one refused longest ago comes first.
        self._refused: dict[Client, tuple[int, float]] = {}

    def took(self, seconds: float, now: float) -> None:
        """So long it took to find out that a password is right, or wrong, or a user unknown, and to keep that."""
        steps = math.ceil(round(min(max(seconds, 0.0), LONGEST) / STEP, 3))
        while self._taken and self._taken[-1][1] <= steps:
            self._taken.pop()
        self._taken.append((now, steps))

    def refused(self, client: Client, now: float) -> float:
        """How long after its beginning this refusal is to be said.

        Whatever its reason was, it counts: were it otherwise, the delay would tell the reason.
        """
        times, last = self._refused.pop(client, (0, now))
        times = 1 if last <= now - self.forgotten_after else times + 1
        self._refused[client] = (times, now)
        if len(self._refused) > CLIENTS:
            del self._refused[next(iter(self._refused))]
        while self._taken and self._taken[0][0] <= now - self.forgotten_after:
            self._taken.popleft()
        # No power of two that does not fit.
        growing: float = min(FIRST_DELAY * 2.0 ** min(times - 1, 10), LONGEST_DELAY)
        return max(growing, self._taken[0][1] * STEP if self._taken else 0.0)

    def succeeded(self, client: Client) -> None:
        """It begins anew."""
        self._refused.pop(client, None)
