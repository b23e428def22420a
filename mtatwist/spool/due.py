"""Who is due, and who works on it: how the spool finds work by index, whatever waits, and claims it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from mtatwist.envelope import Envelope, Message, Recipient, State
from mtatwist.smtp.reply import Reply

# Each of these finds its rows by an index: tests/spool/test_due.py asks SQLite how it would go about them.

DOMAINS = """
    WITH RECURSIVE visited (domain) AS (
        SELECT * FROM (
            SELECT domain FROM recipient WHERE state<2 AND claimed_by=0 AND domain>=?1 ORDER BY domain LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT r.domain FROM recipient AS r WHERE r.state<2 AND r.claimed_by=0 AND r.domain>visited.domain
            ORDER BY r.domain LIMIT 1
        ) FROM visited WHERE visited.domain IS NOT NULL LIMIT ?2
    )
    SELECT domain, (
        SELECT next_attempt FROM recipient AS r WHERE r.state<2 AND r.claimed_by=0 AND r.domain=visited.domain
        ORDER BY next_attempt LIMIT 1
    ) FROM visited WHERE domain IS NOT NULL"""

DUE = """
    SELECT number FROM recipient WHERE state<2 AND claimed_by=0 AND domain=?1 AND next_attempt<=?2
    ORDER BY next_attempt LIMIT ?3"""

NEXT_DUE = """
    SELECT next_attempt FROM recipient WHERE state<2 AND claimed_by=0 AND next_attempt>?1
    ORDER BY next_attempt LIMIT 1"""

LATE = """
    SELECT r.number, received_at FROM recipient AS r CROSS JOIN message ON message.number=r.number
    WHERE r.number>?1 AND state<2 AND claimed_by=0 AND warned<=?2 ORDER BY r.number LIMIT ?3"""

# The plus signs keep SQLite from reading all that is due for the domain.
CLAIM = """
    UPDATE recipient SET claimed_by=?1
    FROM (SELECT value->>0 AS wanted, value->>1 AS place FROM json_each(?3)) AS work
    WHERE number=work.wanted AND (work.place IS NULL OR +domain=work.place)
    AND +state<2 AND +claimed_by=0 AND +next_attempt<=?2 AND warned<=?4
    RETURNING number,idx,address,domain,orcpt,notify,state,attempts,next_attempt,code,enhanced,text,host,at,warned"""

VOID = "UPDATE recipient SET claimed_by=0 WHERE claimed_by<>0"

FACTS = "number,size,reverse_path,body_type,smtputf8,envid,ret,received_at,session,peer,helo,protocol,tls,user"
"""What is read of a message that is to be delivered: all but the body."""

MESSAGES = f"SELECT {FACTS} FROM message WHERE number IN (SELECT value FROM json_each(?))"


class Claims:
    """The jobs of the spool that have to do with claims. ``run`` is whose they are."""

    def __init__(self) -> None:
        self.run = 0

    def begin(self, connection: apsw.Connection) -> int:
        """Begin a run; what earlier ones had claimed waits again. Gives its number."""
        rows: Any = connection.execute(
            "INSERT INTO run SELECT coalesce(max(number), 0) + 1 FROM run RETURNING number"
        ).fetchall()
        self.run = rows[0][0]
        connection.execute("DELETE FROM run WHERE number < ?", (self.run,))
        connection.execute(VOID)
        return self.run

    def claim(
        self, connection: apsw.Connection, payloads: Sequence[tuple[float, Sequence[tuple[int, str]]]]
    ) -> list[list[Message]]:
        """Claim what is due: of these messages, and at these domains."""
        return [self._claim(connection, now, work) for now, work in payloads]

    def claim_late(
        self, connection: apsw.Connection, payloads: Sequence[tuple[Sequence[int], bool]]
    ) -> list[list[Message]]:
        """Claim the recipients of these messages, due or not; with True only those nobody was warned about."""
        return [
            self._claim(connection, float("inf"), [(number, None) for number in numbers], not unwarned)
            for numbers, unwarned in payloads
        ]

    def release(self, connection: apsw.Connection, payloads: Sequence[Sequence[tuple[int, int, float]]]) -> list[None]:
        """Give claims back."""
        connection.execute(
            "UPDATE recipient SET claimed_by=0, next_attempt=r.value->>2 FROM json_each(?) AS r"
            " WHERE number=r.value->>0 AND idx=r.value->>1 AND claimed_by=?",
            (json.dumps([claim for claims in payloads for claim in claims]), self.run),
        )
        return [None] * len(payloads)

    def _claim(
        self, connection: apsw.Connection, now: float, work: Sequence[tuple[int, str | None]], warned: bool = True
    ) -> list[Message]:
        rows: list[Any] = connection.execute(CLAIM, (self.run, now, json.dumps(work), warned)).fetchall()
        facts: Any = connection.execute(MESSAGES, (json.dumps(sorted({row[0] for row in rows})),)).fetchall()
        return messages(rows, facts)


def messages(rows: Sequence[Any], facts: Sequence[Any]) -> list[Message]:
    """Messages with just these recipients, from the columns that CLAIM returns and from FACTS."""
    recipients: dict[int, list[Recipient]] = {}
    for number, index, address, domain, orcpt, notify, state, attempts, due, code, enhanced, text, *last in rows:
        host, at, told = last
        recipients.setdefault(number, []).append(
            Recipient(
                index,
                address,
                domain,
                State(state),
                attempts,
                due,
                Reply(code, enhanced, text) if code else None,
                host,
                at,
                orcpt,
                notify,
                bool(told),
            )
        )
    found = []
    for number, size, reverse_path, body_type, smtputf8, *others in facts:
        envelope = Envelope(reverse_path, recipients[number], body_type, bool(smtputf8), *others)
        found.append(Message(number, envelope, size))
    return found


# What follows only reads, with a connection that can't write.


def next_due(connection: apsw.Connection, after: float) -> float | None:
    """The earliest time later than ``after`` at which something unclaimed is due."""
    row = connection.execute(NEXT_DUE, (after,)).fetchone()
    return None if row is None else row[0]


def due_domains(connection: apsw.Connection, now: float, start: str, limit: int) -> tuple[list[str], str | None]:
    """Of the next ``limit`` domains with something unclaimed, those with something due; where to go on."""
    visited: list[Any] = connection.execute(DOMAINS, (start, limit)).fetchall()
    # No text lies between a text and the same one with a NUL behind it.
    following = visited[-1][0] + "\0" if len(visited) == limit else None
    return [domain for domain, due in visited if due <= now], following


def due(connection: apsw.Connection, now: float, shares: Sequence[tuple[str, int]]) -> list[tuple[int, str]]:
    """The messages that have waited longest at each domain, as (number, domain)."""
    return sorted(
        {(number, domain) for domain, share in shares for (number,) in connection.execute(DUE, (domain, now, share))}
    )


def late(connection: apsw.Connection, received_by: float, after: int, unwarned: bool, limit: int) -> list[int]:
    """The oldest messages beyond number ``after`` with something unclaimed, of those received by then."""
    rows: list[Any] = connection.execute(LATE, (after, not unwarned, limit)).fetchall()
    return sorted({number for number, received_at in rows if received_at <= received_by})
