"""Writes the messages of a spool, damaged or not, as files that anybody can read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import apsw

from mtatwist.envelope import State, queue_id
from mtatwist.spool.examine import read_only
from mtatwist.spool.history import attempts
from mtatwist.spool.salvage import Findings, salvage
from mtatwist.spool.schema import columns
from mtatwist.store.datadir import sync_directory
from mtatwist.store.trouble import trouble_of

_SALVAGED = ".salvaged.sqlite"


def export(data_dir: Path, to: Path) -> Findings:
    """Write ID.eml (the message, octet for octet) and ID.json (envelope and recipients) for each message into ``to``.

    Existing files are left alone: the same message is already there, another one is in the way. Raises SchemaTooNew,
    OSError, apsw.Error.
    """
    findings = Findings()
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    salvaged = to / _SALVAGED
    try:
        if not _whole(data_dir / "spool.sqlite"):
            salvaged.unlink(missing_ok=True)
            findings = salvage(data_dir, salvaged)
        with closing(read_only(salvaged if salvaged.exists() else data_dir / "spool.sqlite")) as connection:
            findings.messages = findings.recipients = 0
            for message, recipients in _messages(connection):
                _write(data_dir, to, message, recipients, findings)
            for (number,) in connection.execute(
                "SELECT DISTINCT number FROM recipient WHERE number NOT IN (SELECT number FROM message)"
            ):
                findings.lost.append(f"message {queue_id(number)}: its envelope and body are lost")
    finally:
        for suffix in ("", "-wal", "-shm"):
            (to / f"{_SALVAGED}{suffix}").unlink(missing_ok=True)
    sync_directory(to)
    return findings


def _whole(database: Path) -> bool:
    """Can SQLite read it?"""
    try:
        with closing(read_only(database)) as connection:
            said: Any = connection.execute("PRAGMA integrity_check(1)").fetchall()
            return bool(said[0][0] == "ok") and bool(columns(connection, "message"))
    except apsw.Error as error:
        if trouble_of(error) is None:
            raise
        return False


def _messages(connection: apsw.Connection) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each message, with its recipients."""
    of_messages, of_recipients = columns(connection, "message"), columns(connection, "recipient")
    for row in connection.execute(f"SELECT {','.join(of_messages)} FROM message ORDER BY number"):
        message = dict(zip(of_messages, row, strict=True))
        rows = connection.execute(
            f"SELECT {','.join(of_recipients)} FROM recipient WHERE number=? ORDER BY idx", (message["number"],)
        )
        recipients = [dict(zip(of_recipients, recipient, strict=True)) for recipient in rows]
        if columns(connection, "attempt"):
            for recipient in recipients:
                recipient["history"] = attempts(connection, message["number"], recipient["idx"])
        yield message, recipients


def _write(
    data_dir: Path, to: Path, message: dict[str, Any], recipients: list[dict[str, Any]], findings: Findings
) -> None:
    name, body, size = queue_id(message.pop("number")), message.pop("body"), message["size"]
    for recipient in recipients:
        del recipient["number"], recipient["claimed_by"]
        recipient["state"] = State(recipient["state"]).name.lower()
    if not recipients:
        findings.lost.append(f"message {name}: its recipients are lost")
    facts = {"id": name, **message, "recipients": recipients}
    envelope = BytesIO(json.dumps(facts, ensure_ascii=False, indent=1).encode() + b"\n")
    eml, about = to / f"{name}.eml", to / f"{name}.json"
    try:
        with BytesIO(body) if body is not None else (data_dir / "bodies" / name).open("rb") as source:
            written, is_new = _keep(eml, source)
        if written is None:
            findings.lost.append(f"message {name}: {eml} exists, is another message, and was left as it is")
            return
        if written != size:
            findings.lost.append(f"message {name}: its body has {written} octets instead of {size}")
    except FileNotFoundError:
        findings.lost.append(f"message {name}: its body's file is missing")
        _keep(about, envelope)
        return
    if _keep(about, envelope)[0] is None:
        findings.notes.append(f"message {name}: {about} is of an earlier export, and was left as it is")
    if is_new:
        findings.messages += 1
        findings.recipients += len(recipients)
    else:
        findings.already_there += 1


def _keep(path: Path, source: IO[bytes]) -> tuple[int | None, bool]:
    """Make it a file unless there is one. Gives its size, None if a file has other content; and if it is new."""
    try:
        return _new_file(path, source), True
    except FileExistsError:
        with path.open("rb") as there:
            size = 0
            while True:
                ours, theirs = source.read(1 << 20), there.read(1 << 20)
                if ours != theirs:
                    return None, False
                if not ours:
                    return size, False
                size += len(ours)


def _new_file(path: Path, source: IO[bytes]) -> int:
    """Write a new file, flushed; gives its size. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
