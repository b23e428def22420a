"""How parts take the place of others while the server runs: prepared in a thread, put in place in the reactor's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Swap = Callable[[], None]
"""Puts in place what was prepared. Called in the reactor's thread, or never; it has nothing left that may fail."""

KEPT_SECONDS = 60.0
"""So long what was replaced goes on, for those who still wait for it: a login, for one, takes ten seconds at most."""

KEPT = 4
"""How many replaced parts there may be of one kind; beyond that, the oldest ends at once."""


CONTENT_LIMIT = 4 << 20
"""Octets of a file that are compared: all authorities of the world have some hundred thousand."""


def nothing() -> None:
    """(Swap) All is as it was."""


def content(path: str | None) -> bytes | None:
    """What a file holds, to be compared with what it holds another time; None where it can't be read. Blocks."""
    with contextlib.suppress(OSError):
        if path is not None:
            with open(path, "rb") as file:
                return file.read(CONTENT_LIMIT)
    return None


class Replaced:
    """Parts that another has replaced: they are stopped a while later."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._timers: dict[Callable[[], object], IDelayedCall] = {}

    def add(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` when nobody can wait for it any more."""
        self._timers[stop] = self._clock.callLater(KEPT_SECONDS, self._end, stop)
        while len(self._timers) > KEPT:
            self._end(next(iter(self._timers)))

    def stop(self) -> None:
        """At once: the server stops."""
        for stop in list(self._timers):
            self._end(stop)

    def _end(self, stop: Callable[[], object]) -> None:
        timer = self._timers.pop(stop)
        if timer.active():
            timer.cancel()
        stop()
