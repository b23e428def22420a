"""What the writer's thread does with the tables: few and large statements, since each gives up the GIL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import apsw

from mtatwist.envelope import Envelope, Settled, State
from mtatwist.spool import history
from mtatwist.spool.bodies import BodyFiles
from mtatwist.store.datadir import sync_directory

_MESSAGE_COLUMNS = 15
_RECIPIENT_COLUMNS = 10
_ROWS_A_STATEMENT = 64
"""Bounds the bound values and the kinds of statements that SQLite keeps prepared."""

#: One message for the insert: its row, its recipients' rows, and whether its body lies in a file.
NewMessage = tuple[tuple[Any, ...], list[tuple[Any, ...]], bool]


@lru_cache(maxsize=2 * _ROWS_A_STATEMENT)
def _insert(table: str, columns: int, rows: int, conflict: str) -> str:
    row = f"({','.join('?' * columns)})"
    names = "(number,idx,address,domain,orcpt,notify,state,attempts,next_attempt,claimed_by)"
    return f"INSERT INTO {table} {names if table == 'recipient' else ''} VALUES {','.join([row] * rows)} {conflict}"


def _insert_rows(
    connection: apsw.Connection, table: str, columns: int, rows: list[tuple[Any, ...]], conflict: str
) -> None:
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        part = rows[start : start + _ROWS_A_STATEMENT]
        connection.execute(_insert(table, columns, len(part), conflict), tuple(chain.from_iterable(part)))


def _json(rows: list[tuple[Any, ...]]) -> str:
    """What a peer or a file name gave may hold lone surrogates: SQLite would store them, and never give them back."""
    return json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace").decode()


class Tables:
    """The jobs of the spool. Bodies of large messages must be durable files before their rows are inserted."""

    def __init__(self, bodies: BodyFiles) -> None:
        self._bodies = bodies
        self.run = 0

    def row(self, number: int, envelope: Envelope, size: int, body: bytes | None) -> NewMessage:
        """A new message as its rows, claimed by this run. ``body`` None: it is in a file."""
        message = (
            number,
            envelope.reverse_path,
            envelope.body_type,
            envelope.smtputf8,
            envelope.envid,
            envelope.ret,
            envelope.received_at,
            envelope.session,
            envelope.peer,
            envelope.helo,
            envelope.protocol,
            envelope.tls,
            envelope.user,
            size,
            body,
        )
        recipients = [
            (
                number,
                r.index,
                r.address,
                r.domain,
                r.orcpt,
                r.notify,
                r.state,
                r.attempts,
                envelope.received_at,
                self.run,
            )
            for r in envelope.recipients
        ]
        return message, recipients, body is None

    def insert(self, connection: apsw.Connection, payloads: Sequence[NewMessage], conflict: str = "") -> list[None]:
        """New messages: one directory fsync for all files of the group, then all rows."""
        if any(in_file for _, _, in_file in payloads):
            sync_directory(self._bodies.path)
        _insert_rows(connection, "message", _MESSAGE_COLUMNS, [message for message, _, _ in payloads], conflict)
        recipients = [row for _, rows, _ in payloads for row in rows]
        _insert_rows(connection, "recipient", _RECIPIENT_COLUMNS, recipients, conflict)
        return [None] * len(payloads)

    def settle(
        self, connection: apsw.Connection, payloads: Sequence[tuple[Sequence[Settled], Sequence[NewMessage]]]
    ) -> list[list[int]]:
        """Results of attempts and the reports about them; gives the numbers of dropped messages that had a file."""
        reports = [report for _, reports in payloads for report in reports]
        if reports:
            # After an I/O error nobody knows whether the commit took place; then all of this is done again.
            self.insert(connection, reports, "ON CONFLICT DO NOTHING")
        settled = [result for results, _ in payloads for result in results]
        rows = _json(
            [(s.number, s.index, s.state, s.next_attempt, *s.reply, s.host, s.at, s.warned, s.tls) for s in settled]
        )
        connection.execute(
            "UPDATE recipient SET state=r.value->>2, attempts=attempts+1, next_attempt=r.value->>3, claimed_by=0,"
            " code=r.value->>4, enhanced=r.value->>5, text=r.value->>6, host=r.value->>7, at=r.value->>8,"
            " warned=max(warned, r.value->>9), tls=r.value->>10"
            " FROM json_each(?) AS r WHERE number=r.value->>0 AND idx=r.value->>1 AND claimed_by=?",
            (rows, self.run),
        )
        if any(s.state is State.DEFERRED for s in settled):
            connection.execute(history.REMEMBER, (rows,))
        done = sorted({s.number for s in settled if s.state in (State.DELIVERED, State.FAILED)})
        if not done:
            return [[] for _ in payloads]
        # Only what nobody needs: a message stays while one recipient is pending, deferred or held.
        finished = (
            "SELECT value FROM json_each(?) WHERE NOT EXISTS"
            f" (SELECT 1 FROM recipient WHERE number=value AND state<={State.HELD:d})"
        )
        numbers = json.dumps(done)
        gone = [
            number
            for (number,) in connection.execute(
                f"SELECT number FROM message WHERE number IN ({finished}) AND body IS NULL", (numbers,)
            )
        ]
        connection.execute(f"DELETE FROM message WHERE number IN ({finished})", (numbers,))
        connection.execute(
            "DELETE FROM recipient WHERE number IN (SELECT value FROM json_each(?))"
            " AND NOT EXISTS (SELECT 1 FROM message WHERE message.number=recipient.number)",
            (numbers,),
        )
        connection.execute(history.FORGET, (numbers,))
        return [gone, *([] for _ in payloads[1:])]

    # What follows only reads, with a connection that can't write.

    def read_body(self, connection: apsw.Connection, number: int, offset: int, size: int) -> bytes:
        """A part of a message's body, from its row or its file. Raises LookupError when it is gone."""
        row = connection.execute(
            "SELECT body IS NULL, substr(body, ?, ?) FROM message WHERE number=?", (offset + 1, size, number)
        ).fetchone()
        if row is None:
            raise LookupError(f"message {number} is not in the spool")
        # Of an empty BLOB, substr() is NULL.
        return self._bodies.read(number, offset, size) if row[0] else row[1] or b""

    def orphans(self, connection: apsw.Connection, numbers: list[int]) -> list[int]:
        """Those of ``numbers`` that are no message with its body in a file."""
        return [
            number
            for (number,) in connection.execute(
                "SELECT value FROM json_each(?) WHERE NOT EXISTS"
                " (SELECT 1 FROM message WHERE number=value AND body IS NULL)",
                (json.dumps(numbers),),
            )
        ]
