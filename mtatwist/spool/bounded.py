"""Bounds on how long somebody may look at the spool, and on how many may at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import apsw
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure

T = TypeVar("T")

LONGEST = 20.0
"""Seconds that one look may take: for so long the log can't be reset, and a thread is not there for the mail."""

_STEPS = 1_000_000
"""Steps of SQLite's between two looks at the clock, each of which has to wait for the interpreter."""


LOOKS = 2
"""So many look at a time: they leave threads to the mail."""


class TooLong(Exception):
    """It took too long, and was broken off."""


def bounded(connection: apsw.Connection, function: Callable[..., T], *arguments: object) -> T:
    """Call ``function(connection, *arguments)``; raises TooLong after LONGEST seconds."""
    deadline = time.monotonic() + LONGEST
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        return function(connection, *arguments)
    except apsw.InterruptError:
        raise TooLong(f"it took more than {LONGEST:.0f} seconds: select less") from None
    finally:
        connection.set_progress_handler(None)


class Looks:
    """Turns of those who look. Who has begun has a thread, and so its turn, to the end, even if nobody waits for it."""

    def __init__(self) -> None:
        self._turns = DeferredSemaphore(LOOKS)

    def run(self, look: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Look when there is a turn; who is cancelled before that never looks."""
        begun = False

        def begin() -> Deferred[T]:
            nonlocal begun
            begun = True
            return look()

        def done(result: T | Failure) -> None:
            if not waiter.called:
                waiter.callback(result)

        turn: Deferred[T] = self._turns.run(begin)
        waiter: Deferred[T] = Deferred(lambda _: None if begun else turn.cancel())
        turn.addBoth(done)
        return waiter
