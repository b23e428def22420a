"""A pump whose clock is the real one, for threads that talk to real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from rigs.pump import DEADLINE, Pump
from twisted.internet.defer import Deferred


class LivePump(Pump):
    """See Pump. Timers run while the test waits for something."""

    def seconds(self) -> float:
        """See IReactorTime."""
        return time.monotonic()

    def callLater(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """See IReactorTime."""
        self.now = time.monotonic()
        return super().callLater(seconds, call, *arguments)

    def until(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Run what is handed over, and timers, until ``condition`` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:g} s: {condition}")
            try:
                self._calls.get(timeout=0.01)()
            except Empty:
                self.advance(time.monotonic() - self.now)

    def outcome(self, deferred: Deferred[Any]) -> Any:
        """See Pump."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: bool(results))
        return results[0]
