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


class Pump:
    """Takes what threads hand over, and runs it while the test waits. ``now`` is its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """See IReactorFromThreads."""
        self._calls.put(lambda: call(*arguments, **keywords))

    def callLater(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> None:
        """See IReactorTime: only the end of a round can be waited for."""
        assert seconds == 0
        self._calls.put(lambda: call(*arguments))

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

    def drain(self) -> None:
        """Run what has been handed over so far."""
        while not self._calls.empty():
            self._calls.get()()
