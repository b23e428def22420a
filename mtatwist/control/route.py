"""Which way mail for an address would go: whether it is taken, who gets it, and how it is sent on. Nothing is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson
from dns.rdtypes.ANY.MX import MX

from mtatwist.control.commands import PAGE_BYTES, BadArgument, ControlCommand, RouteTest
from mtatwist.control.connection import Responder
from mtatwist.dns.names import BadName, text_name
from mtatwist.dns.resolver import DnsTrouble, Resolver
from mtatwist.envelope import Recipient
from mtatwist.recipients.names import parse
from mtatwist.smtp.address import Address, AddressError, DomainSet
from mtatwist.smtp.reply import Reply
from mtatwist.transports.dial import Target, direct
from mtatwist.transports.failures import ConnectFailed

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

NAMED = 50
"""Recipients that are named, where one address stands for many."""

LONGEST_REPLY = 500
"""Characters of a reply that are told."""


class Door(NamedTuple):
    """What decides about a recipient now: see receive.delivery.Door. ``refuse_mailbox`` tells of addresses that could
    not be delivered."""

    domains: DomainSet
    postmaster: str
    refuse_mailbox: Callable[[Recipient], Reply | None]
    resolve: Callable[[Recipient], Awaitable[list[Recipient] | Reply]] | None


class Standing(Protocol):
    """See relay.standing."""

    @property
    def route(self) -> Any:
        """The route that mail takes."""

    def facts(self) -> dict[str, Any]:
        """All about it."""


#: Finds the addresses of a destination. Raises ConnectFailed.
Targets = Callable[[str], "Awaitable[Sequence[Target]] | Deferred[Sequence[Target]]"]


class _Judged(NamedTuple):
    """Who may send to an address, who gets that, and why; without recipients, the ``reply`` that refuses it."""

    accepted_from: str
    why: str
    recipients: Sequence[Recipient] = ()
    reply: Reply | None = None


EVERYBODY = "everybody"
OURS = "networks and users"
NOBODY = "nobody"


class RouteVerbs:
    """Follows an address as a session, and then the relay, would."""

    def __init__(
        self,
        *,
        door: Callable[[], Door],
        standing: Callable[[str], Standing],
        targets: Callable[[Any], Targets],
        resolver: Callable[[], Resolver],
    ) -> None:
        """``standing`` knows the way to a domain, ``targets`` how the addresses behind a route are found."""
        self._door = door
        self._standing = standing
        self._targets = targets
        self._resolver = resolver

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {RouteTest: self._test}

    async def _test(self, address: str) -> dict[str, Any]:
        door = self._door()
        try:
            parsed = parse(address)
        except AddressError as error:
            raise BadArgument(f"{address[:100]!r} is {error}") from None
        if not parsed.domain and parsed.local.lower() != "postmaster":
            raise BadArgument(f"{address[:100]!r} has no domain")
        judged = await _judge(door, parsed)
        names = [recipient.address for recipient in judged.recipients]
        domains = list(dict.fromkeys(recipient.domain for recipient in judged.recipients))
        route = {
            "address": str(parsed),
            "accepted_from": judged.accepted_from,
            "why": judged.why,
            "reply": None if judged.reply is None else str(judged.reply)[:LONGEST_REPLY],
            "recipients": names[:NAMED],
            "more_recipients": len(names[NAMED:]),
            "ways": [],
            "more_ways": 0,
        }
        ways: list[dict[str, Any]] = []
        room = PAGE_BYTES - len(orjson.dumps(route))
        for domain in domains[:NAMED]:
            way = await self._way(domain)
            room -= len(orjson.dumps(way)) + 1
            if room < 0:
                break
            ways.append(way)
        return {"route": {**route, "ways": ways, "more_ways": len(domains) - len(ways)}}

    async def _way(self, domain: str) -> dict[str, Any]:
        """How mail for ``domain`` is sent on."""
        standing = self._standing(domain)
        facts, route = standing.facts(), standing.route
        targets: Sequence[Target] = ()
        reply = None
        if route.transport != "maildir":
            try:
                targets = await self._addresses(route, facts["next_hop"])
            except ConnectFailed as failed:
                reply = str(failed.outcome.reply)[:LONGEST_REPLY]
        preferences = await self._preferences(domain) if facts["exchanges"] and targets else {}
        return {
            "domain": domain,
            **facts,
            "targets": [
                {
                    "preference": preferences.get(target.host),
                    "host": target.host,
                    "address": target.address,
                    "port": target.port or None,
                }
                for target in targets
            ],
            "reply": reply,
        }

    async def _addresses(self, route: Any, next_hop: str) -> Sequence[Target]:
        if next_hop.startswith("unix:"):
            return [direct(next_hop)]
        return await self._targets(route)(next_hop)

    async def _preferences(self, domain: str) -> dict[str, int]:
        """By the exchange's name; it has been looked up a moment ago."""
        try:
            answer = await self._resolver().lookup(domain, "MX")
        except (DnsTrouble, BadName):
            return {}
        records = [record for record in answer.records if isinstance(record, MX)]
        records.sort(key=lambda record: record.preference, reverse=True)
        return {text_name(record.exchange): record.preference for record in records}


async def _judge(door: Door, address: Address) -> _Judged:
    """As a session does, of whom nothing is known."""
    ours = not address.domain or address.domain in door.domains
    recipient = Recipient(0, str(address), address.domain)
    if not ours:
        refusal = door.refuse_mailbox(recipient)
        if refusal is not None:
            return _Judged(NOBODY, "it could not be delivered", reply=refusal)
        why = f"{address.domain} is none of relay.domains"
        return _Judged(OURS, why, [recipient])
    why = f"{address.domain} is one of relay.domains"
    if address.local.lower() == "postmaster":
        why = "mail for postmaster is always taken, and goes to relay.postmaster"
        if door.resolve is None or not address.domain:
            recipient = Recipient(0, door.postmaster, parse(door.postmaster).domain)
    else:
        refusal = door.refuse_mailbox(recipient)
        if refusal is not None:
            return _Judged(NOBODY, f"{why}, but it could not be delivered", reply=refusal)
    if door.resolve is None or recipient.domain not in door.domains:
        return _Judged(EVERYBODY, why, [recipient])
    found = await door.resolve(recipient)
    if isinstance(found, Reply):
        return _Judged(NOBODY, f"{why}, but not that address", reply=found)
    if [each.address for each in found] != [recipient.address]:
        why += ", and the address stands for others"
    return _Judged(EVERYBODY, why, found)
