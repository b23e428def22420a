"""Whether a spool is as a server left it: a short look at each start, and what to do about damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import apsw

from mtatwist.spool import schema
from mtatwist.store.trouble import Damaged

GLANCE_SECONDS = 0.3
"""How long a start looks for damage. A small spool is seen whole in that time; ``mtactl spool verify`` reads any to
its end."""

READING_SECONDS = 1.0
"""How long files are read to see whether they can be read."""

RECOVERED = "spool.sqlite.recovered"
"""A new database, on its way to the old one's place: see spool.recover."""

_STEPS = 1000
"""Steps of SQLite's between two looks at the clock."""

_WAL_HEADER = 32

_CHUNK = 1024 * 1024


def damage_notice(data_dir: str, error: Damaged) -> str:
    """What is wrong with the spool, and what to do about it, for the one who runs the server."""
    return (
        f"server.data_dir {data_dir}: the spool is damaged: {error}; leave the directory as it is, and run"
        f' "mtactl spool verify --data-dir {data_dir}" to see all that is wrong, "mtactl spool export" to save what'
        ' can be read, and "mtactl spool recover" to make a new database of it'
    )


def files(data_dir: Path) -> None:
    """Refuse to begin with an empty database where there was another one. Raises Damaged, OSError.

    SQLite would delete the log of a database that is missing or empty.
    """
    database = data_dir / "spool.sqlite"
    if (data_dir / RECOVERED).exists():
        raise Damaged(f"a recovery was not finished: {RECOVERED} is still there")
    if database.exists() and database.stat().st_size:
        return
    log = data_dir / "spool.sqlite-wal"
    if log.exists() and log.stat().st_size > _WAL_HEADER:
        raise Damaged("spool.sqlite is missing or empty, though its log spool.sqlite-wal holds something")
    bodies = data_dir / "bodies"
    if bodies.is_dir() and any(bodies.iterdir()):
        raise Damaged("spool.sqlite is missing or empty, though there are messages in bodies/")


def glance(connection: apsw.Connection, seconds: Callable[[], float], limit: float = GLANCE_SECONDS) -> None:
    """Look for damage until ``limit`` is over; ``seconds`` is a monotonic clock. Raises Damaged, apsw.Error."""
    deadline = seconds() + limit
    connection.set_progress_handler(lambda: seconds() > deadline, _STEPS)
    try:
        said = connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
    except apsw.InterruptError:
        return
    finally:
        connection.set_progress_handler(None)
    if said != "ok":
        raise Damaged(" ".join(str(said).split()))


def unreadable(database: Path, seconds: Callable[[], float], limit: float = READING_SECONDS) -> apsw.IOError | None:
    """The disk's error, if it gives one to who reads the database and its log, until ``limit`` is over. For SQLite a
    page that the disk does not give is damage, too (SQLITE_IOERR_CORRUPTFS): but the next time it may be there."""
    deadline = seconds() + limit
    log = database.with_name(f"{database.name}-wal")
    try:
        for path, kind in ((database, apsw.SQLITE_OPEN_MAIN_DB), (log, apsw.SQLITE_OPEN_WAL)):
            # By SQLite's own file system: to close the file by any other way would let go of all locks on it.
            file = apsw.VFSFile("", os.fspath(path), [kind | apsw.SQLITE_OPEN_READONLY, 0])
            try:
                size = file.xFileSize()
                for offset in range(0, size, _CHUNK):
                    if seconds() < deadline:
                        file.xRead(min(_CHUNK, size - offset), offset)
            finally:
                file.xClose()
    except apsw.CantOpenError:
        return None
    except apsw.IOError as error:
        return error
    return None


def layout(connection: apsw.Connection) -> None:
    """All tables and indexes are there. Raises Damaged, apsw.Error."""
    with_all = apsw.Connection(":memory:")
    try:
        schema.migrate(with_all)
        missing = _names(with_all) - _names(connection)
    finally:
        with_all.close()
    if missing:
        raise Damaged(f"the database lacks {', '.join(sorted(missing))}")


def _names(connection: apsw.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
