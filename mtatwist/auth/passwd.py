"""Users from a file: the checker behind ``[auth] backend = "file"``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from threading import Lock
from typing import Any, NamedTuple

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mtatwist.auth import hashes, user_file
from mtatwist.auth.credentials import AuthUnavailable, ILogin, Login
from mtatwist.auth.user_file import Content, Mark, User, UserFileError
from mtatwist.transaction import Account

_log = Logger()

THREADS = 2
"""Hashes at the same time: each takes a core, and memory."""

WAITING = 64
"""Logins that are not yet answered: with argon2 the last of so many waits for a second or two; others come again."""

LOOK_SECONDS = 1.0
"""How often, at most, the file is looked at."""


class _Known(NamedTuple):
    """What the file says; ``decoys`` are the hashes that unknown names are held against."""

    users: Mapping[str, User] = {}
    decoys: tuple[str, ...] = ()


@implementer(ICredentialsChecker)
class PasswordFile:
    """Checks logins against the file, which may change at any time; what is broken then leaves all as it was.

    Everything but the counting happens in two threads. An unknown name costs the time of a known one.
    """

    credentialInterfaces = (ILogin,)

    def __init__(self, path: str, *, domains: Iterable[str], reactor: Any) -> None:
        """``domains``: ours, for users without addresses. ``reactor``: IReactorFromThreads and IReactorTime."""
        hashes.load_libraries()
        self.path = path
        self._domains = tuple(domains)
        self._reactor = reactor
        self._pool = ThreadPool(0, THREADS, name="mtatwist-passwords")
        # Not in the pool's queue, which nobody can leave.
        self._queue: dict[Deferred[Account], Login] = {}
        self._busy = 0
        self._stopping = False
        # Of the threads:
        self._lock = Lock()
        self._known = _Known()
        self._mark: Mark | int = 0
        self._look_again = 0.0
        self._key = os.urandom(16)

    def load(self) -> None:
        """Read the file, for the first time; in whatever thread. Raises UserFileError."""
        self._mark = user_file.mark(self.path)
        self._take(user_file.read(self.path))
        self._look_again = self._reactor.seconds() + LOOK_SECONDS

    def start(self) -> None:
        """Start the threads, after load()."""
        self._pool.start()

    def stop(self) -> None:
        """End the threads; logins that still wait are answered AuthUnavailable."""
        if self._stopping:
            return
        self._stopping = True
        queue, self._queue = self._queue, {}
        for answer in queue:
            answer.errback(AuthUnavailable("the server is stopping"))
        self._pool.stop()

    def requestAvatarId(self, credentials: Login) -> Deferred[Account]:  # type: ignore[override]
        """See ICredentialsChecker. Fails with UnauthorizedLogin or AuthUnavailable, and nothing else."""
        if self.waiting >= WAITING or self._stopping:
            _log.warn("users_busy", session=credentials.session, waiting=self.waiting)
            return fail(AuthUnavailable("too many logins at the same time"))
        answer: Deferred[Account] = Deferred(self._leave)
        self._queue[answer] = credentials
        self._next()
        return answer

    @property
    def waiting(self) -> int:
        """Logins that a thread has or will have to do with."""
        return len(self._queue) + self._busy

    def _leave(self, answer: Deferred[Account]) -> None:
        self._queue.pop(answer, None)

    def _next(self) -> None:
        """Give the threads what they have room for."""
        while self._queue and self._busy < THREADS:
            answer = next(iter(self._queue))
            login = self._queue.pop(answer)
            self._busy += 1
            deferToThreadPool(self._reactor, self._pool, self._check, login).addBoth(self._checked, answer, login)

    def _checked(self, result: Account | Failure | None, answer: Deferred[Account], login: Login) -> None:
        self._busy -= 1
        self._next()
        # Who has given up does not wait any more, but the thread was occupied until now.
        if answer.called:
            return
        if result is None:
            answer.errback(UnauthorizedLogin())
        elif isinstance(result, Failure):
            if not result.check(AuthUnavailable):
                _log.failure("users_check_failed", result, session=login.session)
            answer.errback(AuthUnavailable("the password could not be checked"))
        else:
            answer.callback(result)

    def _check(self, login: Login) -> Account | None:
        """In a thread: whose login it is, None where it is wrong. Raises AuthUnavailable."""
        known = self._current()
        user = known.users.get(login.user)
        if user is None or user.fault:
            self._spend(login, known.decoys)
            return None
        try:
            right = hashes.verify(login.secret, user.hash)
        except hashes.CannotVerify as error:
            _log.error("users_verify_failed", session=login.session, file=self.path, line=user.line, reason=str(error))
            raise AuthUnavailable(str(error)) from None
        return user.account(self._domains) if right else None

    def _spend(self, login: Login, decoys: tuple[str, ...]) -> None:
        """The work of a check, for nothing: of some user's hash, always the same one's for the same name."""
        if not decoys:
            hashes.make(login.secret[: hashes.MAX_PASSWORD])
            return
        digest = blake2b(login.username, key=self._key, digest_size=8).digest()
        try:
            hashes.verify(login.secret, decoys[int.from_bytes(digest) % len(decoys)])
        except hashes.CannotVerify as error:
            # What a user of this hash is told.
            raise AuthUnavailable(str(error)) from None

    def _current(self) -> _Known:
        """In a thread: what the file says now."""
        with self._lock:
            if self._reactor.seconds() >= self._look_again:
                self._look()
                self._look_again = self._reactor.seconds() + LOOK_SECONDS
            return self._known

    def _look(self) -> None:
        """Read the file again if it has changed since; each broken state of it is logged once."""
        mark = user_file.mark(self.path)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._take(user_file.read(self.path))
        except UserFileError as error:
            _log.error("users_file_broken", file=self.path, reason=str(error), users=len(self._known.users))

    def _take(self, content: Content) -> None:
        users = content.users
        self._known = _Known(users, tuple(user.hash for user in users.values() if not user.fault))
        _log.info("users_loaded", file=self.path, users=len(users))
        if content.exposed:
            _log.warn("users_file_exposed", file=self.path, cure=f"chmod o= {self.path}")
        lines = content.without_password()
        if lines:
            _log.warn("users_without_password", count=len(lines), lines=lines[: user_file.MAX_PROBLEMS])
