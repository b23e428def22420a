"""What waits in the queue, a page at a time: for those who look after it.

These are for :meth:`mtatwist.spool.sqlite.SqliteSpool.look`: they read, with a connection of their own and beside the
writer. Each is bounded in what it gives and in what it looks at, so that none takes long, however long the queue is.
All times are the queue's, in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import apsw

from mtatwist.spool.selection import Selection


class Page(NamedTuple):
    """A part of a list. ``cursor``: hand it in as ``after`` for what follows; None: that was all. There may be no rows,
    and yet a cursor: what was looked at had nothing in it that was meant."""

    rows: list[dict[str, Any]]
    cursor: str | None


def messages(
    connection: apsw.Connection,
    selection: Selection,
    now: float,
    after: str | None,
    octets: int,
    next_hop: Callable[[str], str],
) -> Page:
    """Messages with at least one recipient that is meant, the oldest first.

    ``octets``: the most that the rows take as JSON; ``next_hop`` gives the name of a domain's next hop. Raises
    ValueError for a bad cursor, TooLong.

    A row: ``id``, ``received_at``, ``size``, ``sender`` ("" is the null path), ``user``, ``peer``, ``recipients`` (how
    many the message has, those done with among them), ``pending``, ``deferred`` and ``held`` (how many of those meant
    are in that state), ``active`` (how many of them are on their way right now), and of the first one that is meant
    ``recipient``, ``attempts``, ``next_attempt``, ``host`` and ``reply`` ("" before the first).
    """
    raise NotImplementedError


def message(connection: apsw.Connection, id: str, after: str | None, octets: int) -> tuple[dict[str, Any], Page]:
    """All that is known of a message, and a page of its recipients. Raises LookupError when it is gone, ValueError.

    The message: ``id``, ``received_at``, ``size``, ``sender``, ``user``, ``peer``, ``helo``, ``protocol``, ``tls``,
    ``session``, ``body_type``, ``smtputf8``, ``envid``, ``ret``, ``recipients`` (how many).

    A recipient: ``index``, ``recipient``, ``domain``, ``state``, ``active``, ``attempts``, ``next_attempt`` (None when
    there is none), ``code``, ``enhanced``, ``text``, ``reply``, ``host``, ``at`` (of the last attempt; None before),
    ``tls`` (of a delivery), ``orcpt``, ``notify``, ``warned``.
    """
    raise NotImplementedError


def stats(connection: apsw.Connection, now: float, next_hop: Callable[[str], str]) -> dict[str, Any]:
    """How much waits.

    ``messages``, ``octets``, ``oldest`` (when it was received, None: there is none), ``recipients`` with ``pending``,
    ``deferred``, ``held``, ``active``, ``due``; ``domains`` and ``next_hops``: the twenty with the most recipients,
    as [{"name": ..., "recipients": ...}]; ``replies``: recipients by the class of the last reply, {"4": 17, "5": 0}.
    """
    raise NotImplementedError


AGES = (300, 3600, 4 * 3600, 86400)
"""Upper bounds of the ages in :func:`shape`, in seconds."""


def shape(
    connection: apsw.Connection, selection: Selection, now: float, next_hop: Callable[[str], str]
) -> dict[str, Any]:
    """Recipients by domain and age: {"ages": [...], "rows": [{"domain": ..., "counts": [...], "recipients": sum}]}.

    There is a count for each of the ages, and one for what is older. At most 200 domains, those with the most
    recipients first; what the others have is a last row whose domain is "" and which has ``domains``, their number.
    """
    raise NotImplementedError
