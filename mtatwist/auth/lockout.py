"""When guessing passwords is stopped: the policy. Pure: time, in seconds of the queue's time, is passed in.

docs/lockout.rst says what is counted, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from heapq import nsmallest
from typing import NamedTuple

from mtatwist.auth.client import NOWHERE, Client, fingerprint
from mtatwist.auth.known import KNOWN_SECONDS, KnownNetworks
from mtatwist.auth.tally import SUBJECTS, Subject, Tallies
from mtatwist.store.lockouts import Changes, Oldest, Saved

CHANGED = 4 * SUBJECTS
"""Subjects that may wait for their change to be saved, while that fails."""


class Kind(Enum):
    """What a lock is on. Its value is the word for it in the log."""

    ACCOUNT = "account"
    PAIR = "pair"
    ADDRESS = "address"


class Lock(NamedTuple):
    """``user`` is "" for an address, ``address`` (IPv6: its /64) is "" for an account."""

    kind: Kind
    user: str
    address: str
    until: float


class Lockout:
    """Counts wrong passwords by account, by pair of account and network, and by network."""

    def __init__(
        self, *, threshold: int, window: float, duration: float, address_threshold: int, subjects: int = SUBJECTS
    ) -> None:
        """``window`` and ``duration`` are seconds; ``subjects``: how many of each kind have room."""
        self._window = window
        # Subjects whose change has not been saved yet; a dict, as it keeps the order.
        self._changed: dict[Subject, None] = {}

        def tallies(threshold: int) -> Tallies:
            return Tallies(threshold=threshold, window=window, duration=duration, changed=self._note, limit=subjects)

        self._accounts = tallies(threshold)
        self._pairs = tallies(threshold)
        self._addresses = tallies(address_threshold)
        self._tables = {Kind.ACCOUNT: self._accounts, Kind.PAIR: self._pairs, Kind.ADDRESS: self._addresses}
        self._known = KnownNetworks()
        self._key = b""

    def limit(self, *, threshold: int, window: float, duration: float, address_threshold: int) -> None:
        """From now on these hold; what has been counted, and locked, stays."""
        self._window = window
        self._accounts.limit(threshold, window, duration)
        self._pairs.limit(threshold, window, duration)
        self._addresses.limit(address_threshold, window, duration)

    def closed(self, client: Client, now: float) -> Kind | None:
        """What keeps this client from having its password looked at; None: nothing.

        An account's lock spares the networks it has logged in from. Where there is no room for another lock, they
        alone get in.
        """
        account, pair, address = _subjects(client)
        known = self._is_known(client, now)
        if not known and (self._accounts.locked(account, now) or self._accounts.full(now)):
            return Kind.ACCOUNT
        if self._pairs.locked(pair, now) or self._pairs.full(now):
            return Kind.PAIR
        if self._addresses.locked(address, now) or (not known and self._addresses.full(now)):
            return Kind.ADDRESS
        return None

    def leeway(self, client: Client, now: float) -> Iterator[tuple[Subject, int]]:
        """How many wrong passwords more each count takes before it locks this client out. So many may be looked at
        at the same time: with more, guessing in parallel would get around the lock."""
        account, pair, address = _subjects(client)
        yield pair, self._pairs.leeway(pair, now)
        if not self._is_known(client, now):
            yield account, self._accounts.leeway(account, now)
        if client.network != NOWHERE:
            yield address, self._addresses.leeway(address, now)

    def failed(self, client: Client, secret: str, now: float) -> list[Lock] | None:
        """Count a wrong password: the locks that it sets; None: it is a repetition, and does not count."""
        account, pair, address = _subjects(client)
        if self._pairs.recognise(pair, fingerprint(self._key, client.account, secret), now):
            return None
        locked = []
        if self._accounts.add(account, now):
            locked.append(Kind.ACCOUNT)
        if self._accounts.locked(account, now) and not self._is_known(client, now):
            # The account's lock is the pair's, too: strangers' pairs need no room of their own.
            self._pairs.begin_anew(pair)
        elif self._pairs.add(pair, now):
            locked.append(Kind.PAIR)
        # Whoever is behind a socket, or an onion service, could lock everybody out who is.
        if client.network != NOWHERE and self._addresses.add(address, now):
            locked.append(Kind.ADDRESS)
        return [
            Lock(kind, subject[0], subject[1], self._tables[kind].locks[subject])
            for kind, subject in zip(Kind, (account, pair, address), strict=True)
            if kind in locked
        ]

    def succeeded(self, client: Client, now: float) -> None:
        """The right password: its pair is counted anew, and the account is known there.

        Not where nobody can be told from anybody else: one who guesses there would profit from each login of the user.
        """
        if client.network == NOWHERE:
            return
        self._pairs.forgive((client.account, client.network))
        self._known.add(client, now)

    def _is_known(self, client: Client, now: float) -> bool:
        # Earlier versions may have kept such a network.
        return client.network != NOWHERE and self._known.has(client, now)

    def locks(self, now: float, *, user: str = "", limit: int | None = None, after: Lock | None = None) -> list[Lock]:
        """Those that have not ended, the first to end first: of one ``user`` alone, no more than ``limit``, and those
        that come behind ``after``."""
        least = (now, "", "", "") if after is None or after.until <= now else _in_order(after)
        # Plain tuples: there may be very many.
        tables = [(kind.value, table) for kind, table in self._tables.items()]
        found = (
            each
            for word, table in tables
            for subject, until in table.locks.items()
            if until > now and (not user or user == subject[0])
            if (each := (until, word, *subject)) > least
        )
        first = sorted(found) if limit is None else nsmallest(limit, found)
        return [Lock(Kind(kind), user, address, until) for until, kind, user, address in first]

    @property
    def active(self) -> int:
        """How many locks there are; some may have ended since the last sweep()."""
        return sum(len(table.locks) for table in self._tables.values())

    @property
    def empty(self) -> bool:
        """Is there nothing that sweep() could ever forget?"""
        return not any(len(table) for table in self._tables.values())

    def unlock(self, user: str, address: str, now: float) -> list[Lock]:
        """Forget the locks and counts of this user, of this network, or with both of their pair: the locks there were.

        ``user`` and ``address`` are as in Lock. With an account go its pairs, and with a network its pairs.
        """

        def chosen(subject: Subject) -> bool:
            return (not user or subject[0] == user) and (not address or subject[1] == address)

        if not user and not address:
            return []
        ended = [lock for lock in self.locks(now) if chosen((lock.user, lock.address))]
        for table in self._tables.values():
            for subject in table.find(chosen):
                table.unlock(subject)
        return ended

    def sweep(self, now: float) -> None:
        """Forget some of what means nothing any more."""
        for table in self._tables.values():
            table.sweep(now)
        self._known.sweep(now)

    # What an earlier run has left, and what a later one needs.

    def oldest(self, now: float) -> Oldest:
        """What need not be restored."""
        return Oldest(now - self._window, now - KNOWN_SECONDS)

    def restore(self, saved: Saved, now: float) -> None:
        """Go on where an earlier run ended."""
        self._key = saved.key
        for table in self._tables.values():
            table.restore([row for row in saved.kept if self._table((row.account, row.network)) is table], now)
        self._known.restore(saved.known, now)
        self._changed.clear()

    @property
    def changed(self) -> bool:
        """Is there something to be saved?"""
        return bool(self._changed) or self._known.changed

    def take_changes(self) -> Changes:
        """What is different since the last time."""
        rows = {subject: self._table(subject).row(subject) for subject in self._changed}
        self._changed.clear()
        known, strange = self._known.take_changes()
        return Changes(
            [row for row in rows.values() if row is not None],
            [subject for subject, row in rows.items() if row is None],
            known,
            strange,
        )

    def give_back(self, changes: Changes) -> None:
        """These could not be saved: they will be with the next ones."""
        for row in changes.kept:
            self._note((row.account, row.network))
        for subject in changes.gone:
            self._note(subject)
        self._known.give_back(changes.known, changes.strange)

    def _note(self, subject: Subject) -> None:
        if len(self._changed) < CHANGED:
            self._changed[subject] = None

    def _table(self, subject: Subject) -> Tallies:
        account, network = subject
        return self._addresses if not account else self._pairs if network else self._accounts


def _in_order(lock: Lock) -> tuple[float, str, str, str]:
    return lock.until, lock.kind.value, lock.user, lock.address


def _subjects(client: Client) -> tuple[Subject, Subject, Subject]:
    """The account, the pair and the address."""
    return (client.account, ""), (client.account, client.network), ("", client.network)
