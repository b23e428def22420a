"""The loop that pushes metrics: it never ends before the server does, and keeps nothing between two rounds.

Each message holds everything since the start, so one that was not taken need not be kept: the next one says it all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.metrics.collector import REASON_LIMIT, PushFailed

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

LONGEST_WAIT = 300.0
"""The most seconds between two tries that we choose ourselves (the interval, if that is longer)."""

LONGEST_RETRY_AFTER = 3600.0
"""The most seconds that a collector can make us wait."""

LAST_PUSH = 2.0
"""Seconds that the push at the end may hold up the server."""


class PushLoop(Service):
    """Pushes every ``interval`` seconds; after failures less often, doubling, with jitter."""

    def __init__(
        self,
        push: Callable[[bytes], Awaitable[tuple[int, str]]],
        message: Callable[[], bytes],
        *,
        interval: float,
        clock: IReactorTime,
        random: Callable[[], float],
        metrics: Instruments,
        endpoint: str,
    ) -> None:
        """``push``: see Collector.push(). ``message`` makes what is pushed. ``random`` gives numbers from 0 to 1.
        ``endpoint`` is what the log calls the collector."""
        self._push = push
        self._message = message
        self._interval = interval
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._endpoint = endpoint
        self._timer: IDelayedCall | None = None
        self._under_way: Deferred[None] | None = None
        self._trouble = ""
        self._reason = ""
        self._failures = 0
        self._since = 0.0
        self._rejected = False
        self._given_up = False
        self._pushed = False

    def facts(self) -> dict[str, Any]:
        """Where metrics go, and whether they get there: ``failures`` in a row, and the last reason for them.

        ``pushed``: whether it has taken any yet."""
        return {
            "endpoint": self._endpoint,
            "pushed": self._pushed,
            "failures": self._failures,
            "reason": self._reason if self._failures else None,
        }

    def startService(self) -> None:
        """Begin at some moment of the first interval: servers that start together don't push together."""
        super().startService()
        self._timer = self._clock.callLater(self._interval * self._random(), self._begin)

    def stopService(self) -> Deferred[None]:
        """A last push, and then no more. Fires within LAST_PUSH seconds."""
        self.replaced()
        return Deferred.fromCoroutine(self._last())

    def replaced(self) -> None:
        """No more pushes, not even a last one: another loop pushes on."""
        super().stopService()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._under_way is not None:
            # That it ends now is not the collector's fault.
            self._given_up = True
            self._under_way.cancel()
            self._given_up = False

    async def _last(self) -> None:
        last = Deferred.fromCoroutine(self._round())
        last.addTimeout(LAST_PUSH, self._clock)
        with contextlib.suppress(TimeoutError):
            await last

    def _begin(self) -> None:
        self._timer = None
        self._under_way = Deferred.fromCoroutine(self._one_of_many())
        # All else is counted and logged by then.
        self._under_way.addErrback(_cancelled)

    async def _one_of_many(self) -> None:
        began = self._clock.seconds()
        asked = 0.0
        try:
            asked = await self._round()
        finally:
            self._under_way = None
            if self.running:
                elapsed = self._clock.seconds() - began
                self._timer = self._clock.callLater(max(0.0, self._wait(asked) - elapsed), self._begin)

    def _wait(self, asked: float) -> float:
        """How long from this push to the next."""
        if not self._failures:
            return self._interval
        longest = max(self._interval, LONGEST_WAIT)
        doubled = min(longest, self._interval * 2.0 ** min(self._failures, 30))
        return max(doubled * (0.5 + self._random() / 2), min(asked, LONGEST_RETRY_AFTER))

    async def _round(self) -> float:
        """Push once; gives how many seconds the collector wants to be left alone."""
        metrics, began = self._metrics, self._clock.seconds()
        try:
            unwanted, why = await self._push(self._message())
        except PushFailed as failed:
            self._failed(failed)
            return failed.retry_after
        except CancelledError:
            raise
        except Exception as error:
            # A bug of ours must cost no more than this push.
            self._failed(PushFailed(type(error).__name__, str(error) or type(error).__name__))
            return 0.0
        finally:
            metrics.push_seconds.observe(self._clock.seconds() - began)
        metrics.pushes.value += 1
        metrics.push_rejected.value += unwanted
        if unwanted and not self._rejected:
            _log.warn("metrics_rejected", endpoint=self._endpoint, values=unwanted, reason=why[:REASON_LIMIT])
        self._rejected = bool(unwanted)
        if self._failures:
            seconds = round(self._clock.seconds() - self._since, 3)
            _log.info("metrics_push_again", endpoint=self._endpoint, failures=self._failures, seconds=seconds)
        self._failures, self._trouble, self._pushed = 0, "", True
        return 0.0

    def _failed(self, failed: PushFailed) -> None:
        if self._given_up:
            return
        self._metrics.push_failures.value += 1
        if not self._failures:
            self._since = self._clock.seconds()
        self._failures += 1
        self._reason = str(failed)
        if failed.kind != self._trouble:
            # Once for each kind: a collector that is down for a night fills no log.
            self._trouble = failed.kind
            _log.warn(
                "metrics_push_failed",
                endpoint=self._endpoint,
                reason=str(failed),
                setting=failed.setting,
                failures=self._failures,
            )


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
