"""Logins that were right a while ago, for when the directory is away (``auth.ldap.offline_cache``)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mtatwist.auth import hashes
from mtatwist.auth.client import counted_network, fingerprint
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
"""Different wrong passwords of one user that one network may try: there is no lockout for what nobody can tell to be
wrong."""

STRANGERS_GUESSES = 10
"""As many may be tried by all networks together from which that user has not logged in."""

NAMES = 8
NETWORKS = 16
"""Names under which one user has logged in, and networks from which: the last of them are remembered."""

REPLY_STEP = 0.5
"""Whoever is not let in hears so after this many seconds, or a multiple of it: less than a hash takes would tell that
the user is not remembered."""


class _Threads(ThreadPool):
    """What they do is of no use to a server that ends."""

    threadFactory = staticmethod(partial(threading.Thread, daemon=True))  # type: ignore[assignment]


class _Known:
    """A user who logged in at ``since``, with a password that has this ``hash``."""

    __slots__ = ("account", "hash", "names", "networks", "since", "tried")

    def __init__(self, hash: str, account: Account, since: float) -> None:
        self.hash = hash
        self.account = account
        self.since = since
        # The one used last is the last one.
        self.names: dict[str, None] = {}
        self.networks: dict[str, None] = {}
        # By network: what tells one password that was not right from another one.
        self.tried: dict[str, set[str]] = {}

    def may_try(self, network: str, mark: str) -> bool:
        """Whether this password is looked at; if so, it counts until it turns out to be right."""
        tried = self.tried.setdefault(network, set())
        if mark in tried:
            return True
        strange = sum(len(marks) for other, marks in self.tried.items() if other not in self.networks)
        if len(tried) >= GUESSES or (network not in self.networks and strange >= STRANGERS_GUESSES):
            if not tried:
                del self.tried[network]
            return False
        tried.add(mark)
        return True


class OfflineCache:
    """Remembers who logged in with which password, as salted argon2 hashes in memory, and for a limited time.

    It only ever says that a login is right. What it does not know may be right as well: nobody can tell.
    """

    def __init__(self, *, seconds: float, reactor: Any, metrics: Instruments) -> None:
        """``seconds``: how long a login is remembered. ``reactor``: IReactorFromThreads and IReactorTime."""
        hashes.load_libraries()
        self._seconds = seconds
        self._reactor = reactor
        self._metrics = metrics
        self._key = secrets.token_bytes(32)
        # By the account's name; and that, by the names that users give.
        self._known: dict[str, _Known] = {}
        self._accounts: dict[str, str] = {}
        # What is being hashed, by the account's name.
        self._hashing: dict[str, Login] = {}
        self._waiting = 0
        self._pool: ThreadPool | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, login: Login, account: Account) -> None:
        """This login was right, says the directory."""
        now = self._reactor.seconds()
        name = account.name
        known = self._known.get(name)
        if known is not None:
            self._meet(known, login)
            if 0 <= now - known.since < min(HASH_AGAIN_SECONDS, self._seconds):
                known.account = account
                return
        if name in self._hashing:
            return
        self._hashing[name] = login

        def hashed(hash: Any) -> None:
            # Meanwhile it was found to be wrong.
            if self._hashing.get(name) is not login:
                return
            del self._hashing[name]
            if not isinstance(hash, str):
                self._drop(name)
                return
            before = self._known.pop(name, None)
            new = self._known[name] = _Known(hash, account, now)
            if before is not None:
                new.names, new.networks = before.names, before.networks
            self._meet(new, login)
            if len(self._known) > ENTRIES:
                self._drop(next(iter(self._known)))

        self._in_thread(lambda: hashes.make(login.secret)).addCallback(hashed)

    def refused(self, login: Login, name: str) -> None:
        """The password is not that of the account of this name, says the directory: if it is what is remembered, it was
        changed, and is forgotten. Others are guesses, which would make anybody forget everybody."""
        hashing = self._hashing.get(name)
        if hashing is not None and hashing.secret == login.secret:
            del self._hashing[name]
        known = self._known.get(name)
        if known is None:
            return

        def verified(matches: Any) -> None:
            if matches and self._known.get(name) is known:
                self._drop(name)

        self._in_thread(lambda: hashes.verify(login.secret, known.hash)).addCallback(verified)

    def forget(self, user: str) -> None:
        """Nobody with this name may log in, whatever the password is, says the directory."""
        name = self._accounts.get(user)
        if name is None:
            name = next((name for name, login in self._hashing.items() if login.user == user), user)
        self._hashing.pop(name, None)
        self._drop(name)

    async def judge(self, login: Login) -> Account | None:
        """The account, if this very login was right a while ago; None: nobody can tell, and that is said after the same
        time for whatever reason."""
        started = self._reactor.seconds()
        account = await self._look(login)
        if account is None:
            taken = max(self._reactor.seconds() - started, 0.0)
            await deferLater(self._reactor, (taken // REPLY_STEP + 1) * REPLY_STEP - taken)
            return None
        self._metrics.auth_offline.value += 1
        _log.info("login_remembered", session=login.session, user=account.name)
        return account

    async def _look(self, login: Login) -> Account | None:
        name = self._accounts.get(login.user, login.user)
        known = self._known.get(name)
        if known is not None and not 0 <= self._reactor.seconds() - known.since < self._seconds:
            self._drop(name)
            known = None
        network, mark = counted_network(login.peer), fingerprint(self._key, name, login.secret)
        if known is None or not known.may_try(network, mark):
            # Its turn comes after as long a wait.
            await self._in_thread(lambda: None)
            return None
        if not await self._in_thread(lambda: hashes.verify(login.secret, known.hash)):
            return None
        known.tried.get(network, set()).discard(mark)
        return known.account if self._known.get(name) is known else None

    def _meet(self, known: _Known, login: Login) -> None:
        """A login of this user's was right."""
        known.tried.clear()
        _put_last(known.networks, counted_network(login.peer), NETWORKS)
        self._accounts[login.user] = known.account.name
        for user in _put_last(known.names, login.user, NAMES):
            self._unname(user, known.account.name)

    def _drop(self, name: str) -> None:
        known = self._known.pop(name, None)
        for user in known.names if known is not None else ():
            self._unname(user, name)

    def _unname(self, user: str, name: str) -> None:
        # It may have become somebody else's.
        if self._accounts.get(user) == name:
            del self._accounts[user]

    def stop(self) -> None:
        """Forget all, and end the threads."""
        self._stopped = True
        self._known.clear()
        self._accounts.clear()
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


def _put_last(table: dict[str, None], key: str, limit: int) -> Sequence[str]:
    """Those that had to go."""
    table.pop(key, None)
    table[key] = None
    gone = list(table)[:-limit]
    for each in gone:
        del table[each]
    return gone
