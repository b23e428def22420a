"""Failures and locks of one kind of subject: accounts, networks, or the pairs of both. Pure: time is passed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mtatwist.store.lockouts import Kept

Subject = tuple[str, str]
"""(account, network), one of them "" unless it is a pair."""

SUBJECTS = 50_000
"""Subjects of a kind whose failures are kept, and as many whose locks are."""

LOOKED_AT = 64
"""How many of those that changed longest ago are looked at for the one to be given up."""

SWEPT = 1000
"""How many that mean nothing any more are forgotten at once."""

FORGIVEN = 3
"""So many times the threshold is the most that is forgiven within the window: whoever guesses from behind the address
of somebody who logs in every few minutes has no more than that."""

WRONG_PASSWORDS = 16
"""Wrong passwords of a pair that are recognised."""


@dataclass(slots=True)
class Tally:
    """Of one subject. ``at``: when it changed last; ``failures``: when those happened that count; ``forgiven``: when
    those did that a login has forgiven since; ``wrong``: wrong passwords, and when each was seen last."""

    at: float
    failures: list[float] = field(default_factory=list)
    forgiven: list[float] = field(default_factory=list)
    wrong: dict[str, float] = field(default_factory=dict)


class Tallies:
    """Of one kind. A subject is locked for ``duration`` by ``threshold`` failures within ``window``; with the lock its
    count begins anew.

    A lock is never given up before its time: when there is no room, a count is, that of a subject with few failures
    and long ago. When there is no room for a lock, ``full`` says so, and the caller must treat as locked what is not
    known to be harmless. docs/lockout.rst has the reasons.
    """

    def __init__(
        self, *, threshold: int, window: float, duration: float, changed: Callable[[Subject], None], limit: int
    ) -> None:
        """``changed`` is called with each subject that is different now."""
        self.limit(threshold, window, duration)
        self._changed = changed
        self._limit = limit
        # The one that changed longest ago comes first, as does the lock that ends first. In a plain dict they would be
        # slow to find, behind all that has been deleted before them.
        self._tallies: OrderedDict[Subject, Tally] = OrderedDict()
        self.locks: OrderedDict[Subject, float] = OrderedDict()

    def limit(self, threshold: int, window: float, duration: float) -> None:
        """From now on these hold, for what has been counted before, too. Locks that there are end when they would have
        ended."""
        self._threshold = threshold
        self._most = FORGIVEN * threshold
        self._window = window
        self._duration = duration

    def __len__(self) -> int:
        return len(self._tallies) + len(self.locks)

    def locked(self, subject: Subject, now: float) -> bool:
        """Is there a lock that has not ended?"""
        return self.locks.get(subject, now) > now

    def full(self, now: float) -> bool:
        """Is there no room for one more lock?"""
        if len(self.locks) >= self._limit:
            self.sweep(now)
        return len(self.locks) >= self._limit

    def count(self, subject: Subject, now: float) -> int:
        """Failures within the window."""
        tally = self._tallies.get(subject)
        return 0 if tally is None else sum(at > now - self._window for at in tally.failures)

    def leeway(self, subject: Subject, now: float) -> int:
        """How many failures more until it is locked; one at least."""
        count = self.count(subject, now)
        return max(min(self._threshold - count, self._most - count - self._forgiven(subject, now)), 1)

    def add(self, subject: Subject, now: float) -> bool:
        """Count a failure, unless there is a lock already. Does it lock the subject?"""
        if self.locked(subject, now):
            return False
        tally = self._touch(subject, now)
        live = [at for at in tally.failures if at > now - self._window]
        tally.failures = [*live, now][-self._threshold :]
        all_ = len(tally.failures) + self._forgiven(subject, now)
        if (len(tally.failures) < self._threshold and all_ < self._most) or self.full(now):
            return False
        self.begin_anew(subject)
        self.locks.pop(subject, None)
        self.locks[subject] = now + self._duration
        return True

    def recognise(self, subject: Subject, wrong: str, now: float) -> bool:
        """Has this wrong password been seen within the window? It is remembered from now on."""
        tally = self._touch(subject, now)
        seen = tally.wrong.pop(wrong, now - self._window)
        tally.wrong[wrong] = now
        while len(tally.wrong) > WRONG_PASSWORDS:
            del tally.wrong[next(iter(tally.wrong))]
        return seen > now - self._window

    def forgive(self, subject: Subject) -> None:
        """Count anew, up to FORGIVEN times. The wrong passwords stay what they are."""
        tally = self._tallies.get(subject)
        if tally is not None and tally.failures:
            tally.forgiven = [*tally.forgiven, *tally.failures][-self._most :]
            tally.failures = []
            self._changed(subject)

    def begin_anew(self, subject: Subject) -> None:
        """Count from nothing. The wrong passwords stay what they are."""
        tally = self._tallies.get(subject)
        if tally is not None and (tally.failures or tally.forgiven):
            tally.failures, tally.forgiven = [], []
            self._changed(subject)

    def unlock(self, subject: Subject) -> None:
        """Forget everything about it."""
        self._tallies.pop(subject, None)
        self.locks.pop(subject, None)
        self._changed(subject)

    def find(self, chosen: Callable[[Subject], bool]) -> list[Subject]:
        """Those with a count or a lock."""
        return [subject for subject in self._tallies.keys() | self.locks.keys() if chosen(subject)]

    def sweep(self, now: float) -> None:
        """Forget some of what means nothing any more."""
        for _ in range(SWEPT):
            subject, until = next(iter(self.locks.items()), (None, now))
            if subject is None or until > now:
                break
            del self.locks[subject]
            self._changed(subject)
        for _ in range(SWEPT):
            subject, tally = next(iter(self._tallies.items()), (None, None))
            if subject is None or tally is None or tally.at > now - self._window:
                break
            del self._tallies[subject]
            self._changed(subject)

    def row(self, subject: Subject) -> Kept | None:
        """What is to be kept of it; None: nothing."""
        tally, until = self._tallies.get(subject), self.locks.get(subject, 0.0)
        if tally is None:
            return Kept(*subject, until - self._duration, until) if until else None
        failures = [*(-at for at in tally.forgiven), *tally.failures]
        return Kept(*subject, tally.at, until, failures, dict(tally.wrong))

    def restore(self, rows: Sequence[Kept], now: float) -> None:
        """Take in what an earlier run kept, in the order of the changes.

        A clock that was set back must not make a lock longer than locks are.
        """
        for row in sorted(rows, key=lambda row: row.until):
            if row.until > now:
                self.locks[row.account, row.network] = min(row.until, now + self._duration)
        for row in rows:
            if row.failures or row.wrong:
                failures = [min(at, now) for at in row.failures if at >= 0][-self._threshold :]
                forgiven = [min(-at, now) for at in row.failures if at < 0][-self._most :]
                wrong = {each: min(seen, now) for each, seen in row.wrong.items()}
                self._tallies[row.account, row.network] = Tally(min(row.at, now), failures, forgiven, wrong)

    def _forgiven(self, subject: Subject, now: float) -> int:
        tally = self._tallies.get(subject)
        return 0 if tally is None else sum(at > now - self._window for at in tally.forgiven)

    def _touch(self, subject: Subject, now: float) -> Tally:
        """The subject's tally, as the one that changed last."""
        tally = self._tallies.pop(subject, None)
        if tally is None:
            tally = Tally(now)
            while len(self._tallies) >= self._limit:
                self._give_up(now)
        tally.at = now
        self._tallies[subject] = tally
        self._changed(subject)
        return tally

    def _give_up(self, now: float) -> None:
        """Make room for one more count."""
        subject = min(
            islice(self._tallies, LOOKED_AT), key=lambda each: self.count(each, now) + self._forgiven(each, now)
        )
        del self._tallies[subject]
        self._changed(subject)
