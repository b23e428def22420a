"""What a login brings, and how a checker says no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from zope.interface import Attribute, implementer


class ILogin(IUsernamePassword):
    """A name and a password, and where they come from."""

    user: str = Attribute("The name as the user gave it, prepared (RFC 8265); never empty.")
    secret: str = Attribute("The password, prepared (RFC 8265); never empty.")
    peer: str = Attribute("The client's IP address, empty where it has none.")
    session: str = Attribute("The id of the session, for the log.")


@implementer(ILogin)
@dataclass(frozen=True, slots=True)
class Login:
    """One try to log in. A checker of twisted.cred's that knows only names and passwords can use it, too."""

    user: str
    secret: str = field(repr=False)
    peer: str = ""
    session: str = ""

    @property
    def username(self) -> bytes:
        """(IUsernamePassword)"""
        return self.user.encode()

    @property
    def password(self) -> bytes:
        """(IUsernamePassword)"""
        return self.secret.encode()

    def checkPassword(self, password: bytes) -> bool:
        """(IUsernamePassword)"""
        return password == self.password


class IHopelessLogin(ICredentials):
    """One try to log in that can't be right, whoever would be asked."""

    user: str = Attribute("The name as the user gave it, for the log.")
    peer: str = Attribute("See ILogin.")
    session: str = Attribute("See ILogin.")
    reason: str = Attribute("What is wrong with it, for the log.")


@implementer(IHopelessLogin)
@dataclass(frozen=True, slots=True)
class HopelessLogin:
    """It is refused like any other one, after the same time; so nobody learns which of the two it was."""

    user: str
    peer: str
    session: str
    reason: str


class AuthUnavailable(LoginFailed):
    """Nobody can tell now whether this login is right: 454 4.7.0, and never a counted failure.

    A wrong name or password is twisted.cred's UnauthorizedLogin, whatever is wrong with it; see WrongPassword.
    """


class WrongPassword(UnauthorizedLogin):
    """There is such an account, and this is not its password. ``account`` is its name, as Account.name has it: so the
    lockout counts what is tried under any of its names together. Nobody else is to learn that there is one.
    """

    def __init__(self, account: str) -> None:
        super().__init__("wrong password")
        self.account = account


class ITryingChecker(ICredentialsChecker):
    """Knows more than whoever is asked behind it, or remembers what that has said."""

    def try_out(login: ILogin) -> Any:
        """As requestAvatarId(), but it only tells how it is now: nothing that is remembered counts, and nothing is
        remembered."""


class INamingChecker(ICredentialsChecker):
    """Knows whose name it is before it looks at the password."""

    def check(login: ILogin, named: Callable[[str], Awaitable[None]]) -> Any:
        """As requestAvatarId(). Before the password is looked at, ``named`` is awaited with the account's name, as
        Account.name has it; what it raises ends the login as it is."""
