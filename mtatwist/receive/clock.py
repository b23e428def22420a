"""Deadlines that cost nothing while they are met."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

NEVER = float("inf")


class Deadline:
    """Calls ``expired`` once nothing has moved the deadline for as long as it allows.

    Moving it only stores a number; the timer wakes up at the old time and, if it was moved, sleeps on.
    """

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._timer: IDelayedCall | None = None
        self._wakes_at = NEVER
        self._at = 0.0

    def set(self, seconds: float) -> None:
        """Expire in ``seconds`` from now."""
        self._at = at = self._clock.seconds() + seconds
        if at < self._wakes_at:
            if self._timer is None:
                self._sleep(seconds)
            else:
                self._timer.reset(seconds)
                self._wakes_at = at

    def touch(self, seconds: float) -> None:
        """As set(), for the same ``seconds`` as the last time."""
        self._at = self._clock.seconds() + seconds

    def cancel(self) -> None:
        """Never expire."""
        timer, self._timer, self._wakes_at = self._timer, None, NEVER
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, NEVER
        left = self._at - self._clock.seconds()
        if left > 0:
            self._sleep(left)
        else:
            self._expired()

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._wake)
        self._wakes_at = self._timer.getTime()
