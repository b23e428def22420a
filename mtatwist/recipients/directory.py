"""What the directory knows of recipients: who gets mail, and what addresses stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ldap3.utils.conv import escape_filter_chars
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.interfaces import AnswerTooLarge, DirectoryTrouble
from mtatwist.recipients.names import Name
from mtatwist.recipients.shared import Remembered, Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtatwist.interfaces import IDirectory, IEntry

T = TypeVar("T")

_log = Logger()

FOUND_SECONDS = 300.0
"""How long it is remembered that an address exists, or what it stands for."""

ABSENT_SECONDS = 60.0
"""How long it is remembered that it does not, or is too large a group: to look at one takes the directory's time."""

IN_TROUBLE_SECONDS = FOUND_SECONDS + 2 * ABSENT_SECONDS
"""How long the last answer about an alias is good enough when there is no other. Who is known to exist must not be
turned away because it is forgotten that they are no alias: that was asked up to ABSENT_SECONDS before."""

REMEMBERED = 10_000
"""Addresses remembered for each of these times, and for each of the two questions; members of groups count, too."""

UNDER_WAY = 500
"""Questions at the same time, as many as the directory has places for; who would ask more is told at once that there is
trouble."""

MATCHES = 10
"""Entries that one address may find; more are not looked at."""

MEMBERS_AT_ONCE = 50
"""Entries of members that one search asks for."""

_PLACE = re.compile(r"\{(address|local|domain)\}")


class TooManyMembers(Exception):
    """A group is larger than may be expanded, or than the directory's answers may be."""


@dataclass(frozen=True, slots=True)
class Searches:
    """How to ask, as ``[auth.ldap]`` says: a filter that is None is never searched for.

    ``members``: the most addresses and members that are looked at for one address.
    """

    recipient_filter: str | None
    alias_filter: str | None
    alias_attributes: Sequence[str]
    member_attributes: Sequence[str]
    member_filter: str
    address_attributes: Sequence[str]
    members: int


class _Question:
    """One kind of question: what is known of it, and what is being asked now.

    ``in_trouble``: the last answers, for when the directory gives none; None: there is nothing to say then.
    """

    def __init__(self, clock: IReactorTime, in_trouble: Remembered[Name, str] | None = None) -> None:
        self.in_trouble = in_trouble
        self.found: Remembered[Name, str] = Remembered(limit=REMEMBERED, seconds=FOUND_SECONDS, clock=clock)
        self.absent: Remembered[Name, str] = Remembered(limit=REMEMBERED, seconds=ABSENT_SECONDS, clock=clock)
        self.too_large: Remembered[Name, str] = Remembered(limit=REMEMBERED, seconds=ABSENT_SECONDS, clock=clock)
        self.under_way: dict[Name, Shared[tuple[str, ...]]] = {}


class DirectoryRecipients:
    """Asks the directory, once for each address at a time, and remembers what it said."""

    def __init__(self, directory: IDirectory, searches: Searches, *, clock: IReactorTime) -> None:
        self._directory = directory
        self._searches = searches
        self._users = _Question(clock)
        # Not so of users: that there was nobody a while ago is no reason to refuse mail for good.
        in_trouble: Remembered[Name, str] = Remembered(limit=REMEMBERED, seconds=IN_TROUBLE_SECONDS, clock=clock)
        self._aliases = _Question(clock, in_trouble)

    @property
    def tells_who_exists(self) -> bool:
        """Is it asked who gets mail?"""
        return self._searches.recipient_filter is not None

    async def knows(self, name: Name) -> bool:
        """Does ``name`` get mail? Raises DirectoryTrouble."""
        wanted = self._searches.recipient_filter
        return wanted is not None and bool(await self._ask(self._users, name, lambda: self._search_user(wanted, name)))

    async def forwards(self, name: Name) -> Sequence[str]:
        """The addresses that ``name`` stands for; empty: it is no alias. Raises DirectoryTrouble, TooManyMembers."""
        wanted = self._searches.alias_filter
        if wanted is None:
            return ()
        return await self._ask(self._aliases, name, lambda: self._search_alias(wanted, name))

    async def _ask(
        self, question: _Question, name: Name, search: Callable[[], Coroutine[Any, Any, tuple[str, ...]]]
    ) -> tuple[str, ...]:
        known = question.found.get(name)
        if known is None:
            known = question.absent.get(name)
        if known is not None:
            return known
        if question.too_large.get(name) is not None:
            raise TooManyMembers
        try:
            return await self._ask_anew(question, name, search)
        except DirectoryTrouble:
            last = None if question.in_trouble is None else question.in_trouble.get(name)
            if last is None:
                raise
            return last

    async def _ask_anew(
        self, question: _Question, name: Name, search: Callable[[], Coroutine[Any, Any, tuple[str, ...]]]
    ) -> tuple[str, ...]:
        asked = question.under_way.get(name)
        if asked is None:
            if len(self._users.under_way) + len(self._aliases.under_way) >= UNDER_WAY:
                raise DirectoryTrouble("too many recipients are being looked up")
            work = Deferred.fromCoroutine(search())
            work.addCallbacks(self._remember, self._remember_failure, (question, name), errbackArgs=(question, name))
            # Before anybody is told: their next question needs a place, too.
            work.addBoth(self._answered, question, name)
            asked = Shared(work)
            if not asked.done:
                question.under_way[name] = asked
        return await asked.join()

    @staticmethod
    def _remember(answer: tuple[str, ...], question: _Question, name: Name) -> tuple[str, ...]:
        (question.found if answer else question.absent).put(name, answer)
        if question.in_trouble is not None:
            question.in_trouble.put(name, answer)
        return answer

    @staticmethod
    def _remember_failure(failure: Failure, question: _Question, name: Name) -> Failure:
        if not failure.check(TooManyMembers, AnswerTooLarge):
            return failure
        question.too_large.put(name, ())
        return Failure(TooManyMembers())

    @staticmethod
    def _answered(result: T, question: _Question, name: Name) -> T:
        question.under_way.pop(name, None)
        return result

    async def _search_user(self, filter: str, name: Name) -> tuple[str, ...]:
        entries = await self._directory.search(_filled(filter, name), ["1.1"], 1)
        return tuple(entry.dn for entry in entries)

    async def _search_alias(self, filter: str, name: Name) -> tuple[str, ...]:
        searches = self._searches
        attributes = [*searches.alias_attributes, *searches.member_attributes]
        entries = await self._directory.search(_filled(filter, name), attributes, MATCHES)
        addresses = dict.fromkeys(_values(entries, searches.alias_attributes))
        members = list(dict.fromkeys(_values(entries, searches.member_attributes)))
        if len(addresses) + len(members) > searches.members:
            raise TooManyMembers
        for start in range(0, len(members), MEMBERS_AT_ONCE):
            addresses.update(dict.fromkeys(await self._search_members(members[start : start + MEMBERS_AT_ONCE])))
        return tuple(addresses)

    async def _search_members(self, dns: Sequence[str]) -> list[str]:
        """The addresses of these entries; one that has none gets nothing, and the log says so."""
        asked = "".join(self._searches.member_filter.replace("{dn}", escape_filter_chars(dn)) for dn in dns)
        wanted = self._searches.address_attributes
        entries = await self._directory.search(f"(|{asked})" if len(dns) > 1 else asked, wanted, len(dns))
        found = [next(iter(_values([entry], wanted)), "") for entry in entries]
        addresses = [address for address in found if address]
        if len(addresses) < len(dns):
            _log.info("group_members_without_address", count=len(dns) - len(addresses), members=list(dns))
        return addresses


def _filled(filter: str, name: Name) -> str:
    """The filter with the address in it, escaped (RFC 4515 §3)."""
    parts = {"address": str(name), "local": name.local, "domain": name.domain}
    return _PLACE.sub(lambda match: escape_filter_chars(parts[match[1]]), filter)


def _values(entries: Sequence[IEntry], attributes: Sequence[str]) -> list[str]:
    """What these attributes hold, in their order. Raises TooManyMembers when the server gives only a part of them."""
    values: list[str] = []
    for entry in entries:
        for attribute in attributes:
            values += entry.attributes.get(attribute.lower(), ())
            # Active Directory gives large groups by the piece.
            if any(name.startswith(f"{attribute.lower()};range=") for name in entry.attributes):
                raise TooManyMembers
    return values
