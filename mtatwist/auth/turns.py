"""How many passwords are looked at at the same time: no more than may be wrong before the lockout steps in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mtatwist.auth.tally import Subject


class Turns:
    """Counts what is under way for each subject; whoever must wait is told when that is less."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._under_way: Counter[Subject] = Counter()
        # In the order in which they came.
        self._waiting: dict[Subject, dict[Deferred[None], None]] = {}

    def blocked(self, leeway: Iterable[tuple[Subject, int]]) -> Subject | None:
        """The first of these subjects that has as much under way as it may."""
        return next((subject for subject, most in leeway if self._under_way[subject] >= most), None)

    def wait(self, subject: Subject, seconds: float) -> Deferred[None]:
        """Fires when something of it has ended, or with twisted.internet.defer.TimeoutError. May be cancelled."""

        def gone(later: Deferred[None]) -> None:
            waiting = self._waiting.get(subject, {})
            waiting.pop(later, None)
            if not waiting:
                self._waiting.pop(subject, None)

        later: Deferred[None] = Deferred(gone)
        self._waiting.setdefault(subject, {})[later] = None
        return later.addTimeout(seconds, self._clock)

    def take(self, subjects: Iterable[Subject]) -> None:
        """Something has begun."""
        self._under_way.update(subjects)

    def leave(self, subjects: Iterable[Subject]) -> None:
        """It has ended; who waits looks again, in order, at the end of the reactor's round."""
        for subject in subjects:
            self._under_way[subject] -= 1
            if not self._under_way[subject]:
                del self._under_way[subject]
            for later in self._waiting.pop(subject, {}):
                self._clock.callLater(0, _wake, later)


def _wake(later: Deferred[None]) -> None:
    # It may have given up in the same round.
    if not later.called:
        later.callback(None)
