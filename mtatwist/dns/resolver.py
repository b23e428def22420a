"""Looking up names: the cache, shared lookups, and the servers, one after the other."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dns.name
import dns.rdatatype
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.dns.cache import Answer, Cache, Key, Remembered
from mtatwist.dns.message import Reply, make_query
from mtatwist.dns.names import ascii_name, text_name, wire_name
from mtatwist.dns.network import Network, NoSocket, Server, ServerFailed, ServerSilent, ask
from mtatwist.dns.overrides import Overrides
from mtatwist.dns.servers import Servers

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

WAITING = 5000
"""Lookups under way or waiting; more are told at once that there is trouble."""

ROUNDS = (2.0, 4.0, 8.0, 16.0)
"""Seconds that a server is given in each round through the servers."""

MAX_CNAMES = 12
"""CNAMEs that are followed for one answer."""

STALE_SECONDS = 1.8
"""How long the DNS may take before an old answer is given instead (RFC 8767 §5)."""

_NEVER_ASKED = ("invalid", "onion")
"""Top levels that the DNS does not have (RFC 6761 §6.4, RFC 7686 §2)."""


class DnsTrouble(Exception):
    """Nothing can be said about the name now; the message says why. Trying again later may help."""


class Resolver:
    """Gives answers, or raises DnsTrouble within its deadline."""

    def __init__(
        self,
        *,
        servers: Servers,
        overrides: Overrides,
        cache: Cache,
        network: Network,
        clock: IReactorTime,
        metrics: Instruments,
        seconds: float,
        in_flight: int,
        trust_ad: bool = False,
    ) -> None:
        """``seconds``: for a lookup in all. ``in_flight``: how many ask at once, with a file descriptor
        each; others wait their turn. ``trust_ad``: the AD bit of ``servers`` can be believed."""
        self.overrides = overrides
        self._servers = servers
        self._cache = cache
        self._network = network
        self._clock = clock
        self._metrics = metrics
        self._seconds = seconds
        self._trust_ad = trust_ad
        self._slots = DeferredSemaphore(in_flight)
        self._under_way: dict[Key, _Lookup] = {}

    def become(self, other: Resolver, *, forget: bool) -> None:
        """Ask as ``other`` would from now on. With ``forget`` nothing is remembered any more, else all that was.
        Lookups under way end as they began; overrides that were set by hand stay."""
        self.overrides.become(other.overrides)
        self._servers = other._servers
        self._seconds = other._seconds
        self._trust_ad = other._trust_ad
        self._slots = other._slots
        if forget:
            # Not only emptied: what is under way must not come into it.
            self._cache.clear()
            self._cache = other._cache
        else:
            self._cache.become(other._cache)

    async def lookup(self, name: str, type: str, *, refresh: bool = False) -> Answer:
        """The answer for ``name`` and ``type`` ("MX", "A" ...). ``refresh``: not from what is remembered.

        Raises BadName for what is no name, and DnsTrouble.
        """
        key = Key(ascii_name(name), type)
        fixed = self.overrides.answer(key) or _never_asked(key)
        if fixed is not None:
            return fixed
        entry = None if refresh else self._cache.get(key)
        now = self._clock.seconds()
        old: Answer | None = None
        if entry is not None:
            if entry.answer is not None and now < entry.fresh_until:
                self._metrics.dns_cache_hits.value += 1
                return entry.answer
            old = entry.answer if now < entry.stale_until else None
            if now < entry.failed_until:
                return self._stale(old, DnsTrouble(entry.trouble))
        try:
            return await self._join(key, STALE_SECONDS if old is not None else None)
        except TimeoutError:
            return self._stale(old, DnsTrouble("no DNS server answers"))
        except DnsTrouble as trouble:
            return self._stale(old, trouble)

    def left(self, answer: Answer) -> float | None:
        """Seconds until this answer is over its time (negative: since); None: it is not remembered."""
        return self._cache.left(answer.key)

    def remembered(self, limit: int, after: Key | None = None) -> list[Remembered]:
        """The first ``limit`` entries of the cache behind the key ``after``, in the order of their keys."""
        return self._cache.remembered(limit, after)

    @property
    def servers(self) -> Sequence[tuple[Server, bool]]:
        """The servers that are asked, and whether each of them answers, as far as that is known."""
        return self._servers.known()

    def clear(self, name: str | None = None) -> int:
        """Forget what is remembered, of all names or of one; gives how many answers that were."""
        return self._cache.clear(None if name is None else ascii_name(name))

    def stop(self) -> None:
        """End the lookups under way."""
        for lookup in list(self._under_way.values()):
            lookup.work.cancel()

    def _stale(self, old: Answer | None, trouble: DnsTrouble) -> Answer:
        if old is None:
            raise trouble
        self._metrics.dns_stale.value += 1
        return old._replace(stale=True)

    def _join(self, key: Key, seconds: float | None) -> Deferred[Answer]:
        """Wait (``seconds`` at most) for the lookup of ``key``, which is begun unless it is under way."""
        lookup = self._under_way.get(key)
        if lookup is None:
            if len(self._under_way) >= WAITING:
                raise DnsTrouble("too many lookups at once")
            lookup = self._under_way[key] = _Lookup(self._clock.seconds())
            lookup.work = Deferred.fromCoroutine(self._resolve(key)).addTimeout(self._seconds, self._clock)
            lookup.work.addBoth(self._done, key, lookup, self._cache)
        return lookup.join(self._clock, seconds)

    def _done(self, result: Answer | Failure, key: Key, lookup: _Lookup, cache: Cache) -> None:
        del self._under_way[key]
        metrics = self._metrics
        metrics.dns_seconds.observe(self._clock.seconds() - lookup.began)
        if isinstance(result, Failure):
            metrics.dns_failed.value += 1
            if not result.check(DnsTrouble, TimeoutError, CancelledError):
                _log.failure("lookup_crashed", result, name=key.name, type=key.type)
            why = str(result.value) if result.check(DnsTrouble) else "no DNS server answers"
            cache.failed(key, why)
            lookup.end(why)
            return
        if result.records:
            metrics.dns_answered.value += 1
        else:
            metrics.dns_absent.value += 1
        cache.put(result)
        lookup.end(result)

    async def _resolve(self, key: Key) -> Answer:
        """Ask until the end of the CNAMEs."""
        type = dns.rdatatype.from_text(key.type)
        name = wire_name(key.name)
        cnames, ttl, secure, size = 0, float(2**31), True, 0
        while True:
            own = self.overrides.servers(text_name(name))
            async with self._slots:
                reply = await self._ask(own or self._servers, name, type, ask_ad=self._trust_ad and own is None)
            cnames += reply.cnames
            ttl = min(ttl, reply.ttl)
            secure = secure and reply.secure and self._trust_ad and own is None
            size += reply.size
            if not reply.unfinished:
                return Answer(key, reply.exists, reply.records, text_name(reply.canonical), secure, ttl, size)
            if cnames > MAX_CNAMES:
                raise DnsTrouble("too many CNAMEs")
            name = reply.canonical

    async def _ask(
        self, servers: Servers, name: dns.name.Name, type: dns.rdatatype.RdataType, *, ask_ad: bool
    ) -> Reply:
        """The reply of the first server that has an answer. Those that were silent are asked again, for longer."""
        why = "no DNS server is known"
        asked = servers.in_order()
        for seconds in ROUNDS:
            silent: list[Server] = []
            refused = False
            for server in asked:
                started = self._clock.seconds()
                try:
                    reply = await self._ask_one(server, name, type, seconds, ask_ad)
                except ServerFailed as failed:
                    servers.failed(server, started, str(failed))
                    why = f"{server}: {failed}"
                    if isinstance(failed, ServerSilent):
                        silent.append(server)
                except NoSocket as none:
                    raise DnsTrouble(f"no socket: {none}") from None
                else:
                    servers.heard(server)
                    if not reply.trouble:
                        return reply
                    refused = True
                    why = f"{server}: {reply.trouble}"
            if not silent or refused:
                break
            asked = silent
        raise DnsTrouble(why)

    async def _ask_one(
        self, server: Server, name: dns.name.Name, type: dns.rdatatype.RdataType, seconds: float, ask_ad: bool
    ) -> Reply:
        for edns in (True, False):
            query = make_query(name, type, secrets.randbelow(65536), edns=edns, ask_ad=ask_ad)
            reply = await ask(self._network, self._clock, server, query, seconds)
            if not reply.retry_plain:
                break
        return reply


class _Lookup:
    """One lookup, and all who wait for it."""

    work: Deferred[Any]

    def __init__(self, began: float) -> None:
        self.began = began
        self._waiting: list[Deferred[Answer]] = []
        self._result: Answer | str | None = None

    def join(self, clock: IReactorTime, seconds: float | None) -> Deferred[Answer]:
        """Wait with the others. To cancel it ends the waiting, not the lookup."""
        waiter: Deferred[Answer] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if self._result is not None:
            self.end(self._result)
        return waiter if seconds is None else waiter.addTimeout(seconds, clock)

    def end(self, result: Answer | str) -> None:
        """All get the answer, or hear of the trouble."""
        self._result = result
        while self._waiting:
            waiter = self._waiting.pop()
            if isinstance(result, str):
                waiter.errback(DnsTrouble(result))
            else:
                waiter.callback(result)


def _never_asked(key: Key) -> Answer | None:
    top = key.name.rpartition(".")[2]
    return Answer(key, False, (), key.name) if top in _NEVER_ASKED else None
