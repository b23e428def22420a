"""A checker of logins: it asks somebody else who knows the passwords."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mtatwist.auth.credentials import AuthUnavailable, ILogin, Login
from mtatwist.transaction import Account


@implementer(ICredentialsChecker)
class AskSomebody:
    """``ask`` gives the addresses of who logs in, None where the login is wrong, and raises OSError when it is away."""

    credentialInterfaces = (ILogin,)

    def __init__(self, ask: Callable[[str, str], Awaitable[list[str] | None]]) -> None:
        self._ask = ask

    def requestAvatarId(self, credentials: Login) -> Deferred[Any]:
        """(ICredentialsChecker) Nothing here may block: what does belongs to a bounded thread pool, with a deadline."""
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, login: Login) -> Account:
        try:
            addresses = await self._ask(login.user, login.secret)
        except OSError as error:
            raise AuthUnavailable(str(error)) from None
        if addresses is None:
            raise UnauthorizedLogin
        return Account(login.user, frozenset(addresses))
