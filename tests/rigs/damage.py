"""A spool with some hundred messages of all kinds, and what can happen to its files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from rigs.messages import AT, body, envelope, settled
from rigs.pump import Pump

from mtatwist.envelope import State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.sqlite import SqliteSpool

PAGE = 4096
#: Among them bodies that fill a page, that need a chain of pages, and that lie in a file.
SIZES = (0, 50, 900, 2_000, 4_050, 5_000, 30_000, 200_000, 300_000)


class Kept(NamedTuple):
    """A message as it must come out again."""

    size: int
    recipients: tuple[str, ...]


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[tuple[SqliteSpool, Pump]]:
    """A spool that is stopped in order."""
    pump = Pump()
    spool = SqliteSpool(data_dir, reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    try:
        yield spool, pump
    finally:
        spool.stop()


def store(spool: SqliteSpool, pump: Pump, count: int) -> dict[int, Kept]:
    """Messages of all sizes, some with several recipients; every fifth one has been delivered, and is gone."""
    kept = {}
    for turn in range(count):
        to = tuple(f"{turn}-{index}@example{turn % 7}.org" for index in range(1 + turn % 3))
        writer = spool.create(envelope(*to))
        size = SIZES[turn % len(SIZES)]
        pause = writer.write(body(size, writer.number))
        if pause is not None:
            pump.wait(pause)
        message: Any = pump.wait(writer.commit())
        if turn % 5 == 4:
            pump.wait(spool.settle([settled(message, index, State.DELIVERED) for index in range(len(to))], []))
        else:
            pump.wait(spool.settle([settled(message, 0, State.DEFERRED, AT + turn)], []))
            kept[message.number] = Kept(size, to)
    return kept


def make(data_dir: Path, count: int = 300) -> dict[int, Kept]:
    """A spool that was stopped."""
    with running(data_dir) as (spool, pump):
        return store(spool, pump, count)


def make_crashed(data_dir: Path, count: int = 300) -> dict[int, Kept]:
    """A spool whose server was killed: some of it is in the log alone."""
    with running(data_dir.with_name("running")) as (spool, pump):
        kept = store(spool, pump, count)
        shutil.copytree(data_dir.with_name("running"), data_dir)
    assert (data_dir / "spool.sqlite-wal").stat().st_size > 100_000
    return kept


def pages(data_dir: Path) -> int:
    """How many pages the database has."""
    return (data_dir / "spool.sqlite").stat().st_size // PAGE


def overwrite(data_dir: Path, page: int, data: bytes, offset: int = 0) -> None:
    """Put ``data`` into a page (the first is 1)."""
    with (data_dir / "spool.sqlite").open("r+b") as file:
        file.seek((page - 1) * PAGE + offset)
        file.write(data)


def found(database: Path, data_dir: Path) -> dict[int, Kept]:
    """What a database holds; every body that it has must be whole."""
    with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        kept = {}
        for number, size, content in connection.execute("SELECT number, size, body FROM message").fetchall():
            if content is None:
                content = (data_dir / "bodies" / f"{number:014X}").read_bytes()
            assert content == body(size, number)
            recipients = connection.execute("SELECT address FROM recipient WHERE number=? ORDER BY idx", (number,))
            kept[number] = Kept(size, tuple(address for (address,) in recipients))
        return kept
