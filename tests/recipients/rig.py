"""A resolver over files and a directory that the test plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mtatwist.envelope import Recipient
from mtatwist.interfaces import DirectoryTrouble, IDirectory, IEntry
from mtatwist.metrics.instruments import Instruments
from mtatwist.recipients.directory import DirectoryRecipients, Searches
from mtatwist.recipients.resolve import Resolver
from mtatwist.recipients.tables import parse_aliases, parse_recipients
from mtatwist.smtp.reply import Reply

HERE = ("here.test", "also.test")
SEARCHES = Searches(
    recipient_filter="(mail={address})",
    alias_filter="(alias={address})",
    alias_attributes=["forward"],
    member_attributes=["member"],
    member_filter="(entryDN={dn})",
    address_attributes=["mail", "otherMail"],
    members=1000,
)


@implementer(IEntry)
class Entry(NamedTuple):
    """See IEntry."""

    dn: str
    attributes: Mapping[str, Sequence[str]] = {}


@implementer(IDirectory)
class FakeDirectory:
    """Answers by the filter. ``trouble``: it is away; ``silent``: it answers once the test says so."""

    def __init__(self, answers: Mapping[str, Sequence[Entry]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[str] = []
        self.trouble = self.silent = False
        self.waiting: list[tuple[str, Deferred[Any]]] = []
        self.most_waiting = 0

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Any]:
        """See IDirectory."""
        self.asked.append(filter)
        if self.trouble:
            return fail(DirectoryTrouble("ldap1.test: connection refused"))
        if not self.silent:
            return succeed(self._answer(filter)[:limit])
        later: Deferred[Any] = Deferred()
        self.waiting.append((filter, later))
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return later

    def bind(self, dn: str, password: str) -> Deferred[bool]:
        """See IDirectory."""
        raise NotImplementedError

    def speak(self) -> None:
        """Answer all that waits now."""
        waiting, self.waiting = self.waiting, []
        for filter, later in waiting:
            if not later.called:
                later.callback(self._answer(filter))

    def _answer(self, filter: str) -> list[Entry]:
        if filter.startswith("(|"):
            parts = [f"({part}" for part in filter[2:-1].split("(")[1:]]
            return [entry for part in parts for entry in self.answers.get(part, ())]
        return list(self.answers.get(filter, ()))


def user(address: str) -> dict[str, list[Entry]]:
    """Somebody the directory knows."""
    return {f"(mail={address})": [Entry(f"uid={address}")]}


def forwarding(address: str, *to: str) -> dict[str, list[Entry]]:
    """Somebody whose mail goes elsewhere."""
    return {f"(alias={address})": [Entry(f"uid={address}", {"forward": to})]}


class Rig:
    """A resolver, with what it says at once or after ``clock`` has gone on."""

    def __init__(
        self,
        aliases: str | None = None,
        listed: str | None = None,
        directory: FakeDirectory | None = None,
        *,
        searches: Searches = SEARCHES,
        delimiter: str = "+",
        expansion: int = 1000,
        postmaster: str = "admin@here.test",
        metrics: Instruments | None = None,
    ) -> None:
        self.clock = Clock()
        self.metrics = metrics or Instruments()
        known = None if aliases is None else parse_aliases(aliases, HERE.__contains__)
        people = None if listed is None else parse_recipients(listed, HERE.__contains__)

        async def current_aliases() -> Any:
            return known

        async def current_people() -> Any:
            return people

        self.resolver = Resolver(
            is_ours=HERE.__contains__,
            postmaster=postmaster,
            delimiter=delimiter,
            expansion=expansion,
            aliases=None if known is None else current_aliases,
            listed=None if people is None else current_people,
            directory=None if directory is None else DirectoryRecipients(directory, searches, clock=self.clock),
            clock=self.clock,
            metrics=self.metrics,
        )

    def begin(self, address: str, **parameters: str) -> list[list[Recipient] | Reply]:
        """Ask; the answer stands in the list once it is there."""
        recipient = Recipient(0, address, address.rpartition("@")[2].lower(), parameters=parameters)
        answers: list[list[Recipient] | Reply] = []
        Deferred.fromCoroutine(self.resolver.resolve(recipient)).addCallback(answers.append)
        return answers

    def resolve(self, address: str, **parameters: str) -> list[Recipient]:
        """Who gets it; there must be somebody."""
        (answer,) = self.begin(address, **parameters)
        assert isinstance(answer, list), answer
        return answer

    def get(self, address: str) -> list[str] | int:
        """Their addresses in order, or the code of the refusal."""
        (answer,) = self.begin(address)
        return answer.code if isinstance(answer, Reply) else sorted(one.address for one in answer)
