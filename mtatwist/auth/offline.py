"""Logins that were right a while ago, for when the directory is away (``auth.ldap.offline_cache``)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from passlib import hash as passlib
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mtatwist.auth.credentials import Login
from mtatwist.transaction import Account

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

ENTRIES = 10_000
"""Users that are remembered; beyond that, those who logged in longest ago are forgotten."""

THREADS = 2
WAITING = 64
"""Hashes that wait for a thread. Whoever comes then is not remembered, and not found."""

HASH_AGAIN_SECONDS = 300.0
"""A password that was right so short a time ago is not hashed again: devices log in all the time."""

GUESSES = 3
"""Wrong passwords after which a user is forgotten: there is no lockout for what nobody can tell to be wrong."""

# Half of a tenth of a second, and 19 MiB.
_SCHEME = passlib.argon2.using(type="ID", memory_cost=19456, time_cost=2, parallelism=1)


class _Threads(ThreadPool):
    """What they do is of no use to a server that ends."""

    threadFactory = staticmethod(partial(threading.Thread, daemon=True))  # type: ignore[assignment]


class _Known:
    """A user who logged in at ``since``, with a password that has this ``hash``."""

    __slots__ = ("account", "guesses", "hash", "since")

    def __init__(self, hash: str, account: Account, since: float) -> None:
        self.hash = hash
        self.account = account
        self.since = since
        self.guesses = GUESSES


class OfflineCache:
    """Remembers who logged in with which password, as salted argon2 hashes in memory, and for a limited time.

    It only ever says that a login is right. What it does not know may be right as well: nobody can tell.
    """

    def __init__(self, *, seconds: float, reactor: Any, metrics: Instruments) -> None:
        """``seconds``: how long a login is remembered. ``reactor``: IReactorFromThreads and IReactorTime."""
        self._seconds = seconds
        self._reactor = reactor
        self._metrics = metrics
        self._known: dict[str, _Known] = {}
        # Who is being hashed: a failure in between counts for them, too.
        self._hashing: dict[str, object] = {}
        self._waiting = 0
        self._pool: ThreadPool | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, login: Login, account: Account) -> None:
        """This login was right, says the directory."""
        now = self._reactor.seconds()
        known = self._known.get(login.user)
        if known is not None and 0 <= now - known.since < min(HASH_AGAIN_SECONDS, self._seconds):
            known.account = account
            return
        if login.user in self._hashing:
            return
        mark = self._hashing[login.user] = object()

        def hashed(hash: Any) -> None:
            # A failure came after it.
            if self._hashing.get(login.user) is not mark:
                return
            del self._hashing[login.user]
            self._known.pop(login.user, None)
            if isinstance(hash, str):
                self._known[login.user] = _Known(hash, account, now)
                if len(self._known) > ENTRIES:
                    del self._known[next(iter(self._known))]

        self._in_thread(lambda: _SCHEME.hash(login.secret)).addCallback(hashed)

    def forget(self, user: str) -> None:
        """A login with this name was wrong, says the directory."""
        self._known.pop(user, None)
        self._hashing.pop(user, None)

    async def judge(self, login: Login) -> Account | None:
        """The account, if this very login was right a while ago; None: nobody can tell."""
        known = self._known.get(login.user)
        if known is None:
            return None
        if not 0 <= self._reactor.seconds() - known.since < self._seconds or known.guesses <= 0:
            del self._known[login.user]
            return None
        known.guesses -= 1
        if not await self._in_thread(lambda: _SCHEME.verify(login.secret, known.hash)):
            return None
        # As if it had not been a guess.
        known.guesses = min(known.guesses + 1, GUESSES)
        if self._known.get(login.user) is not known:
            return None
        self._metrics.auth_offline.value += 1
        _log.info("login_remembered", session=login.session, user=known.account.name)
        return known.account

    def stop(self) -> None:
        """Forget all, and end the threads."""
        self._stopped = True
        self._known.clear()
        self._hashing.clear()
        pool, self._pool = self._pool, None
        if pool is not None:
            # It waits for what is under way, so not here.
            threading.Thread(target=pool.stop, daemon=True).start()

    def _in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """What ``work`` gives; None where it can't be done."""
        if self._waiting >= WAITING + THREADS or self._stopped:
            return succeed(None)
        if self._pool is None:
            self._pool = _Threads(0, THREADS, name="mtatwist-offline")
            self._pool.start()
        self._waiting += 1

        def done(result: Any) -> Any:
            self._waiting -= 1
            if isinstance(result, Failure):
                _log.failure("offline_cache_failed", result)
                return None
            return result

        return deferToThreadPool(self._reactor, self._pool, work).addBoth(done)
