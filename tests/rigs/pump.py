"""The part of a reactor that threads need, turned by the test: callFromThread and a clock, without a reactor."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds after which a Deferred counts as never firing."""


class _Later:
    """See IDelayedCall."""

    def __init__(self, at: float, call: Callable[[], Any]) -> None:
        self.at = at
        self._call: Callable[[], Any] | None = call

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        self._call = None


class Pump:
    """Takes what threads hand over, and runs it while the test waits. ``now`` is its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._later: list[_Later] = []
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """See IReactorFromThreads."""
        self._calls.put(lambda: call(*arguments, **keywords))

    def callLater(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> _Later:
        """See IReactorTime: at once is the end of a round, and later is for :meth:`advance`."""
        later = _Later(self.now + seconds, lambda: call(*arguments))
        if seconds:
            self._later.append(later)
        else:
            self._calls.put(later.run)
        return later

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due, self._later = self._later, []
        for later in due:
            if later.at <= self.now:
                later.run()
            else:
                self._later.append(later)

    def seconds(self) -> float:
        """See IReactorTime."""
        return self.now

    def outcome(self, deferred: Deferred[Any]) -> Any:
        """What the Deferred fires with, be it a Failure."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        deadline = time.monotonic() + DEADLINE
        while not results:
            try:
                call = self._calls.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                raise TimeoutError(f"{deferred} has not fired") from None
            call()
        return results[0]

    def wait(self, deferred: Deferred[T]) -> T:
        """The result of the Deferred; its exception is raised."""
        result: T | Failure = self.outcome(deferred)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def until(self, condition: Callable[[], bool]) -> None:
        """Run what is handed over, until ``condition`` holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self._calls.get(timeout=max(deadline - time.monotonic(), 0))()

    def drain(self) -> None:
        """Run what has been handed over so far."""
        while not self._calls.empty():
            self._calls.get()()
