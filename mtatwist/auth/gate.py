"""The lockout before another checker of passwords: it is only asked about those who may guess on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.auth.client import Client, client, counted_name, counted_network
from mtatwist.auth.credentials import AuthUnavailable, ILogin, WrongPassword
from mtatwist.auth.lockout import Kind, Lock, Lockout
from mtatwist.auth.names import Names
from mtatwist.auth.pace import LONGEST, Pace
from mtatwist.auth.turns import Turns
from mtatwist.store import lockouts
from mtatwist.transaction import Account

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

UNDER_WAY = 4096
"""Logins that may be under way, those whose refusal waits for its time included."""

TIDY_SECONDS = 30.0
"""Time between two looks for what the lockout may forget, while there is anything."""


class _LockedOut(UnauthorizedLogin):
    """The lockout forbids it."""

    def __init__(self, by: Kind) -> None:
        super().__init__(f"locked out ({by.value})")


@implementer(ICredentialsChecker)
class Gate:
    """A checker for ILogin that asks another one, unless the lockout forbids it.

    A wrong password, an unknown user and a locked account end alike: UnauthorizedLogin, after the same time, when what
    it changed is on stable storage; its message is for the log. Everything that is no answer to "is this the
    password?" is AuthUnavailable, and counts for nothing.
    """

    credentialInterfaces = (ILogin,)

    def __init__(
        self,
        checker: Any,
        lockout: Lockout,
        *,
        submit: Callable[[Any, Any], Deferred[Any]],
        clock: IReactorTime,
        now: Callable[[], float],
        forgotten_after: float,
        metrics: Instruments,
    ) -> None:
        """``checker`` is asked about the passwords. ``submit`` has the store's writer do a job; ``clock`` is monotonic,
        ``now`` gives the queue's time; ``forgotten_after``: see Pace."""
        self._checker = checker
        self._lockout = lockout
        self._submit = submit
        self._clock = clock
        self._now = now
        self._metrics = metrics
        self._pace = Pace(forgotten_after)
        self._names = Names()
        self._turns = Turns(clock)
        self._under_way = 0
        self._restored = False
        self._timer: IDelayedCall | None = None

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """(ICredentialsChecker) What the checker gives. Fires with UnauthorizedLogin or AuthUnavailable.

        To cancel it is only not to be told: who hangs up before a no has not guessed for nothing.
        """
        told: Deferred[Any] = Deferred()
        Deferred.fromCoroutine(self._enter(credentials)).addBoth(told.callback)
        return told

    async def _enter(self, login: Any) -> Any:
        if self._under_way >= UNDER_WAY:
            raise AuthUnavailable("too many logins are under way")
        self._under_way += 1
        try:
            return await self._judge(login, client(login.user, login.peer), self._clock.seconds())
        finally:
            self._under_way -= 1

    async def _judge(self, login: Any, given: Client, started: float) -> Any:
        await self._restore()
        asked = True
        try:
            return await self._answer(login, given, started + LONGEST)
        except _LockedOut as error:
            self._metrics.lockout_refused.value += 1
            why, asked = str(error), False
        except (UnauthorizedLogin, LoginDenied) as error:
            why = str(error) or "wrong name or password"
        # Those who changed nothing go this way, too: the store's trouble must not tell them apart.
        await self._save()
        now = self._clock.seconds()
        if asked:
            self._pace.took(now - started, now)
        # By the name that was given: by the account's, the delay would tell which names it has.
        left = started + self._pace.refused(given, now) - now
        if left > 0:
            await deferLater(self._clock, left)
        # Only the log gets to see the reason.
        raise UnauthorizedLogin(why)

    async def _answer(self, login: Any, given: Client, deadline: float) -> Any:
        """Raises _LockedOut, UnauthorizedLogin, LoginDenied; AuthUnavailable for everything else that is no avatar."""
        who = given._replace(account=self._names.account(given.account))
        await self._turn(who, deadline)
        try:
            try:
                avatar = await self._ask(login, deadline)
            except (UnauthorizedLogin, LoginDenied) as error:
                owner = self._named(given, who, error.account if isinstance(error, WrongPassword) else "")
                if not self._count(login, owner):
                    raise UnauthorizedLogin(f"{str(error) or 'wrong name or password'}, the same as before") from None
                raise
            self._welcome(self._named(given, who, avatar.name if isinstance(avatar, Account) else ""))
            return avatar
        finally:
            self._turns.leave(_subjects(who))

    def _named(self, given: Client, who: Client, name: str) -> Client:
        """Whose login it was, now that the checker has said so. Raises _LockedOut if we should not have asked."""
        owner = given._replace(account=counted_name(name)) if name else who
        if name:
            self._names.learn(given.account, owner.account)
        # Under other names of the account there may have been more at the same time.
        closed = self._lockout.closed(owner, self._now())
        if closed is not None:
            raise _LockedOut(closed)
        return owner

    async def _turn(self, who: Client, deadline: float) -> None:
        """Wait until this password may be looked at. Raises _LockedOut, AuthUnavailable."""
        while True:
            now = self._now()
            self._lockout.sweep(now)
            closed = self._lockout.closed(who, now)
            if closed is not None:
                raise _LockedOut(closed)
            blocked = self._turns.blocked(self._lockout.leeway(who, now))
            if blocked is None:
                self._turns.take(_subjects(who))
                return
            try:
                await self._turns.wait(blocked, max(deadline - self._clock.seconds(), 0))
            except Late:
                raise AuthUnavailable("too many logins with this name or from this address are under way") from None

    async def _ask(self, login: Any, deadline: float) -> Any:
        """Raises UnauthorizedLogin, LoginDenied; AuthUnavailable for everything else that is no avatar."""
        try:
            answer = maybeDeferred(self._checker.requestAvatarId, login)
            return await answer.addTimeout(max(deadline - self._clock.seconds(), 0), self._clock)
        except (AuthUnavailable, UnauthorizedLogin, LoginDenied):
            raise
        except Late:
            raise AuthUnavailable("the answer took too long") from None
        except Exception as error:
            log = _log.warn if isinstance(error, LoginFailed) else _log.failure
            log("checker_failed", session=login.session, error=str(error))
            raise AuthUnavailable("the checker failed") from error

    def _count(self, login: Any, who: Client) -> bool:
        """A wrong password. Does it count?"""
        metrics = self._metrics
        locks = self._lockout.failed(who, login.secret, self._now())
        if locks is None:
            return False
        metrics.lockout_failures.value += 1
        for lock in locks:
            {
                Kind.ACCOUNT: metrics.lockout_accounts,
                Kind.PAIR: metrics.lockout_pairs,
                Kind.ADDRESS: metrics.lockout_addresses,
            }[lock.kind].value += 1
            _log.warn(
                "login_locked",
                kind=lock.kind.value,
                user=lock.user,
                address=lock.address,
                seconds=round(lock.until - self._now(), 3),
                session=login.session,
            )
        return True

    def _welcome(self, who: Client) -> None:
        """The right password. Nobody waits until that is on the disk."""
        self._pace.succeeded(who)
        self._lockout.succeeded(who, self._now())
        self._save_soon()

    # What is kept.

    async def _restore(self) -> None:
        """At the first login, begin with what an earlier run left. Raises AuthUnavailable."""
        if self._restored:
            return
        try:
            saved = await self._submit(lockouts.load, self._lockout.oldest(self._now()))
        except Exception as error:
            raise AuthUnavailable("the lockout can't be read") from error
        # Others may have waited for the same.
        if not self._restored:
            self._restored = True
            self._lockout.restore(saved, self._now())
            self._watch()

    async def _save(self) -> None:
        """Fires when all that has changed is on stable storage. Raises AuthUnavailable: what is not there may be
        forgotten, and must not be said."""
        changes = self._lockout.take_changes()
        self._watch()
        try:
            await self._submit(lockouts.save, changes)
        except Exception as error:
            self._lockout.give_back(changes)
            raise AuthUnavailable("the lockout can't be kept") from error

    def _save_soon(self) -> None:
        if not self._lockout.changed:
            return
        # The store has said what was wrong, and the changes are tried again with the next ones.
        Deferred.fromCoroutine(self._save()).addErrback(lambda failure: failure.trap(AuthUnavailable))

    def _watch(self) -> None:
        self._metrics.lockout_active.value = self._lockout.active
        if self._timer is None and not self._lockout.empty:
            self._timer = self._clock.callLater(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """Forget what has ended, though nobody logs in."""
        self._timer = None
        try:
            self._lockout.sweep(self._now())
            self._save_soon()
        except Exception:
            _log.failure("lockout_tidy_failed")
        self._watch()

    # For whoever administers the server.

    async def locks(self) -> Sequence[Lock]:
        """Those that have not ended. Raises AuthUnavailable."""
        await self._restore()
        return self._lockout.locks(self._now())

    async def unlock(self, user: str = "", address: str = "") -> Sequence[Lock]:
        """End the locks of a user, of an address, or with both of that pair, and forget what was counted: the locks
        there were. Raises AuthUnavailable."""
        await self._restore()
        name = self._names.account(counted_name(user)) if user else ""
        network = counted_network(address.partition("/")[0]) if address else ""
        ended = self._lockout.unlock(name, network, self._now())
        await self._save()
        return ended


def _subjects(who: Client) -> tuple[tuple[str, str], ...]:
    return (who.account, ""), (who.account, who.network), ("", who.network)
