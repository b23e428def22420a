"""The verbs of the queue: what waits, why it does, and what is to become of it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import orjson

from mtatwist.control.commands import (
    PAGE_BYTES,
    BadArgument,
    ControlCommand,
    NotFound,
    QueueChange,
    QueueList,
    QueueRead,
    QueueShape,
    QueueShow,
    QueueStats,
    Unavailable,
    Why,
)
from mtatwist.control.connection import Responder
from mtatwist.envelope import Envelope, Message
from mtatwist.spool import history, totals, views
from mtatwist.spool.bounded import TooLong
from mtatwist.spool.selection import Selection, number_of
from mtatwist.store.trouble import StoreBroken, trouble_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

T = TypeVar("T")

READ_BYTES = 60_000
"""Octets of a message that are read at once: they have to fit into a value."""

TIMES = frozenset({"received_at", "next_attempt", "at", "oldest"})
"""What in an answer is a moment: it goes out in the machine's time, in seconds since the epoch."""


class Spool(Protocol):
    """What is asked of the spool: see SqliteSpool."""

    def look(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Read it, in a thread."""

    def read(self, message: Message, offset: int, size: int) -> Deferred[bytes]:
        """Read of a message."""


class Change(Protocol):
    """See Administration.change()."""

    def __call__(
        self, action: str, selection: Selection, *, reason: str, by: str, after: str | None, dry_run: bool
    ) -> Awaitable[Any]:
        """Do it to some of them; where to go on."""


class QueueVerbs:
    """Looks at the queue for those who ask, and changes it for those who may."""

    def __init__(
        self,
        spool: Spool,
        change: Change,
        *,
        next_hop: Callable[[str], str],
        way: Callable[[str], Mapping[str, Any]],
        queue_time: Callable[[], float],
        shown: Callable[[float], float],
    ) -> None:
        """``next_hop`` names where mail for a domain goes, in any thread; ``way`` tells how it is with the way there
        (relay.standing); ``shown`` makes the machine's time of the queue's."""
        self._spool = spool
        self._change = change
        self._next_hop = next_hop
        self._way = way
        self._queue_time = queue_time
        self._shown = shown

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {
            QueueList: self._list,
            QueueShow: self._show,
            QueueRead: self._read,
            QueueChange: self._change_some,
            QueueStats: self._stats,
            QueueShape: self._shape,
            Why: self._why,
        }

    async def _list(self, after: str | None, **selectors: Any) -> dict[str, Any]:
        with _reasons():
            selection = Selection(**selectors)
            page = await self._spool.look(
                views.messages, selection, self._queue_time(), after, PAGE_BYTES, self._next_hop
            )
        return self._page(page)

    async def _show(self, id: str, after: str | None) -> dict[str, Any]:
        with _reasons(id):
            message, page = await self._spool.look(views.message, id, after, PAGE_BYTES)
        return {"message": self._in_machine_time(message), **self._page(page)}

    async def _why(self, id: str, after: str | None) -> dict[str, Any]:
        with _reasons(id):
            message, page = await self._spool.look(history.story, id, after, PAGE_BYTES)
        ways = self._ways(row["domain"] for row in page.rows if "domain" in row)
        return {"message": self._in_machine_time(message), "ways": ways, **self._page(page)}

    async def _read(self, id: str, offset: int) -> dict[str, Any]:
        if offset < 0:
            raise BadArgument(f"{offset} is no offset: give the octets to begin behind, 0 or more")
        with _reasons(id):
            data = await self._spool.read(Message(number_of(id), Envelope(""), 0), offset, READ_BYTES)
        return {"data": data}

    async def _change_some(
        self,
        action: str,
        everything: bool,
        dry_run: bool,
        reason: str | None,
        after: str | None,
        by: str,
        **selectors: Any,
    ) -> dict[str, Any]:
        with _reasons():
            selection = Selection(**selectors)
            if selection.everything and not everything:
                raise BadArgument("nothing selects: say which recipients are meant, or that everything is")
            changed = await self._change(action, selection, reason=reason or "", by=by, after=after, dry_run=dry_run)
        nobody = after is None and not (changed.messages or changed.active or changed.cursor)
        if selection.id is not None and nobody:
            # There was nothing to do it to: because of the other selectors, or since there is no such message?
            with _reasons(selection.id):
                await self._spool.look(views.message, selection.id, None, PAGE_BYTES)
        return dict(changed._asdict())

    async def _stats(self) -> dict[str, Any]:
        with _reasons():
            stats = await self._spool.look(totals.stats, self._queue_time(), self._next_hop)
        return {"stats": self._in_machine_time(stats)}

    async def _shape(self, **selectors: Any) -> dict[str, Any]:
        with _reasons():
            selection = Selection(**selectors)
            shape = await self._spool.look(totals.shape, selection, self._queue_time(), self._next_hop)
        return dict(shape)

    def _ways(self, domains: Iterable[str]) -> dict[str, Any]:
        """The way to each of these domains, for as many as fit into an answer."""
        ways: dict[str, Any] = {}
        room = PAGE_BYTES
        for domain in dict.fromkeys(domains):
            one = {domain: self._way(domain)}
            room -= len(orjson.dumps(one))
            if room < 0:
                break
            ways.update(one)
        return ways

    def _page(self, page: views.Page) -> dict[str, Any]:
        return {"rows": [self._in_machine_time(row) for row in page.rows], "cursor": page.cursor}

    def _in_machine_time(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        told = dict(facts)
        for name in TIMES & told.keys():
            if told[name] is not None:
                told[name] = round(self._shown(told[name]), 3)
        if "history" in told:
            told["history"] = [self._in_machine_time(attempt) for attempt in told["history"]]
        return told


@contextlib.contextmanager
def _reasons(id: str | None = None) -> Iterator[None]:
    """What goes wrong with the spool, as the contract says it; ``id`` is the message that was asked for."""
    try:
        yield
    except TooLong as error:
        raise Unavailable(str(error)) from None
    except ValueError as error:
        raise BadArgument(str(error)) from None
    except OverflowError:
        raise BadArgument("a number is larger than any there is") from None
    except StoreBroken as error:
        raise Unavailable(f"the spool is in trouble: {error}; the log says more") from None
    except (LookupError, FileNotFoundError):
        if id is None:
            raise
        raise NotFound(
            f"{id[:40]} is not in the queue: it was delivered, bounced or dropped (see the log), or never was here"
        ) from None
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        raise Unavailable(f"the spool is in trouble ({trouble.value}): {error}; the log says more") from None
