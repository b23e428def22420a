"""The tables of the spool, and how an older database becomes a newer one."""

from __future__ import annotations

import os

import apsw

VERSION = 5
"""PRAGMA user_version of a database this code reads and writes."""

# What is written once stands in message, what changes in recipient: an update never rewrites a body.
# auto_vacuum stays NONE: freed pages take the next messages, and no commit pays for moving pages about.
_MIGRATIONS = {
    0: """
    CREATE TABLE run (number INTEGER PRIMARY KEY CHECK (number > 0));
    CREATE TABLE message (
        number INTEGER PRIMARY KEY,
        reverse_path TEXT NOT NULL, body_type TEXT NOT NULL, smtputf8 INTEGER NOT NULL,
        envid TEXT NOT NULL, ret TEXT NOT NULL, received_at REAL NOT NULL,
        session TEXT NOT NULL, peer TEXT NOT NULL, helo TEXT NOT NULL, protocol TEXT NOT NULL,
        tls TEXT NOT NULL, user TEXT NOT NULL, size INTEGER NOT NULL,
        body BLOB  -- NULL: it is in a file of its own
    );
    CREATE TABLE recipient (
        number INTEGER NOT NULL, idx INTEGER NOT NULL,
        address TEXT NOT NULL, domain TEXT NOT NULL, orcpt TEXT NOT NULL, notify TEXT NOT NULL,
        state INTEGER NOT NULL, attempts INTEGER NOT NULL, next_attempt REAL NOT NULL,
        claimed_by INTEGER NOT NULL,  -- a run; each start takes back the claims of the one before
        code INTEGER NOT NULL DEFAULT 0, enhanced TEXT NOT NULL DEFAULT '', text TEXT NOT NULL DEFAULT '',
        host TEXT NOT NULL DEFAULT '', at REAL NOT NULL DEFAULT 0,
        PRIMARY KEY (number, idx)
    ) WITHOUT ROWID;
    CREATE INDEX recipient_due ON recipient (next_attempt) WHERE state < 2;
    """,
    # warned: the sender has been told that this recipient is late. clock: how much the queue's time is ahead of the
    # machine's clock, since that was set while the server ran.
    1: """
    ALTER TABLE recipient ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE clock (ahead REAL NOT NULL);
    """,
    # New mail is stored claimed and mostly gone before anybody looks for it: it costs an entry at the end of one small
    # index, whatever waits. What waits is found by its domain, so that no destination hides another, and by its time.
    2: """
    DROP INDEX recipient_due;
    CREATE INDEX recipient_claimed ON recipient (number) WHERE claimed_by <> 0;
    CREATE INDEX recipient_due ON recipient (next_attempt) WHERE state < 2 AND claimed_by = 0;
    CREATE INDEX recipient_domain ON recipient (domain, next_attempt) WHERE state < 2 AND claimed_by = 0;
    """,
    # See store.lockouts and store.usage.
    3: """
    CREATE TABLE lockout_key (key BLOB NOT NULL);
    CREATE TABLE lockout (
        account TEXT NOT NULL, network TEXT NOT NULL,  -- '' in the one or the other, or a pair
        at REAL NOT NULL, until REAL NOT NULL, failures TEXT NOT NULL, wrong TEXT NOT NULL,
        PRIMARY KEY (account, network)
    ) WITHOUT ROWID;
    CREATE TABLE lockout_known (
        account TEXT NOT NULL, network TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (account, network)
    ) WITHOUT ROWID;
    CREATE TABLE submission_usage (account TEXT PRIMARY KEY, windows TEXT NOT NULL) WITHOUT ROWID;
    """,
    # See spool.history. slot: a ring, so that the last attempts take the place of the first. What waits and what is
    # held is counted in the indexes alone: see spool.survey.
    4: """
    ALTER TABLE recipient ADD COLUMN tls TEXT NOT NULL DEFAULT '';
    CREATE TABLE attempt (
        number INTEGER NOT NULL, idx INTEGER NOT NULL, slot INTEGER NOT NULL,
        at REAL NOT NULL, code INTEGER NOT NULL, enhanced TEXT NOT NULL, text TEXT NOT NULL,
        host TEXT NOT NULL, tls TEXT NOT NULL,
        PRIMARY KEY (number, idx, slot)
    ) WITHOUT ROWID;
    CREATE INDEX recipient_held ON recipient (number) WHERE state = 2;
    DROP INDEX recipient_due;
    CREATE INDEX recipient_due ON recipient (next_attempt, state, claimed_by) WHERE state < 2 AND claimed_by = 0;
    """,
}


class SchemaTooNew(Exception):
    """A newer mtatwist wrote this database; the message names both versions."""


def connect(path: str | os.PathLike[str], *, create: bool = True) -> apsw.Connection:
    """A connection that may write, with the durability that a 250 promises. Raises apsw.Error.

    ``create``: may a new database be made where there is none?
    """
    if create and not os.path.exists(path):
        # Its log and its shared memory get the same mode. An empty file is an empty database.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(os.fspath(path), flags=flags)
    connection.set_busy_timeout(5000)
    connection.execute("PRAGMA page_size=4096")
    connection.execute("PRAGMA auto_vacuum=NONE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


WAL_PAGES = 4000
"""Pages in the WAL before the writer checkpoints: long enough that most pages of a message that was delivered
meanwhile are written to the database once, or never; short enough that a start after a crash reads it at once."""

WAL_LIMIT = 32 * 1024 * 1024
"""Octets the WAL file keeps after a checkpoint."""


def refuse_newer(version: int) -> None:
    """Raises SchemaTooNew if a newer mtatwist wrote ``version``."""
    if version > VERSION:
        raise SchemaTooNew(
            f"the spool has schema version {version}, this mtatwist knows {VERSION}: run the newer mtatwist again"
        )


def columns(connection: apsw.Connection, table: str) -> list[str]:
    """The names of a table's columns, in order; none when there is no such table. Raises apsw.Error."""
    return [str(name) for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]


def migrate(connection: apsw.Connection, to: int | None = None) -> None:
    """Bring the database to VERSION, in one transaction a step. Raises SchemaTooNew, apsw.Error.

    ``to``: an older version, to make a database as one was.
    """
    (version,) = next(connection.execute("PRAGMA user_version"))
    refuse_newer(version)
    while version < (VERSION if to is None else to):
        with connection:
            connection.execute(_MIGRATIONS[version])
            version += 1
            connection.execute(f"PRAGMA user_version={version}")
