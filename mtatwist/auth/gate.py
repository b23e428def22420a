"""The lockout before another checker of passwords: it is only asked about those who may guess on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.auth.client import Client, client, counted_name
from mtatwist.auth.credentials import (
    AuthUnavailable,
    IHopelessLogin,
    ILogin,
    INamingChecker,
    ITryingChecker,
    WrongPassword,
)
from mtatwist.auth.durable import DurableLockout
from mtatwist.auth.guess import SAME_AS_BEFORE, WRONG, Guess, LockedOut, Repeated
from mtatwist.auth.lockout import Kind, Lock, Lockout
from mtatwist.auth.names import Names
from mtatwist.auth.pace import LONGEST, Pace
from mtatwist.auth.repeats import Repeats
from mtatwist.auth.tally import Subject
from mtatwist.auth.turns import Turns
from mtatwist.transaction import Account

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

UNDER_WAY = 4096
"""Logins that may be under way, those whose refusal waits for its time included."""

PER_NETWORK = 16
"""Logins from one network that the checker is asked about at the same time: a quarter of what the password file's
threads take on (auth.passwd.WAITING), so that nobody's flood takes all of it. The others wait their turn."""


@implementer(ICredentialsChecker)
class Gate:
    """A checker for ILogin that asks another one, unless the lockout forbids it. What is hopeless it refuses itself.

    A wrong password, an unknown user and a locked account end alike: UnauthorizedLogin, after the same time, when what
    it changed is on stable storage; its message is for the log. Everything that is no answer to "is this the
    password?" is AuthUnavailable, and counts for nothing.
    """

    credentialInterfaces = (ILogin, IHopelessLogin)

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
        self._clock = clock
        self._now = now
        self._metrics = metrics
        self._durable = DurableLockout(lockout, submit=submit, clock=clock, now=now, metrics=metrics)
        self._pace = Pace(forgotten_after)
        self._repeats = Repeats()
        self._names = Names()
        self._turns = Turns(clock)
        self._under_way = 0

    def use(self, checker: Any) -> None:
        """From now on this one is asked. What another called wrong, and whose a name was, it may see otherwise."""
        self._checker = checker
        self._repeats.clear()
        self._names = Names()

    def limit(self, *, threshold: int, window: float, duration: float, address_threshold: int) -> None:
        """See Lockout.limit()."""
        self._lockout.limit(threshold=threshold, window=window, duration=duration, address_threshold=address_threshold)
        self._pace.forgotten_after = window

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """(ICredentialsChecker) What the checker gives. Fires with UnauthorizedLogin or AuthUnavailable.

        To cancel it is only not to be told, once the checker is asked: who hangs up before a no has not guessed for
        nothing.
        """
        given = client(credentials.user, credentials.peer)
        guess = Guess(credentials, given, self._clock.seconds())
        told: Deferred[Any] = Deferred(lambda _: guess.give_up())

        def tell(result: Any) -> None:
            if not guess.gone:
                told.callback(result)
            elif isinstance(result, Failure) and result.check(UnauthorizedLogin) and guess.asked:
                _log.info(
                    "login_refused",
                    session=credentials.session,
                    peer=credentials.peer,
                    user=credentials.user,
                    reason=f"{result.getErrorMessage()}; the client has hung up",
                )

        Deferred.fromCoroutine(self._enter(guess)).addBoth(tell)
        return told

    async def _enter(self, guess: Guess) -> Any:
        if self._under_way >= UNDER_WAY:
            raise AuthUnavailable("too many logins are under way")
        self._under_way += 1
        try:
            return await self._judge(guess)
        finally:
            self._under_way -= 1

    async def _judge(self, guess: Guess) -> Any:
        await self._durable.restore()
        try:
            return await self._answer(guess)
        except LockedOut as error:
            self._metrics.lockout_refused.value += 1
            why = str(error)
        except (UnauthorizedLogin, LoginDenied, Repeated) as error:
            why = str(error) or WRONG
        # Those who changed nothing go this way, too: the store's trouble must not tell them apart.
        await self._durable.save()
        now = self._clock.seconds()
        if guess.asked:
            self._pace.took(now - guess.since, now)
        # By the name that was given: by the account's, the delay would tell which names it has.
        left = guess.since + self._pace.refused(guess.given, now) - now
        if left > 0 and not guess.gone:
            await deferLater(self._clock, left)
        # Only the log gets to see the reason.
        raise UnauthorizedLogin(why)

    async def _answer(self, guess: Guess) -> Any:
        """Raises LockedOut, Repeated, UnauthorizedLogin, LoginDenied; AuthUnavailable for everything else that is no
        avatar."""
        if IHopelessLogin.providedBy(guess.login):
            raise UnauthorizedLogin(guess.login.reason)
        given = guess.given
        who = given._replace(account=self._names.account(given.account))
        try:
            await self._turn(guess, who, _subjects(who))
            try:
                avatar = await self._ask(guess, who)
            except (UnauthorizedLogin, LoginDenied) as error:
                guess.asked = True
                owner = self._named(given, who, error.account if isinstance(error, WrongPassword) else "")
                self._repeats.add(owner, guess.login.secret, self._clock.seconds())
                if not self._count(guess.login, owner):
                    raise UnauthorizedLogin(SAME_AS_BEFORE) from None
                raise
            guess.asked = True
            owner = self._named(given, who, avatar.name if isinstance(avatar, Account) else "")
            self._welcome(guess, owner)
            return avatar
        finally:
            self._turns.leave(guess.taken)

    def _named(self, given: Client, who: Client, name: str) -> Client:
        """Whose login it was, now that the checker has said so. Raises LockedOut if we should not have asked."""
        owner = self._owner(given, who, name)
        # Under other names of the account there may have been more at the same time.
        closed = self._lockout.closed(owner, self._now())
        if closed is not None:
            raise LockedOut(closed)
        return owner

    def _owner(self, given: Client, who: Client, name: str) -> Client:
        if not name:
            return who
        owner = given._replace(account=counted_name(name))
        self._names.learn(given.account, owner.account)
        return owner

    async def _turn(self, guess: Guess, who: Client, subjects: Sequence[Subject]) -> None:
        """Wait until this password may be looked at, as far as these subjects go. Raises LockedOut, Repeated,
        AuthUnavailable."""
        while True:
            now = self._now()
            self._lockout.sweep(now)
            closed = self._lockout.closed(who, now)
            if closed is not None:
                raise LockedOut(closed)
            if self._repeats.has(who, guess.login.secret, self._clock.seconds()):
                raise Repeated
            leeway = [*self._lockout.leeway(who, now), (("", who.network), PER_NETWORK)]
            blocked = self._turns.blocked(each for each in leeway if each[0] in subjects)
            if blocked is None:
                self._turns.take(subjects)
                guess.taken += subjects
                return
            await self._wait(guess, blocked)

    async def _wait(self, guess: Guess, blocked: Subject) -> None:
        began = self._clock.seconds()
        if guess.gone:
            raise AuthUnavailable("nobody waits for it")
        guess.waiting = self._turns.wait(blocked, max(guess.deadline - began, 0))
        try:
            await guess.waiting
        except Late:
            raise AuthUnavailable("too many logins with this name or from this address are under way") from None
        except CancelledError:
            raise AuthUnavailable("nobody waits for it") from None
        finally:
            guess.waiting = None
            guess.since += self._clock.seconds() - began

    async def _ask(self, guess: Guess, who: Client) -> Any:
        """Raises LockedOut, Repeated, UnauthorizedLogin, LoginDenied; AuthUnavailable for everything else that is no
        avatar."""
        login = guess.login

        async def named(name: str) -> None:
            owner = self._owner(guess.given, who, name)
            if owner != who:
                # The address has been counted under the other name.
                await self._turn(guess, owner, _subjects(owner)[:2])

        if INamingChecker.providedBy(self._checker):
            answer = maybeDeferred(self._checker.check, login, named)
        else:
            answer = maybeDeferred(self._checker.requestAvatarId, login)
        return await self._in_time(answer, login, max(guess.deadline - self._clock.seconds(), 0))

    async def _in_time(self, answer: Deferred[Any], login: Any, seconds: float) -> Any:
        """The checker's answer, or AuthUnavailable for everything that is none."""
        try:
            return await answer.addTimeout(seconds, self._clock)
        except (AuthUnavailable, UnauthorizedLogin, LoginDenied, LockedOut, Repeated):
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

    def _welcome(self, guess: Guess, who: Client) -> None:
        """The right password. Nobody waits until that is on the disk."""
        now = self._clock.seconds()
        self._pace.took(now - guess.since, now)
        self._pace.succeeded(who)
        self._lockout.succeeded(who, self._now())
        self._durable.save_soon()

    # For whoever administers the server.

    async def locks(self, *, user: str = "", limit: int | None = None, after: Lock | None = None) -> Sequence[Lock]:
        """Those that have not ended: see Lockout.locks(). Raises AuthUnavailable."""
        return await self._durable.locks(user=self._counted(user), limit=limit, after=after)

    async def unlock(self, user: str = "", address: str = "") -> Sequence[Lock]:
        """End the locks of a user, of an address, or with both of that pair, and forget what was counted: the locks
        there were. Raises AuthUnavailable."""
        self._repeats.clear()
        return await self._durable.unlock(self._counted(user), address)

    async def try_out(self, login: ILogin) -> Any:
        """What the checker gives, whatever is locked; it counts for nothing, and goes into no log.

        Raises UnauthorizedLogin or LoginDenied; AuthUnavailable for everything else that is no avatar.
        """
        checker = self._checker
        try_out = checker.try_out if ITryingChecker.providedBy(checker) else checker.requestAvatarId
        return await self._in_time(maybeDeferred(try_out, login), login, LONGEST)

    def _counted(self, user: str) -> str:
        """As locks have it."""
        return self._names.account(counted_name(user)) if user else ""


def _subjects(who: Client) -> tuple[Subject, ...]:
    return (who.account, ""), (who.account, who.network), ("", who.network)
