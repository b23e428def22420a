"""The queue's own time: it runs on steadily when the machine's clock is set. docs/operations.rst says what that means.

What the queue stores, and compares with later, is in this time: when a message came, and when it is tried again. What
people read is in the machine's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

LOOK_SECONDS = 5.0
"""Time between two comparisons of the machine's clock with the monotonic one."""

JUMP_SECONDS = 2.0
"""A clock that went further astray than this since the last look was set; less is drift, and is followed."""


class KeptTime(NamedTuple):
    """What the spool knows about time when it is opened, in the queue's time but for ``ahead``.

    ``ahead``: seconds by which the queue's time was ahead of the machine's; ``newest``: when the newest message came;
    ``last_due``: the latest time for which an attempt is planned. None: there is no such message.
    """

    ahead: float = 0.0
    newest: float | None = None
    last_due: float | None = None


class QueueTime:
    """Seconds since the epoch, as the machine's clock would count them had nobody set it since the queue began."""

    def __init__(
        self,
        *,
        wall: Callable[[], float],
        clock: IReactorTime,
        keep: Callable[[float], Deferred[Any]],
        metrics: Instruments,
    ) -> None:
        """``wall`` is the machine's time; ``clock`` must be monotonic; ``keep`` stores ``ahead`` durably."""
        self._wall = wall
        self._clock = clock
        self._seconds = clock.seconds
        self._keep = keep
        self._metrics = metrics
        self._offset = wall() - clock.seconds()
        self._timer: IDelayedCall | None = None
        self._unsaved = False
        self.ahead = 0.0

    def now(self) -> float:
        """The queue's time. Reads the monotonic clock only: no jump is ever seen here, not even for a moment."""
        return self._seconds() + self._offset

    def shown(self, at: float) -> float:
        """A moment of the queue's time as the machine's clock has it now: for people."""
        return at - self.ahead

    def start(self, kept: KeptTime, longest_wait: float) -> None:
        """Go on where the last run ended, as far as that can be known, and begin to look at the clock.

        Time never goes back behind what has happened already: behind the newest message, or ``longest_wait`` seconds
        before the last planned attempt. Without that, a machine that starts without its clock stalls the queue.
        """
        wall = self._wall()
        now = wall
        if kept.newest is not None:
            now = max(wall + kept.ahead, kept.newest)
            if kept.last_due is not None:
                now = max(now, kept.last_due - longest_wait)
        self.ahead = now - wall
        self._offset = now - self._clock.seconds()
        self._unsaved = self.ahead != kept.ahead
        if abs(self.ahead) > JUMP_SECONDS:
            _log.info("queue_time", ahead=round(self.ahead, 3))
        self._look()

    def stop(self) -> None:
        """Look no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        """Was the clock set?"""
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look)
        astray = self._wall() + self.ahead - self.now()
        if abs(astray) <= JUMP_SECONDS:
            self._offset += astray
        else:
            self.ahead -= astray
            self._unsaved = True
            self._metrics.clock_jumps.value += 1
            _log.warn("clock_jump", seconds=round(astray, 3), ahead=round(self.ahead, 3))
        if self._unsaved:
            self._unsaved = False
            self._keep(self.ahead).addErrback(self._not_kept)

    def _not_kept(self, _: object) -> None:
        """The writer has said so; the next look tries again."""
        self._unsaved = True
