"""What waits in the queue, a page at a time: for those who look after it.

These are for :meth:`mtatwist.spool.sqlite.SqliteSpool.look`: they read, with a connection of their own and beside the
writer. Each is bounded in what it gives and in what it looks at, so that none takes long, however long the queue is.
All times are the queue's, in seconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import apsw
import orjson

from mtatwist.envelope import State, queue_id
from mtatwist.smtp.reply import Reply
from mtatwist.spool.selection import Selection, number_of

MESSAGES = 100
"""Messages in a page."""

RECIPIENTS = 200
"""Recipients of one message in a page."""

SCANNED = 50_000
"""Recipients looked at for a page, and those of the message where that ends."""

FIRST_WORDS = 500
"""Characters of a reply in a list of messages."""

WORDS = 2000
"""Characters of a reply where it is shown."""

# Everything that is found comes as one JSON text in one row: between two rows, a busy reactor would keep the
# interpreter for milliseconds.

WINDOW = f"SELECT number FROM recipient WHERE number>? ORDER BY number, idx LIMIT 1 OFFSET {SCANNED - 1}"

DOMAINS = "SELECT json_group_array(DISTINCT domain) FROM recipient WHERE number>? AND number<=?"

FACTS = """
    SELECT json_array(
        received_at, size, reverse_path, user, peer, helo, protocol, tls, session, body_type, smtputf8, envid, ret,
        (SELECT count(*) FROM recipient AS r WHERE r.number=m.number)
    ) FROM message AS m WHERE number=?"""

OF_MESSAGE = f"""
    SELECT json_group_array(json_array(
        idx, address, domain, state, claimed_by<>0, attempts, next_attempt, code, enhanced, text, host, at, tls, orcpt,
        notify, warned
    )) FROM (
        SELECT idx, address, domain, state, claimed_by, attempts, next_attempt, code, enhanced,
            substr(text, 1, {WORDS}) AS text, host, at, tls, orcpt, notify, warned
        FROM recipient WHERE number=? AND idx>? ORDER BY idx LIMIT ?
    )"""

LAST = 2**63 - 1
"""No message has a higher number."""


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
    ``recipient``, ``attempts``, ``next_attempt`` (None when it is held), ``host`` and ``reply`` ("" before the first).
    """
    start = 0 if after is None else number_of(after)
    if selection.id is not None:
        only = number_of(selection.id)
        start, end = (only - 1, only) if only > start else (LAST, 0)
    else:
        end = LAST if selection.everything else window(connection, start)
    found = Matching(selection, now)
    values = found.within(connection, start, end, next_hop)
    numbers = orjson.loads(one(connection, found.numbers(), values))
    following = None if end == LAST or selection.id is not None else queue_id(end)
    if len(numbers) > MESSAGES:
        del numbers[MESSAGES:]
        following = queue_id(numbers[-1])
    rows = orjson.loads(one(connection, found.rows(), {**values, "numbers": json.dumps(numbers)}))
    return fit([_row(*row) for row in rows], octets, following, lambda row: str(row["id"]))


def _row(
    number: int, received_at: float, size: int, sender: str, user: str, peer: str, recipients: int, *first: Any
) -> dict[str, Any]:
    pending, deferred, held, active, recipient, attempts, next_attempt, state, host, code, enhanced, text, _ = first
    return {
        "id": queue_id(number),
        "received_at": received_at,
        "size": size,
        "sender": sender,
        "user": user,
        "peer": peer,
        "recipients": recipients,
        "pending": pending,
        "deferred": deferred,
        "held": held,
        "active": active,
        "recipient": recipient,
        "attempts": attempts,
        "next_attempt": None if state == State.HELD else next_attempt,
        "host": host,
        "reply": str(Reply(code, enhanced, text)) if code else "",
    }


def message(connection: apsw.Connection, id: str, after: str | None, octets: int) -> tuple[dict[str, Any], Page]:
    """All that is known of a message, and a page of its recipients. Raises LookupError when it is gone, ValueError.

    The message: ``id``, ``received_at``, ``size``, ``sender``, ``user``, ``peer``, ``helo``, ``protocol``, ``tls``,
    ``session``, ``body_type``, ``smtputf8``, ``envid``, ``ret``, ``recipients`` (how many).

    A recipient: ``index``, ``recipient``, ``domain``, ``state``, ``active``, ``attempts``, ``next_attempt`` (None when
    there is none), ``code``, ``enhanced``, ``text``, ``reply``, ``host``, ``at`` (of the last attempt; None before),
    ``tls`` (of it), ``orcpt``, ``notify``, ``warned``.
    """
    facts = facts_of(connection, id)
    recipients, following = recipients_after(connection, number_of(id), index_after(after), RECIPIENTS)
    return facts, fit(recipients, octets, following, lambda recipient: str(recipient["index"]))


def facts_of(connection: apsw.Connection, id: str) -> dict[str, Any]:
    """What is known of the message itself: see message(). Raises LookupError, ValueError."""
    number = number_of(id)
    found: Any = connection.execute(FACTS, (number,)).fetchall()
    if not found:
        raise LookupError(f"there is no message {queue_id(number)} in the queue: it is delivered, failed or dropped")
    names = (
        "received_at",
        "size",
        "sender",
        "user",
        "peer",
        "helo",
        "protocol",
        "tls",
        "session",
        "body_type",
        "smtputf8",
        "envid",
        "ret",
        "recipients",
    )
    facts = dict(zip(names, orjson.loads(found[0][0]), strict=True))
    return {"id": queue_id(number), **facts, "smtputf8": bool(facts["smtputf8"])}


def recipients_after(
    connection: apsw.Connection, number: int, after: int, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """The next recipients of a message, as message() gives them, and the cursor if there are more."""
    rows = orjson.loads(one(connection, OF_MESSAGE, (number, after, limit + 1)))
    following = str(rows[limit - 1][0]) if len(rows) > limit else None
    return [_recipient(*row) for row in rows[:limit]], following


def _recipient(index: int, address: str, domain: str, state: int, active: int, *known: Any) -> dict[str, Any]:
    attempts, next_attempt, code, enhanced, text, host, at, tls, orcpt, notify, warned = known
    return {
        "index": index,
        "recipient": address,
        "domain": domain,
        "state": State(state).name.lower(),
        "active": bool(active),
        "attempts": attempts,
        "next_attempt": next_attempt if state in (State.PENDING, State.DEFERRED) else None,
        "code": code,
        "enhanced": enhanced,
        "text": text,
        "reply": str(Reply(code, enhanced, text)) if code else "",
        "host": host,
        "at": at or None,
        "tls": tls,
        "orcpt": orcpt,
        "notify": notify,
        "warned": bool(warned),
    }


def index_after(after: str | None) -> int:
    """The cursor of a page of recipients. Raises ValueError."""
    if after is None:
        return -1
    if not (after.isascii() and after.isdecimal() and len(after) < 10):
        raise ValueError(f'after: "{after[:40]}" is no cursor; take one that a page has given')
    return int(after)


def fit(rows: list[dict[str, Any]], octets: int, following: str | None, key: Callable[[dict[str, Any]], str]) -> Page:
    """As many of these rows as go into so many octets of JSON, one at least. ``key``: the cursor behind a row;
    ``following``: the one behind them all."""
    room = octets - 2
    for count, row in enumerate(rows):
        room -= len(orjson.dumps(row)) + 1
        if room < 0 and count:
            return Page(rows[:count], key(rows[count - 1]))
    return Page(rows, following)


def one(connection: apsw.Connection, query: str, values: Any) -> str:
    """The one value that a query gives."""
    rows: Any = connection.execute(query, values).fetchall()
    return str(rows[0][0])


# What a selection makes of a query.


def window(connection: apsw.Connection, after: int) -> int:
    """The last message of those behind ``after`` that are looked at now."""
    rows: Any = connection.execute(WINDOW, (after,)).fetchall()
    return int(rows[0][0]) if rows else LAST


class Matching:
    """The queries for those that are meant."""

    def __init__(self, selection: Selection, now: float) -> None:
        """``now``: the queue's time."""
        said, self._values = selection.conditions(now)
        self._selection = selection
        self._said = [f"r.state<={State.HELD:d}", *said]
        if selection.next_hop is not None:
            self._said.append("r.domain IN (SELECT value FROM json_each(:domains))")

    def within(
        self, connection: apsw.Connection, after: int, end: int, next_hop: Callable[[str], str]
    ) -> dict[str, Any]:
        """The values for the messages behind ``after``, up to ``end``."""
        values = {**self._values, "after": after, "end": end}
        if self._selection.next_hop is not None:
            # Asked beforehand, and not by SQLite for each row: see above.
            domains = orjson.loads(one(connection, DOMAINS, (after, end)))
            values["domains"] = json.dumps(self._selection.domains(domains, next_hop))
        return values

    @property
    def where(self) -> str:
        """What has to hold."""
        return " AND ".join(self._said)

    def source(self, asks_message: bool = False) -> str:
        """The tables that takes; with the messages if they are asked for anything else."""
        joined = asks_message or self._selection.asks_message
        return "recipient AS r" + (" CROSS JOIN message AS m ON m.number=r.number" if joined else "")

    def numbers(self) -> str:
        """Messages behind ``after``, up to ``end``, one more than a page has."""
        return f"""
            SELECT json_group_array(number) FROM (
                SELECT DISTINCT r.number FROM {self.source()}
                WHERE r.number>:after AND r.number<=:end AND {self.where} ORDER BY r.number LIMIT {MESSAGES + 1}
            )"""

    def rows(self) -> str:
        """For the list: these ``numbers``."""
        return f"""
            SELECT json_group_array(json_array(
                number, received_at, size, reverse_path, user, peer, recipients, pending, deferred, held, active,
                address, attempts, next_attempt, state, host, code, enhanced, text, first
            )) FROM (
                SELECT m.number, m.received_at, m.size, m.reverse_path, m.user, m.peer, count(*) AS recipients,
                    sum(r.state={State.PENDING:d} AND {self.where}) AS pending,
                    sum(r.state={State.DEFERRED:d} AND {self.where}) AS deferred,
                    sum(r.state={State.HELD:d} AND {self.where}) AS held,
                    sum(r.claimed_by<>0 AND {self.where}) AS active,
                    r.address, r.attempts, r.next_attempt, r.state, r.host, r.code, r.enhanced,
                    substr(r.text, 1, {FIRST_WORDS}) AS text, min(CASE WHEN {self.where} THEN r.idx END) AS first
                FROM json_each(:numbers) AS meant CROSS JOIN message AS m ON m.number=meant.value
                CROSS JOIN recipient AS r ON r.number=m.number GROUP BY m.number ORDER BY m.number
            )"""
