"""From the recipient that RCPT names to those who get the message: known users, aliases, groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    FirstError,
    TimeoutError,
    gatherResults,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtatwist.envelope import Recipient
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.recipients.directory import DirectoryRecipients, TooManyMembers
from mtatwist.recipients.names import Name, name_of, parse, plain
from mtatwist.recipients.tables import Aliases, Listed
from mtatwist.smtp.address import Address, AddressError
from mtatwist.smtp.notify import MAX_ORCPT
from mtatwist.smtp.reply import Reply
from mtatwist.smtp.xtext import encode_unitext, encode_xtext

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

DEPTH = 10
"""How often the members of an alias may be aliases in turn."""

PATIENCE = 20.0
"""Seconds for all that one recipient takes."""

AT_ONCE = 4
"""Addresses of one group that are looked up at the same time: the directory has others to answer, too."""

# Nothing of this is the sender's fault but a wrong address: the rest may be tried again.
UNKNOWN = Reply(550, "5.1.1", "There is nobody with that address here")
CANNOT_TELL = Reply(451, "4.4.3", "Cannot tell now whether that address exists, try again later")
LOOP = Reply(451, "4.4.6", "That address leads nowhere but back to itself, try again later")
TOO_LARGE = Reply(451, "4.3.5", "That address stands for more recipients than are allowed here, try again later")


class Refused(Exception):
    """The recipient gets this ``reply``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _Step(NamedTuple):
    """An address on the way, and the alias that it is a member of."""

    address: Address
    alias: Name | None = None


class _Found(NamedTuple):
    """What a step leads to: a final address (``alias`` is None), or the members of ``alias``; neither: nobody."""

    address: Address | None = None
    alias: Name | None = None
    members: Sequence[Address] = ()


class _Known(NamedTuple):
    """What is asked, all through one recipient. Where ``listed`` and ``directory`` can't say who exists, all do."""

    aliases: Aliases
    listed: Listed | None = None
    directory: DirectoryRecipients | None = None

    @property
    def tells_who_exists(self) -> bool:
        """Can anybody say so?"""
        return self.listed is not None or (self.directory is not None and self.directory.tells_who_exists)

    async def exists(self, name: Name) -> bool:
        """Is it said that ``name`` gets mail? Raises DirectoryTrouble."""
        if self.listed is not None and self.listed.knows(name):
            return True
        return self.directory is not None and await self.directory.knows(name)

    async def members(self, name: Name) -> Sequence[Address]:
        """What ``name`` stands for; empty when it is no alias. Raises DirectoryTrouble, TooManyMembers."""
        members = self.aliases.of(name)
        if members is None and self.directory is not None:
            return _usable(name, await self.directory.forwards(name))
        return members or ()


class Resolver:
    """Answers for the recipients at our domains. Local parts are compared without regard to case."""

    def __init__(
        self,
        *,
        is_ours: Callable[[str], bool],
        postmaster: str,
        delimiter: str,
        expansion: int,
        aliases: Callable[[], Awaitable[Aliases]] | None,
        listed: Callable[[], Awaitable[Listed]] | None,
        directory: DirectoryRecipients | None,
        clock: IReactorTime,
        metrics: Instruments,
    ) -> None:
        """``postmaster`` gets mail for postmaster at domains of ours, and always exists; ``delimiter`` begins a detail
        ("": nothing does). ``expansion``: the most recipients that one may become. ``aliases`` and ``listed`` give what
        the files hold now."""
        self._is_ours = is_ours
        self._postmaster = parse(postmaster)
        self._delimiter = delimiter
        self._expansion = expansion
        self._aliases = aliases
        self._listed = listed
        self._directory = directory
        self._clock = clock
        self._metrics = metrics

    async def resolve(self, recipient: Recipient) -> list[Recipient] | Reply:
        """Who gets the mail of ``recipient``, which is at a domain of ours: itself, or others in its place.

        Mail for postmaster is never refused (RFC 5321 §4.5.1): what can't be found out then is left out.
        """
        start = parse(recipient.address)
        try:
            found = await Deferred.fromCoroutine(self._judge(start)).addTimeout(PATIENCE, self._clock)
        except Refused as refused:
            if not _is_postmaster(start) and start != self._postmaster:
                self._count(refused.reply)
                return refused.reply
            found = await self._for_postmaster(start)
        if found == [start]:
            return [recipient]
        self._metrics.recipients_expanded.value += 1
        return [_in_place_of(recipient, address) for address in found]

    async def keeps_detail(self, address: str) -> bool:
        """Is ``address``, which has a detail, somebody of their own with it? Raises DirectoryTrouble."""
        whole = parse(address)
        if not self._is_ours(whole.domain):
            return False
        try:
            return await Deferred.fromCoroutine(self._has(whole)).addTimeout(PATIENCE, self._clock)
        except TimeoutError:
            raise DirectoryTrouble("it took too long") from None

    async def _has(self, whole: Address) -> bool:
        name = name_of(whole)
        if whole == self._postmaster or (self._listed is not None and (await self._listed()).has(name)):
            return True
        return self._directory is not None and await self._directory.knows(name)

    def _count(self, reply: Reply) -> None:
        metrics = self._metrics
        if reply is UNKNOWN:
            metrics.recipients_unknown.value += 1
        elif reply is CANNOT_TELL:
            metrics.recipients_unchecked.value += 1
        else:
            metrics.aliases_unusable.value += 1

    async def _judge(self, start: Address) -> list[Address]:
        """All that ``start`` leads to, each once. Raises Refused."""
        try:
            listed = await self._listed() if self._listed else None
            return await self._expand(start, _Known(await self._of_file(), listed, self._directory))
        except DirectoryTrouble as trouble:
            _log.info("recipient_unchecked", address=str(start), error=str(trouble))
        except (TimeoutError, CancelledError):
            _log.info("recipient_unchecked", address=str(start), error="it took too long")
        raise Refused(CANNOT_TELL)

    async def _for_postmaster(self, start: Address) -> list[Address]:
        """By the file alone, without asking who exists."""
        try:
            return await self._expand(start, _Known(await self._of_file()))
        except Refused:
            return [self._postmaster]

    async def _of_file(self) -> Aliases:
        return await self._aliases() if self._aliases else Aliases()

    async def _expand(self, start: Address, known: _Known) -> list[Address]:
        final: dict[Name, Address] = {}
        expanded: set[Name] = set()
        seen: set[tuple[Name, bool]] = set()
        nobody = False
        steps = [_Step(start)]
        try:
            for _ in range(DEPTH + 1):
                following: list[_Step] = []
                for step, found in zip(steps, await self._look(steps, known), strict=True):
                    if found.address is not None:
                        final.setdefault(self._key(found.address), found.address)
                    elif found.alias is None:
                        nobody = True
                        if step.alias is not None:
                            _log.info("alias_member_unknown", alias=str(step.alias), member=str(step.address))
                    elif found.alias not in expanded:
                        expanded.add(found.alias)
                        following += self._fresh(found.alias, found.members, seen)
                if len(final) + len(following) > self._expansion:
                    raise TooManyMembers
                steps = following
                if not steps:
                    break
        except TooManyMembers:
            _log.warn("alias_too_large", address=str(start), limit=self._expansion)
            raise Refused(TOO_LARGE) from None
        if final and not steps:
            return list(final.values())
        if nobody and not steps:
            raise Refused(UNKNOWN)
        # Too deep; or all that there is leads to what was there before.
        _log.warn("alias_loop", address=str(start))
        raise Refused(LOOP)

    def _fresh(self, alias: Name, members: Sequence[Address], seen: set[tuple[Name, bool]]) -> Iterator[_Step]:
        """Those of the members that were not looked at before, as members of another alias."""
        for member in members:
            name = name_of(member)
            itself = alias in (name, plain(name, self._delimiter))
            key = self._key(member), itself
            if key not in seen:
                seen.add(key)
                yield _Step(member, alias)

    def _key(self, address: Address) -> Name:
        """Equal for what is one mailbox: at foreign domains, case may matter."""
        return name_of(address) if self._is_ours(address.domain) else Name(*address)

    async def _look(self, steps: Sequence[_Step], known: _Known) -> Sequence[_Found]:
        if len(steps) == 1:
            return [await self._one(steps[0], known)]
        turns = DeferredSemaphore(AT_ONCE)
        work = [turns.run(lambda step: Deferred.fromCoroutine(self._one(step, known)), step) for step in steps]
        try:
            return await gatherResults(work, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    async def _one(self, step: _Step, known: _Known) -> _Found:
        address = step.address
        if not self._is_ours(address.domain):
            return _Found(address)
        whole = name_of(address)
        trouble: DirectoryTrouble | None = None
        for name in (whole, plain(whole, self._delimiter)):
            if name is None:
                break
            # Who is a member of itself wants the mail, too.
            members = await known.members(name) if name != step.alias else ()
            if members:
                if trouble is not None:
                    # The whole address may be somebody of their own, who goes before this alias.
                    raise trouble
                return _Found(alias=name, members=members)
            if address == self._postmaster:
                return _Found(address)
            if _is_postmaster(address):
                return _Found(alias=whole, members=[self._postmaster])
            try:
                if await known.exists(name):
                    return _Found(address)
            except DirectoryTrouble as error:
                # Who is known without the detail gets the mail, whether or not the whole address exists, too.
                trouble = error
        if trouble is not None:
            raise trouble
        return _Found() if known.tells_who_exists else _Found(address)


def _usable(alias: Name, values: Sequence[str]) -> Sequence[Address]:
    """The addresses among what the directory holds for ``alias``."""
    found: list[Address] = []
    for value in values:
        try:
            if value.startswith(("|", "/", ":")):
                raise AddressError("not an address")
            found.append(parse(value.strip(), alias.domain))
        except AddressError:
            _log.info("alias_member_unusable", alias=str(alias), member=value[:200])
    return found


def _is_postmaster(address: Address) -> bool:
    return address.local.lower() == "postmaster"


def _in_place_of(recipient: Recipient, address: Address) -> Recipient:
    """One that gets what was meant for ``recipient``, with the same wishes about reports (RFC 3461 §5.2.7).

    If the sender named no original recipient, it is the one that RCPT had (§5.2.1): the sender knows no other.
    """
    parameters = dict(recipient.parameters)
    if "ORCPT" not in parameters:
        named = recipient.address
        orcpt = f"rfc822;{encode_xtext(named)}" if named.isascii() else f"utf-8;{encode_unitext(named)}"
        if len(orcpt) <= MAX_ORCPT:
            parameters["ORCPT"] = orcpt
    return Recipient(0, str(address), address.domain, parameters=parameters)
