"""Everything that is wrong with a spool, and the rows that hang together no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from mtatwist.envelope import State, queue_id
from mtatwist.spool import check, schema
from mtatwist.spool.bodies import body_numbers
from mtatwist.store.trouble import Damaged

PROBLEMS = 100
"""Problems of one kind that are told one by one."""


def read_only(database: Path) -> apsw.Connection:
    """A connection that leaves the database and its log as they are. Raises apsw.Error."""
    log = Path(f"{database}-wal")
    # Without a log to read, SQLite would leave the files that belong to one.
    immutable = "" if log.exists() and log.stat().st_size else "?immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(database.absolute().as_uri() + immutable, flags=flags)


def problems(connection: apsw.Connection, data_dir: Path) -> Iterator[str]:
    """All that is wrong, in words. Takes time in proportion to the spool."""
    for search in (_pages, _layout, incomplete, _files):
        found = 0
        try:
            for problem in search(connection, data_dir):
                found += 1
                if found <= PROBLEMS:
                    yield problem
        except (apsw.Error, Damaged, schema.SchemaTooNew, OSError) as error:
            yield str(error)
        if found > PROBLEMS:
            yield f"{found - PROBLEMS} more of these"


def _pages(connection: apsw.Connection, _: Path) -> Iterator[str]:
    for (said,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS})"):
        if said != "ok":
            yield " ".join(str(said).split())


def _layout(connection: apsw.Connection, _: Path) -> Iterator[str]:
    version: Any = connection.execute("PRAGMA user_version").fetchall()[0][0]
    schema.refuse_newer(version)
    if version == schema.VERSION:
        check.layout(connection)
    elif version == 0:
        yield "the database is empty"


def incomplete(connection: apsw.Connection, data_dir: Path) -> Iterator[str]:
    """What is lost of messages and recipients."""
    for number, problem in incomplete_messages(connection, data_dir):
        yield f"message {queue_id(number)}: {problem}"


def incomplete_messages(connection: apsw.Connection, data_dir: Path) -> Iterator[tuple[int, str]]:
    """The messages that can't be delivered as they are, each with the reason."""
    for number, count in connection.execute(
        "SELECT number, count(*) FROM recipient WHERE NOT EXISTS"
        " (SELECT 1 FROM message WHERE message.number=recipient.number) GROUP BY number"
    ):
        yield number, f"its envelope and body are lost; it has {count} recipients"
    for number, reverse_path in connection.execute(
        "SELECT number, reverse_path FROM message WHERE NOT EXISTS"
        " (SELECT 1 FROM recipient WHERE recipient.number=message.number)"
    ):
        yield number, f"its recipients are lost; it is from <{reverse_path}>"
    for number, size, there in connection.execute(
        "SELECT number, size, length(body) FROM message WHERE body IS NOT NULL AND length(body)<>size"
    ):
        yield number, f"its body has {there} octets instead of {size}"
    for number, size in connection.execute("SELECT number, size FROM message WHERE body IS NULL"):
        try:
            there = (data_dir / "bodies" / queue_id(number)).stat().st_size
        except FileNotFoundError:
            yield number, "its body's file is missing"
            continue
        if there != size:
            yield number, f"its body's file has {there} octets instead of {size}"


def _files(connection: apsw.Connection, data_dir: Path) -> Iterator[str]:
    if (data_dir / check.RECOVERED).exists():
        yield "a recovery was not finished"
    yield from ()


def orphans(connection: apsw.Connection, data_dir: Path) -> list[int]:
    """Body files that no message needs; a start after a crash deletes those. Raises apsw.Error."""
    rows: Any = connection.execute("SELECT number FROM message WHERE body IS NULL").fetchall()
    return sorted(set(body_numbers(data_dir / "bodies")) - {number for (number,) in rows})


def counts(connection: apsw.Connection) -> dict[str, int]:
    """How many messages, and recipients by state, there are. Raises apsw.Error."""
    rows: Any = connection.execute("SELECT state, count(*) FROM recipient GROUP BY state").fetchall()
    by_state = dict(rows)
    messages: Any = connection.execute("SELECT count(*) FROM message").fetchall()
    return {"messages": messages[0][0], **{state.name.lower(): by_state.get(state, 0) for state in State}}
