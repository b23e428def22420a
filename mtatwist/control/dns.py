"""The verbs of the DNS: what is remembered of it, what overrides it, and looking names up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
from dns.rdata import Rdata
from dns.rdtypes.ANY.MX import MX
from twisted.internet.defer import Deferred, gatherResults

from mtatwist.control.commands import (
    BadArgument,
    ControlCommand,
    DnsClear,
    DnsList,
    DnsLookup,
    DnsOverride,
)
from mtatwist.control.connection import Responder
from mtatwist.control.paging import page
from mtatwist.dns.cache import Answer, Key, Remembered
from mtatwist.dns.names import BadName, ascii_name, text_name
from mtatwist.dns.resolver import DnsTrouble

if TYPE_CHECKING:
    from mtatwist.dns import Dns

TYPES = ("A", "AAAA", "MX")
"""What can be asked for."""

LISTED = 500
"""Entries of the cache that are looked at for one page: so many small ones fit into it."""

EXCHANGES = 10
"""Exchanges of a domain whose addresses are looked up, as a delivery does."""


class DnsVerbs:
    """Looks at the resolver for those who ask, and changes what it knows for those who may."""

    def __init__(self, dns: Callable[[], Dns]) -> None:
        """``dns`` gives the resolver that is in use now."""
        self._dns = dns

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {DnsList: self._list, DnsLookup: self._lookup, DnsClear: self._clear, DnsOverride: self._override}

    async def _list(self, after: str | None) -> dict[str, Any]:
        place = _place(after)
        behind = Key(*place[1:]) if place[0] == _CACHE else None
        entries = self._dns().resolver.remembered(LISTED, behind)
        rows = chain(
            ((_cursor(where), row) for where, row in self._overrides() if where > place),
            ((_cursor((_CACHE, *each.key)), _entry(each)) for each in entries),
        )
        return page(rows, _cursor((_CACHE, *entries[-1].key)) if len(entries) == LISTED else None)

    def _overrides(self) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
        """What overrides the DNS, in the order in which it is listed."""
        overrides = self._dns().resolver.overrides
        for each in overrides:
            outcome = "added" if each.added else "configured"
            yield (_OVERRIDES, each.name, ""), _row("override", each.name, outcome=outcome, records=each.addresses)
        for domain, servers in sorted(overrides.domains.items()):
            records = [str(server) for server in servers]
            yield (_SERVERS, domain, ""), _row("servers", domain, outcome="configured", records=records)

    async def _lookup(self, name: str, type: str, refresh: bool) -> dict[str, Any]:
        if type and type not in TYPES:
            raise BadArgument(f"{type[:40]!r} can't be looked up: there are {', '.join(TYPES)}")
        looked = _Lookup(self._dns(), refresh)
        rows = await (looked.one(name, type) if type else looked.all(name))
        fitting: list[dict[str, Any]] = page([(row["name"], row) for row in rows])["rows"]
        return {"answer": {"rows": fitting, "more": len(rows) - len(fitting)}}

    async def _clear(self, name: str | None) -> dict[str, Any]:
        try:
            return {"cleared": self._dns().resolver.clear(name)}
        except BadName as error:
            raise BadArgument(f"{_short(name)} is no name: {error}") from None

    async def _override(self, domain: str, addresses: Any) -> dict[str, Any]:
        if not isinstance(addresses, list) or not all(isinstance(each, str) for each in addresses):
            raise BadArgument("the addresses are a list of texts")
        overrides = self._dns().resolver.overrides
        try:
            if addresses:
                overrides.set(domain, addresses)
            elif not overrides.remove(domain):
                raise BadArgument(f"{_short(domain)} has no override that was set while the server runs")
        except BadName as error:
            raise BadArgument(f"{_short(domain)} is no name: {error}") from None
        except ValueError as error:
            raise BadArgument(str(error)) from None
        return {"overrides": overrides.added}


class _Lookup:
    """What is said about one name."""

    def __init__(self, dns: Dns, refresh: bool) -> None:
        self._dns = dns
        self._refresh = refresh

    async def one(self, name: str, type: str) -> list[dict[str, Any]]:
        """About one type of records. Raises BadArgument."""
        try:
            return [await self._row(ascii_name(name), type)]
        except BadName as error:
            raise BadArgument(f"{_short(name)} is no name: {error}") from None

    async def all(self, name: str) -> list[dict[str, Any]]:
        """What a delivery asks for: the exchanges and their addresses, without any the addresses of the name itself.
        Raises BadArgument."""
        try:
            local = self._dns.hosts.local(name)
            if local is not None:
                return [_row("hosts", name, outcome="records", records=local.addresses)]
            name = ascii_name(name)
        except BadName as error:
            raise BadArgument(f"{_short(name)} is no name: {error}") from None
        answer, row = await self._asked(name, "MX")
        if answer is None or not answer.exists:
            return [row]
        records = sorted((record for record in answer.records if isinstance(record, MX)), key=_preference)
        hosts = list(dict.fromkeys(text_name(record.exchange) for record in records))[:EXCHANGES]
        found = await gatherResults(
            [Deferred.fromCoroutine(self._addresses(host)) for host in (hosts if records else [name]) if host],
            consumeErrors=True,
        )
        return [row, *(each for rows in found for each in rows)]

    async def _addresses(self, host: str) -> list[dict[str, Any]]:
        local = self._dns.hosts.local(host)
        if local is not None:
            return [_row("hosts", host, outcome="records", records=local.addresses)]
        return list(await gatherResults([Deferred.fromCoroutine(self._row(host, type)) for type in ("AAAA", "A")]))

    async def _row(self, name: str, type: str) -> dict[str, Any]:
        return (await self._asked(name, type))[1]

    async def _asked(self, name: str, type: str) -> tuple[Answer | None, dict[str, Any]]:
        resolver = self._dns.resolver
        try:
            answer = await resolver.lookup(name, type, refresh=self._refresh)
        except (DnsTrouble, BadName) as error:
            return None, _row("answer", name, type, outcome="failed", reason=str(error))
        kind = "override" if name in resolver.overrides else "answer"
        return answer, _answer(answer, resolver.left(answer), kind=kind)


# The order in which they are listed.
_OVERRIDES, _SERVERS, _CACHE = "0", "1", "2"


def _cursor(place: Sequence[str]) -> str:
    return orjson.dumps(place).decode()


def _place(cursor: str | None) -> tuple[str, str, str]:
    """Where a page begins: behind this. Raises BadArgument."""
    try:
        kind, name, type = ("", "", "") if cursor is None else orjson.loads(cursor)
        if not all(isinstance(each, str) for each in (kind, name, type)):
            raise ValueError
    except (ValueError, TypeError):
        raise BadArgument("that is no cursor of this list") from None
    return kind, name, type


def _entry(each: Remembered) -> dict[str, Any]:
    if each.answer is None:
        return _row("answer", each.key.name, each.key.type, outcome="failed", ttl=each.left, reason=each.trouble)
    return _answer(each.answer, each.left, reason=each.trouble)


def _answer(answer: Answer, left: float | None, *, kind: str = "answer", reason: str = "") -> dict[str, Any]:
    return _row(
        kind,
        answer.key.name,
        answer.key.type,
        outcome="records" if answer.records else "no records" if answer.exists else "no such name",
        records=[record.to_text() for record in sorted(answer.records, key=_preference)],
        ttl=left,
        stale=answer.stale or (left is not None and left <= 0),
        authentic=answer.secure,
        reason=reason,
    )


def _preference(record: Rdata) -> int:
    return record.preference if isinstance(record, MX) else 0


def _row(
    kind: str,
    name: str,
    type: str = "",
    *,
    outcome: str,
    records: Sequence[str] = (),
    ttl: float | None = None,
    stale: bool = False,
    authentic: bool = False,
    reason: str = "",
) -> dict[str, Any]:
    """A row of the list, or of what a lookup says: docs/administration.rst tells what stands in it."""
    return {
        "kind": kind,
        "name": name,
        "type": type or None,
        "outcome": outcome,
        "records": list(records),
        "ttl": None if ttl is None else round(ttl),
        "stale": stale,
        "authentic": authentic,
        "reason": reason or None,
    }


def _short(name: str | None) -> str:
    return f"{(name or '')[:100]!r}"
