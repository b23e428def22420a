"""What is found out once for all who ask at the same time, and remembered for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shared(Generic[T]):
    """One piece of work that several wait for: who gives up waiting does not end it for the others."""

    def __init__(self, work: Deferred[T]) -> None:
        self._result: T | Failure | None = None
        self.done = False
        self._waiting: dict[Deferred[T], None] = {}
        work.addBoth(self._end)

    def join(self) -> Deferred[T]:
        """Wait, or don't if it is done already."""
        waiter: Deferred[T] = Deferred(lambda given_up: self._waiting.pop(given_up, None))
        if self.done:
            self._tell(waiter)
        else:
            self._waiting[waiter] = None
        return waiter

    def _end(self, result: T | Failure) -> None:
        self.done, self._result = True, result
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            self._tell(waiter)

    def _tell(self, waiter: Deferred[T]) -> None:
        # A failure of its own for each: who handles it cleans it.
        result = self._result
        if isinstance(result, Failure):
            waiter.errback(Failure(result.value))
        else:
            waiter.callback(result)  # type: ignore[arg-type]


class Remembered(Generic[K, T]):
    """Lists of answers, each for ``seconds``; where they are more than ``limit`` in all, those go that nobody asked for
    longest. An empty list counts as one."""

    def __init__(self, *, limit: int, seconds: float, clock: IReactorTime) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[K, tuple[float, tuple[T, ...]]] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: K) -> tuple[T, ...] | None:
        """What is remembered, or None."""
        entry = self._known.get(key)
        if entry is None:
            return None
        until, value = entry
        if self._clock.seconds() >= until:
            self._forget(key)
            return None
        self._known.move_to_end(key)
        return value

    def put(self, key: K, value: tuple[T, ...]) -> None:
        """Remember it from now on, if it is not too much by itself."""
        if key in self._known:
            self._forget(key)
        if len(value) > self._limit:
            return
        self._known[key] = self._clock.seconds() + self._seconds, value
        self._weight += max(1, len(value))
        while self._weight > self._limit:
            self._forget(next(iter(self._known)))

    def _forget(self, key: K) -> None:
        _, value = self._known.pop(key)
        self._weight -= max(1, len(value))
