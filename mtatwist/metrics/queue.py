"""How long the queue is: counted now and then, beside the traffic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

SHARE = 0.01
"""How much of the time the count of a long queue may take."""


class Counted(Protocol):
    """See spool.survey.Survey."""

    @property
    def pending(self) -> int: ...
    @property
    def deferred(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def due(self) -> int: ...
    @property
    def oldest(self) -> float | None: ...


class QueueWatch(Service):
    """Has the queue counted every ``interval`` seconds (a very long one less often), never twice at once."""

    def __init__(
        self,
        survey: Callable[[float], Awaitable[Counted]],
        *,
        interval: float,
        clock: IReactorTime,
        now: Callable[[], float],
        metrics: Instruments,
    ) -> None:
        """``survey`` counts as of the queue's time, which ``now`` gives."""
        self._survey = survey
        self._interval = interval
        self._clock = clock
        self._now = now
        self._metrics = metrics
        self._timer: IDelayedCall | None = None
        self._failed = False

    def startService(self) -> None:
        """Count for the first time."""
        super().startService()
        self._begin()

    def stopService(self) -> None:
        """Count no more; what is under way ends unheard."""
        super().stopService()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _begin(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._count()).addBoth(self._again, self._clock.seconds())

    def _again(self, _: object, began: float) -> None:
        if self.running:
            pause = max(self._interval, (self._clock.seconds() - began) / SHARE)
            self._timer = self._clock.callLater(pause, self._begin)

    async def _count(self) -> None:
        try:
            now = self._now()
            counted = await self._survey(now)
        except Exception as error:
            # The spool itself says what is wrong with the disk.
            self._metrics.queue_errors.value += 1
            if not self._failed and self.running:
                _log.warn("queue_not_counted", error=str(error), kind=type(error).__name__)
            self._failed = True
            return
        self._failed = False
        metrics = self._metrics
        metrics.queue_pending.value = counted.pending
        metrics.queue_deferred.value = counted.deferred
        metrics.queue_held.value = counted.held
        metrics.queue_due.value = counted.due
        metrics.queue_oldest.value = 0.0 if counted.oldest is None else max(0.0, now - counted.oldest)
