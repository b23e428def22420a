"""Puts a new database in the place of a damaged one. Nothing is deleted: what is used no more gets another name."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from mtatwist.envelope import queue_id
from mtatwist.spool import history, schema
from mtatwist.spool.check import RECOVERED
from mtatwist.spool.examine import incomplete_messages, orphans, read_only
from mtatwist.spool.salvage import Findings, salvage
from mtatwist.store.datadir import sync_directory

_MAKING = "spool.sqlite.recovering"


def recover(data_dir: Path, now: str) -> Findings:
    """Make the new database and have it take the old one's place; ``now`` is part of what the old one is called then.

    A crash leaves the old database in its place, or RECOVERED, with which finish() goes on. Raises SchemaTooNew,
    OSError, apsw.Error.
    """
    making = data_dir / _MAKING
    for left in (making, data_dir / f"{_MAKING}-wal", data_dir / f"{_MAKING}-shm"):
        left.unlink(missing_ok=True)
    findings = salvage(data_dir, making)
    with closing(schema.connect(making)) as new, new:
        for number, problem in list(incomplete_messages(new, data_dir)):
            findings.lost.append(f"message {queue_id(number)}: {problem}")
            new.execute("DELETE FROM message WHERE number=?", (number,))
            new.execute("DELETE FROM recipient WHERE number=?", (number,))
        new.execute(history.FORGET_LOST)
        findings.count(new)
    # Closed by its last connection it is one file, without a log.
    _give_to_owner(making, data_dir)
    _sync(making)
    making.rename(data_dir / RECOVERED)
    sync_directory(data_dir)
    findings.notes += finish(data_dir, now)
    return findings


def finish(data_dir: Path, now: str) -> list[str]:
    """Have RECOVERED take its place; may be done again after a crash. Gives what was moved, in words."""
    said = []
    recovered = data_dir / RECOVERED
    with closing(read_only(recovered)) as connection:
        unused = orphans(connection, data_dir)
    if unused:
        aside = _new_name(data_dir / f"bodies.damaged-{now}")
        aside.mkdir(mode=0o700)
        _give_to_owner(aside, data_dir)
        for number in unused:
            (data_dir / "bodies" / queue_id(number)).rename(aside / queue_id(number))
        sync_directory(aside)
        sync_directory(data_dir / "bodies")
        said.append(f"{len(unused)} body files that no message needs are in {aside.name}/ now")
    # The log first: it must never be read into the new database.
    database = data_dir / "spool.sqlite"
    aside = _new_name(data_dir / f"spool.sqlite.damaged-{now}")
    for suffix in ("-wal", "-shm", ""):
        old = data_dir / f"{database.name}{suffix}"
        if old.exists():
            old.rename(data_dir / f"{aside.name}{suffix}")
            sync_directory(data_dir)
            if not suffix:
                said.append(f"the damaged database is {aside.name} now")
    for suffix in ("-wal", "-shm"):
        # Reading it may have left these: they hold nothing.
        (data_dir / f"{RECOVERED}{suffix}").unlink(missing_ok=True)
    recovered.rename(database)
    sync_directory(data_dir)
    return said


def _new_name(path: Path) -> Path:
    """``path``, or with a number behind it where that is taken."""
    found, number = path, 1
    while found.exists() or Path(f"{found}-wal").exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def _give_to_owner(path: Path, data_dir: Path) -> None:
    """Root may do this for the user that the server runs as."""
    if os.geteuid() == 0:
        owner = data_dir.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
