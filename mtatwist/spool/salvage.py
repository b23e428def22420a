"""Takes out of a damaged database what can still be read, into a new one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from mtatwist.envelope import COUNTER_BITS, State
from mtatwist.spool import schema
from mtatwist.spool.bodies import body_numbers
from mtatwist.spool.pages import Pages, Row

UNKNOWN_RUNS = 1000
"""Runs that are passed over when the number of the last one is lost, so that no queue id is used twice."""

_MESSAGE = (type(None), str, str, int, str, str, float, str, str, str, str, str, str, int, bytes)
_ATTEMPT = (int, int, int, float, int, str, str, str, str)
_RECIPIENT = (int, int, str, str, str, str, int, int, float, int, int, str, str, str, float)


@dataclasses.dataclass
class Findings:
    """What was found, and what was not: a line for each loss. ``already_there``: messages an earlier export wrote."""

    messages: int = 0
    recipients: int = 0
    already_there: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def count(self, connection: apsw.Connection) -> None:
        """Count what is in a database. Raises apsw.Error."""
        rows: Any = connection.execute(
            "SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM recipient)"
        ).fetchall()
        ((self.messages, self.recipients),) = rows


def salvage(data_dir: Path, target: Path) -> Findings:
    """Make ``target`` a database of all rows that can be read. Raises SchemaTooNew, OSError, apsw.Error."""
    findings = Findings()
    with closing(Pages(data_dir / "spool.sqlite", data_dir / "spool.sqlite-wal")) as pages:
        version = pages.version if pages.version > 0 else schema.VERSION
        if pages.has_header:
            schema.refuse_newer(version)
        if not pages.knows_free:
            findings.notes.append(
                "the list of free pages can't be read: messages that had been delivered may be delivered again"
            )
        with closing(schema.connect(target)) as new:
            schema.migrate(new, to=version)
            with new:
                _copy(pages, new, findings)
            schema.migrate(new)
            with new:
                _number_runs(pages, new, data_dir / "bodies", findings)
    return findings


def _copy(pages: Pages, new: apsw.Connection, findings: Findings) -> None:
    columns = {table: schema.columns(new, table) for table in ("message", "recipient", "attempt")}
    broken = 0
    for row in pages.rows():
        if row is None:
            broken += 1
            continue
        table = _table(row)
        if table is None or not columns[table]:
            continue
        values = [row.rowid, *row.values[1:]] if table == "message" else row.values
        names = columns[table][: len(values)]
        try:
            new.execute(
                f"INSERT OR IGNORE INTO {table} ({','.join(names)}) VALUES ({','.join('?' * len(names))})",
                values[: len(names)],
            )
        except apsw.Error:
            broken += 1
    if broken:
        findings.lost.append(f"{broken} rows can't be read")
    if "claimed_by" in columns["recipient"]:
        new.execute("UPDATE recipient SET claimed_by=0 WHERE claimed_by<>0")
    findings.count(new)


def _table(row: Row) -> str | None:
    """Which table's row this is, as far as it is one of the mail's."""
    if _is_message(row):
        return "message"
    if _is_recipient(row):
        return "recipient"
    return "attempt" if _is_attempt(row) else None


def _is_message(row: Row) -> bool:
    return row.rowid is not None and row.rowid > 0 and _fits(row.values, _MESSAGE) and row.values[13] >= 0


def _is_recipient(row: Row) -> bool:
    return row.rowid is None and _fits(row.values, _RECIPIENT) and row.values[0] > 0 and row.values[6] in list(State)


def _is_attempt(row: Row) -> bool:
    return row.rowid is None and _fits(row.values, _ATTEMPT) and row.values[0] > 0


def _fits(values: list[Any], types: tuple[type, ...]) -> bool:
    """Are these the columns of that table? SQLite stores a whole number as an integer, whatever its column."""
    if len(values) < len(types):
        return False
    for value, kind in zip(values, types, strict=False):
        if kind is bytes and value is None:
            continue
        if not isinstance(value, (int, float) if kind is float else kind):
            return False
    return True


def _number_runs(pages: Pages, new: apsw.Connection, bodies: Path, findings: Findings) -> None:
    """The number of the last run, or one that is surely higher; and how far the queue's time was ahead."""
    roots = {str(row.values[1]): row.values[3] for row in _small(pages, 1, 5)}
    runs = [row.rowid for row in _small(pages, roots.get("run", 0), 1) if row.rowid is not None]
    if not runs:
        rows: Any = new.execute(
            "SELECT max(number) FROM (SELECT number FROM message UNION SELECT number FROM recipient)"
        )
        numbers = [number for ((number),) in rows.fetchall() if number is not None] + body_numbers(bodies)
        runs = [(max(numbers, default=0) >> COUNTER_BITS) + UNKNOWN_RUNS]
        findings.notes.append(f"the number of the last run can't be read: {runs[0]} is taken")
    new.execute("INSERT INTO run VALUES (?)", (max(runs),))
    for row in _small(pages, roots.get("clock", 0), 1):
        if isinstance(row.values[0], int | float):
            new.execute("INSERT INTO clock VALUES (?)", (row.values[0],))
            break


def _small(pages: Pages, number: Any, columns: int) -> Iterator[Row]:
    """The rows of a table that fits on one page."""
    if isinstance(number, int) and 0 < number <= pages.count and pages.has_header:
        for row in pages.rows_on(number):
            if row is not None and len(row.values) >= columns:
                yield row
