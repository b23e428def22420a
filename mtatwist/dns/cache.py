"""What is remembered of the DNS, for how long, and what for when it is away (RFC 2308, RFC 8767, RFC 9520)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from dns.rdata import Rdata
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

OCTETS_LIMIT = 4 * 1024 * 1024
"""Octets of replies that are remembered at most. In memory each takes about ten times that."""

FAILURE_SECONDS = 5.0
"""How long a failed lookup is not begun again (RFC 9520 §3.2)."""

STALE_FAILURE_SECONDS = 30.0
"""The same where an old answer can be given meanwhile (RFC 8767 §5)."""


class Key(NamedTuple):
    """What is asked for: a name from :func:`mtatwist.dns.names.ascii_name`, and a type such as "MX"."""

    name: str
    type: str


class Answer(NamedTuple):
    """What the DNS says. Without records the name is not there (``exists`` is false), or has none of this type.

    ``canonical`` is the name at the end of the CNAMEs. ``secure``: a server that is trusted to validate vouches for
    it (RFC 4035 §3.2.3). ``ttl``: seconds, as the DNS gave it. ``stale``: it is over its time, and the DNS is away.
    """

    key: Key
    exists: bool
    records: tuple[Rdata, ...]
    canonical: str
    secure: bool = False
    ttl: float = 0.0
    size: int = 0
    stale: bool = False


class Remembered(NamedTuple):
    """What is listed of an entry. Without an ``answer`` it is the memory of a failure.

    ``left``: seconds until it is over its time (negative: since). ``trouble``: why a lookup has failed a moment ago.
    """

    key: Key
    answer: Answer | None
    left: float
    trouble: str


@dataclass(slots=True)
class Entry:
    """An answer with its times (the clock's), or just the memory of a failure (``answer`` is None)."""

    answer: Answer | None
    fresh_until: float = 0.0
    stale_until: float = 0.0
    failed_until: float = 0.0
    trouble: str = ""


class Cache:
    """The most recently used answers, as many as fit."""

    def __init__(
        self,
        *,
        clock: IReactorTime,
        metrics: Instruments,
        entries: int,
        minimum_ttl: float,
        maximum_ttl: float,
        maximum_stale: float,
    ) -> None:
        """All times are in seconds."""
        self._clock = clock
        self._metrics = metrics
        self._limit = entries
        self._minimum_ttl = minimum_ttl
        self._maximum_ttl = maximum_ttl
        self._maximum_stale = maximum_stale
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._octets = 0

    def become(self, other: Cache) -> None:
        """Keep what comes from now on for as long, and as much of it, as ``other`` would."""
        self._limit = other._limit
        self._minimum_ttl = other._minimum_ttl
        self._maximum_ttl = other._maximum_ttl
        self._maximum_stale = other._maximum_stale
        self._make_room()

    def get(self, key: Key) -> Entry | None:
        """What is known, if it is of any use still."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.seconds()
        if now >= max(entry.fresh_until, entry.stale_until, entry.failed_until):
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, answer: Answer) -> None:
        """Remember an answer."""
        fresh_until = self._clock.seconds() + min(max(answer.ttl, self._minimum_ttl), self._maximum_ttl)
        # An old "there is no such name" must not fail mail that a working DNS would let through.
        stale_until = fresh_until + self._maximum_stale if answer.records else 0.0
        self._drop(answer.key)
        self._store(answer.key, Entry(answer, fresh_until, stale_until))

    def failed(self, key: Key, why: str) -> None:
        """Remember, for a moment, that there was trouble."""
        entry = self.get(key)
        now = self._clock.seconds()
        if entry is not None and entry.answer is not None:
            entry.failed_until, entry.trouble = now + STALE_FAILURE_SECONDS, why
        else:
            self._drop(key)
            self._store(key, Entry(None, failed_until=now + FAILURE_SECONDS, trouble=why))

    def clear(self, name: str | None = None) -> int:
        """Forget all, or all types of a name; gives how many entries that were."""
        keys = [key for key in self._entries if name is None or key.name == name]
        for key in keys:
            self._drop(key)
        return len(keys)

    def left(self, key: Key) -> float | None:
        """Seconds until what is known of ``key`` is over its time (negative: since); None: nothing is known."""
        entry = self._entries.get(key)
        return None if entry is None or entry.answer is None else entry.fresh_until - self._clock.seconds()

    def remembered(self, limit: int, after: Key | None = None) -> list[Remembered]:
        """The first ``limit`` entries behind the key ``after``, in the order of their keys."""
        now = self._clock.seconds()
        # What there is no use for any more is only taken out when somebody asks for it.
        useful = (
            key
            for key, entry in self._entries.items()
            if (after is None or key > after) and now < max(entry.fresh_until, entry.stale_until, entry.failed_until)
        )
        return [self._told(key, self._entries[key], now) for key in nsmallest(limit, useful)]

    def _told(self, key: Key, entry: Entry, now: float) -> Remembered:
        until = entry.failed_until if entry.answer is None else entry.fresh_until
        return Remembered(key, entry.answer, until - now, entry.trouble if now < entry.failed_until else "")

    def __len__(self) -> int:
        return len(self._entries)

    def _store(self, key: Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._octets += entry.answer.size if entry.answer is not None else 0
        self._make_room()

    def _make_room(self) -> None:
        while len(self._entries) > self._limit or self._octets > OCTETS_LIMIT:
            self._drop(next(iter(self._entries)))
        self._metrics.dns_cache_entries.value = len(self._entries)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.answer is not None:
            self._octets -= entry.answer.size
        self._metrics.dns_cache_entries.value = len(self._entries)
