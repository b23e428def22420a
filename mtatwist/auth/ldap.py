"""Users from the LDAP directory: the checker behind ``[auth] backend = "ldap"``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.auth.credentials import (
    AuthUnavailable,
    ILogin,
    INamingChecker,
    ITryingChecker,
    Login,
    WrongPassword,
)
from mtatwist.auth.prepare import NAME_LIMIT, PASSWORD_LIMIT, Unprepared, prepare_name
from mtatwist.auth.user_file import address
from mtatwist.interfaces import DirectoryTrouble, IDirectory, IEntry
from mtatwist.transaction import Account

if TYPE_CHECKING:
    from mtatwist.auth.offline import OfflineCache

_log = Logger()

_T = TypeVar("_T")

GROUPS = 500
"""Groups and shared mailboxes of one user that are looked at."""

ADDRESSES = 5000
"""Addresses that one user has in all."""

_LOCKED_FOR_GOOD = "000001010000Z"
"""The value of pwdAccountLockedTime that no time ends (draft-behera-ldap-password-policy-10 §5.3.3). Others may be
over: the bind tells."""

_DISABLED = 0x2
"""ACCOUNTDISABLE, a bit of Active Directory's userAccountControl."""

_LOCKS = ("pwdAccountLockedTime", "userAccountControl", "nsAccountLock")

_TESTED = re.compile(r"\(\s*([A-Za-z][A-Za-z0-9;.-]*)\s*~?=[^()]*\{user\}")
_PLACE = re.compile(r"\{(user|dn)\}")


@implementer(INamingChecker, ITryingChecker)
class LdapChecker:
    """Finds the user with the service account, then binds as the user; docs/ldap.rst describes it."""

    credentialInterfaces = (ILogin,)

    def __init__(
        self,
        directory: IDirectory,
        *,
        user_filter: str,
        address_attributes: Sequence[str],
        group_filter: str | None,
        seconds: float,
        clock: IReactorTime,
        offline: OfflineCache | None = None,
    ) -> None:
        """``user_filter`` has {user} in it, ``group_filter`` {dn} or {user}. ``seconds``: for a login in all."""
        self._directory = directory
        self._user_filter = user_filter
        self._group_filter = group_filter
        self._addresses = tuple(address_attributes)
        # An account has one name, whichever of these it was found by.
        self._naming = tuple(dict.fromkeys(name.lower() for name in _TESTED.findall(user_filter)))
        self._wanted = [*dict.fromkeys([*self._addresses, *_TESTED.findall(user_filter), *_LOCKS])]
        self._seconds = seconds
        self._clock = clock
        self._offline = offline

    def requestAvatarId(self, credentials: Login) -> Deferred[Account]:  # type: ignore[override]
        """See ICredentialsChecker. Fails with UnauthorizedLogin or AuthUnavailable, and nothing else."""
        return self.check(credentials, _anybody)

    def check(self, login: Login, named: Callable[[str], Awaitable[None]]) -> Deferred[Account]:  # type: ignore[override]
        """See INamingChecker: the user is found before the bind."""
        return Deferred.fromCoroutine(self._judge(login, named))

    def try_out(self, login: Login) -> Deferred[Account]:  # type: ignore[override]
        """See ITryingChecker: only the directory is asked, and what is wrong with it is said."""
        return Deferred.fromCoroutine(self._try_out(login))

    async def _try_out(self, login: Login) -> Account:
        try:
            return await self._in_time(self._found_and_proven(login), self._seconds)
        except DirectoryTrouble as trouble:
            raise AuthUnavailable(str(trouble)) from None
        except Late:
            raise AuthUnavailable("the directory took too long") from None

    async def _found_and_proven(self, login: Login) -> Account:
        entry, name = await self._find(login)
        return await self._prove(login, entry, name)

    def stop(self) -> None:
        """End the threads that hash passwords."""
        if self._offline is not None:
            self._offline.stop()

    async def _judge(self, login: Login, named: Callable[[str], Awaitable[None]]) -> Account:
        if not _possible(login.user, NAME_LIMIT) or not _possible(login.secret, PASSWORD_LIMIT):
            raise UnauthorizedLogin
        try:
            begun = self._clock.seconds()
            entry, name = await self._in_time(self._find(login), self._seconds)
            left = self._seconds - (self._clock.seconds() - begun)
            # The wait for one's turn is no trouble of the directory's.
            await named(name)
            account = await self._in_time(self._prove(login, entry, name), left)
        except WrongPassword as wrong:
            if self._offline is not None:
                self._offline.refused(login, wrong.account)
            raise
        except (DirectoryTrouble, Late):
            # The directory has told the log why.
            remembered = await self._offline.judge(login) if self._offline is not None else None
            if remembered is None:
                raise AuthUnavailable("the directory gives no answer") from None
            return remembered
        if self._offline is not None:
            self._offline.remember(login, account)
        return account

    def _forget(self, login: Login) -> None:
        """Nobody logs in with this name, whatever the password is."""
        if self._offline is not None:
            self._offline.forget(login.user)

    async def _in_time(self, step: Coroutine[Deferred[Any], Any, _T], seconds: float) -> _T:
        return await Deferred.fromCoroutine(step).addTimeout(max(seconds, 0), self._clock)

    async def _find(self, login: Login) -> tuple[IEntry, str]:
        """Whose name it is: the entry, and the account's name. Raises UnauthorizedLogin, DirectoryTrouble."""
        entries = await self._directory.search(_filled(self._user_filter, user=login.user), self._wanted, 2)
        if len(entries) > 1:
            _log.error("user_ambiguous", session=login.session, user=login.user, entries=[one.dn for one in entries])
        if len(entries) != 1:
            self._forget(login)
            raise UnauthorizedLogin("several entries have that name" if entries else "nobody has that name")
        (entry,) = entries
        closed = _closed(entry)
        if closed:
            _log.info("user_closed", session=login.session, user=login.user, why=closed)
            self._forget(login)
            raise UnauthorizedLogin(f"the account is {closed}")
        name = self._name(entry)
        # What a user gives is prepared already, and that takes time.
        return entry, login.user if name.lower() in (login.user, "") else _prepared(name)

    async def _prove(self, login: Login, entry: IEntry, name: str) -> Account:
        """Raises WrongPassword, DirectoryTrouble."""
        if not await self._directory.bind(entry.dn, login.secret):
            raise WrongPassword(name)
        found = [entry]
        if self._group_filter is not None:
            found += await self._directory.search(
                _filled(self._group_filter, user=name, dn=entry.dn), self._addresses, GROUPS
            )
            if len(found) > GROUPS:
                _log.warn("user_in_many_groups", session=login.session, user=name, looked_at=GROUPS)
        return Account(name, self._addresses_of(found))

    def _name(self, entry: IEntry) -> str:
        """The account's name: what the entry has in the first of the attributes that users are looked for by.

        Of several values that one which its DN begins with, and else the first in the order of the alphabet: the
        directory has them in no order.
        """
        for attribute in self._naming:
            values = entry.attributes.get(attribute)
            if values:
                first = [value for value in values if _is_named(entry.dn, attribute, value)] if len(values) > 1 else ()
                return min(first or values)
        return ""

    def _addresses_of(self, entries: Iterable[IEntry]) -> frozenset[str]:
        addresses: set[str] = set()
        for entry in entries:
            for attribute in self._addresses:
                for value in entry.attributes.get(attribute.lower(), ()):
                    # As Active Directory's proxyAddresses has them.
                    text = value[5:] if value[:5].lower() == "smtp:" else value
                    try:
                        addresses.add(address(text))
                    except ValueError:
                        # It is no address, or that of something else than mail.
                        continue
                    if len(addresses) >= ADDRESSES:
                        return frozenset(addresses)
        return frozenset(addresses)


async def _anybody(name: str) -> None:
    """Nobody minds who it is."""


def _possible(text: str, limit: int) -> bool:
    """Can a directory have this? Mechanisms have prepared it; other callers may not have."""
    try:
        return 0 < len(text.encode()) <= limit and "\0" not in text
    except UnicodeEncodeError:
        return False


def _filled(filter: str, **parts: str) -> str:
    """The filter with these parts in it, escaped (RFC 4515 §3)."""
    return _PLACE.sub(lambda match: escape_filter_chars(parts[match[1]]) if match[1] in parts else match[0], filter)


def _closed(entry: IEntry) -> str:
    """Why nobody logs in with this entry, whatever the password is; "" where it is open."""
    values: Mapping[str, Sequence[str]] = entry.attributes
    if _LOCKED_FOR_GOOD in values.get("pwdaccountlockedtime", ()):
        return "locked"
    if any(value.upper() == "TRUE" for value in values.get("nsaccountlock", ())):
        return "locked"
    for value in values.get("useraccountcontrol", ()):
        if not re.fullmatch(r"-?[0-9]{1,10}", value) or int(value) & _DISABLED:
            return "disabled"
    return ""


def _is_named(dn: str, attribute: str, value: str) -> bool:
    try:
        parts = parse_dn(dn)
    except Exception:
        # ldap3 has several ways not to understand one.
        return False
    return bool(parts) and parts[0][0].lower() == attribute and parts[0][1].lower() == value.lower()


def _prepared(name: str) -> str:
    """In the form of names that users give."""
    try:
        return prepare_name(name)
    except Unprepared:
        return name.lower()
