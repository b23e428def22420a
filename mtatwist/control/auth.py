"""The verbs about those who log in: who is locked out, ending that, and trying a password."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mtatwist.auth.client import NOWHERE
from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.lockout import Kind, Lock
from mtatwist.auth.prepare import prepare_name, prepare_password
from mtatwist.control.commands import (
    AuthLocks,
    AuthTest,
    AuthUnlock,
    BadArgument,
    ControlCommand,
    NotFound,
    Unavailable,
)
from mtatwist.control.connection import Responder
from mtatwist.control.paging import page
from mtatwist.transaction import Account

LISTED = 500
"""Locks that are looked at for one page: so many fit into it."""

NAMED = 100
"""Locks that are named of those that were ended; and as many addresses that somebody may send as."""

LOCKS_OF_ONE = 20
"""Locks that are named of one who is tried."""

REFUSED_SECONDS = 1.0
"""How long at least it takes to hear that a password is not right: this is no way to guess one."""


class Gate(Protocol):
    """What is asked: see auth.gate."""

    def locks(
        self, *, user: str = "", limit: int | None = None, after: Lock | None = None
    ) -> Awaitable[Sequence[Lock]]:
        """Those that have not ended."""

    def unlock(self, user: str = "", address: str = "") -> Awaitable[Sequence[Lock]]:
        """End some."""

    def try_out(self, login: Login) -> Awaitable[Any]:
        """Whose login it is, with nothing counted."""


class AuthVerbs:
    """Looks at the lockout for those who ask, and changes it for those who may."""

    def __init__(
        self,
        gate: Callable[[], Gate | None],
        *,
        clock: IReactorTime,
        queue_time: Callable[[], float],
        shown: Callable[[float], float],
    ) -> None:
        """``gate`` is the one that is in use now, None: nobody can log in. ``shown`` makes the machine's time of the
        queue's."""
        self._gate_now = gate
        self._clock = clock
        self._queue_time = queue_time
        self._shown = shown
        self._trying = False

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {AuthLocks: self._locks, AuthUnlock: self._unlock, AuthTest: self._test}

    @property
    def _gate(self) -> Gate:
        gate = self._gate_now()
        if gate is None:
            raise NotFound('nobody can log in here: there is no listener with role = "submission"')
        return gate

    async def _locks(self, after: str | None) -> dict[str, Any]:
        try:
            locks = await self._gate.locks(limit=LISTED, after=None if after is None else _lock(after))
        except AuthUnavailable as error:
            raise Unavailable(str(error)) from None
        rows = [(_cursor(lock), self._row(lock)) for lock in locks]
        return page(rows, rows[-1][0] if len(rows) == LISTED else None)

    async def _unlock(self, user: str | None, address: str | None) -> dict[str, Any]:
        if not user and not address:
            raise BadArgument("say whose locks are meant: a user, an address, or both")
        if address:
            _check_network(address)
        try:
            ended = await self._gate.unlock(user or "", address or "")
        except AuthUnavailable as error:
            raise Unavailable(str(error)) from None
        return {"count": len(ended), "unlocked": [self._row(lock) for lock in ended[:NAMED]]}

    async def _test(self, user: str, password: str) -> dict[str, Any]:
        if self._trying:
            raise Unavailable("somebody else is being tried: one at a time")
        gate, began = self._gate, self._clock.seconds()
        self._trying = True
        try:
            outcome, account = await self._judge(gate, user, password)
            left = began + REFUSED_SECONDS - self._clock.seconds()
            if outcome != "let in" and left > 0:
                await deferLater(self._clock, left)
        finally:
            self._trying = False
        return {"outcome": outcome, "account": account}

    async def _judge(self, gate: Gate, user: str, password: str) -> tuple[str, dict[str, Any]]:
        """What came of it, in a word, and all about it."""
        account, reason, outcome = None, "", "let in"
        try:
            user = prepare_name(user)
            known = await gate.try_out(Login(user, prepare_password(password), session="control"))
            account = known if isinstance(known, Account) else Account(str(known))
        except (UnauthorizedLogin, LoginDenied) as error:
            outcome, reason = "refused", str(error) or "wrong name or password"
        except LoginFailed as error:
            outcome, reason = "unavailable", str(error)
        try:
            locks = await gate.locks(user=account.name if account else user, limit=LOCKS_OF_ONE)
        except AuthUnavailable as error:
            locks = []
            reason = f"{reason}; {error}" if reason else str(error)
        addresses = sorted(account.addresses) if account else []
        return outcome, {
            "user": user,
            "account": account.name if account else None,
            "addresses": addresses[:NAMED],
            "more_addresses": len(addresses[NAMED:]),
            "reason": reason or None,
            "locks": [self._row(lock) for lock in locks],
        }

    def _row(self, lock: Lock) -> dict[str, Any]:
        """docs/administration.rst tells what stands in it."""
        return {
            "kind": lock.kind.value,
            "user": lock.user or None,
            "address": lock.address or None,
            "until": round(self._shown(lock.until), 3),
            "left": round(lock.until - self._queue_time(), 1),
        }


def _check_network(address: str) -> None:
    """Is it one that locks are on? Raises BadArgument."""
    host = address.partition("/")[0]
    try:
        if host != NOWHERE:
            ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise BadArgument(f"{address[:100]!r} is no IP address, nor {NOWHERE!r}") from None


def _cursor(lock: Lock) -> str:
    return orjson.dumps([lock.kind.value, *lock[1:]]).decode()


def _lock(cursor: str) -> Lock:
    """Where a page begins: behind this. Raises BadArgument."""
    try:
        kind, user, address, until = orjson.loads(cursor)
        if not isinstance(user, str) or not isinstance(address, str):
            raise ValueError
        return Lock(Kind(kind), user, address, float(until))
    except (ValueError, TypeError):
        raise BadArgument("that is no cursor of this list") from None
