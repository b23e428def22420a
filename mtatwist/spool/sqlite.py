"""The spool in one SQLite database, with the bodies of large messages in files beside it.

The order of steps, and what a crash at each leaves behind, stands in docs/spool.rst.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.envelope import Envelope, Message, Settled
from mtatwist.interfaces import ISpool
from mtatwist.spool import schema, times
from mtatwist.spool.bodies import BodyFiles
from mtatwist.spool.tables import Tables
from mtatwist.spool.writer import SpoolWriter
from mtatwist.store.datadir import DataDir
from mtatwist.store.queue_time import KeptTime
from mtatwist.store.writer import IWriterReactor, Writer

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpoolWriter
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

T = TypeVar("T")

COUNTER_BITS = 40
"""A queue number is the run's number and, below it, this many bits that count within the run."""

ROOM_CHECK = 0.5
"""Seconds between two looks at the file system's free space."""


@implementer(ISpool)
class SqliteSpool:
    """Group commit into one database; this process holds the directory's lock for as long as it runs."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        reactor: IWriterReactor,
        metrics: Instruments,
        minimum_free: int = 0,
    ) -> None:
        """``minimum_free``: octets of disk space below which has_room() says no."""
        self._directory = DataDir(data_dir)
        self._database = Path(data_dir) / "spool.sqlite"
        self._reactor = reactor
        self._minimum_free = minimum_free
        self._writer = Writer(lambda: schema.connect(self._database), reactor=reactor, metrics=metrics)
        self._bodies = BodyFiles(Path(data_dir) / "bodies", reactor)
        self._tables = Tables(self._bodies)
        self._readers: list[apsw.Connection] = []
        self._next = 0
        self._free = 0
        self._free_at = -ROOM_CHECK
        self.kept_time = KeptTime()

    def start(self) -> None:
        """Take the lock, open and migrate the database, begin a run.

        Raises DataDirError, SchemaTooNew, apsw.Error, OSError.
        """
        self._directory.acquire()
        try:
            connection = schema.connect(self._database)
            schema.migrate(connection)
            with connection:
                run: Any
                ((run,),) = connection.execute(
                    "INSERT INTO run SELECT coalesce(max(number), 0) + 1 FROM run RETURNING number"
                ).fetchall()
                connection.execute("DELETE FROM run WHERE number < ?", (run,))
            self.kept_time = times.read(connection)
            connection.close()
            self._tables.run = run
            self._next = run << COUNTER_BITS
            self._bodies.start()
            self._writer.start()
        except BaseException:
            self._directory.release()
            raise
        # What a crash left of messages that were never acknowledged, or that had already been dropped.
        self._bodies.run(self._sweep, self._next).addErrback(lambda failure: _log.failure("sweep_failed", failure))

    def stop(self) -> None:
        """Commit what waits, close everything, let go of the lock."""
        self._bodies.stop()
        while self._readers:
            self._readers.pop().close()
        # Last, so that SQLite checkpoints and removes the WAL.
        self._writer.stop()
        self._directory.release()

    def create(self, envelope: Envelope) -> ISpoolWriter:
        """Begin a message; it costs nothing until there is something to write."""
        self._next += 1
        return SpoolWriter(self._next, envelope, writer=self._writer, tables=self._tables, bodies=self._bodies)

    def has_room(self, size: int) -> bool:
        """Room for twice ``size`` and a full WAL, with minimum_free to spare (looked up at most twice a second)."""
        now = self._reactor.seconds()
        if now - self._free_at >= ROOM_CHECK:
            self._free_at = now
            try:
                status = os.statvfs(self._directory.path)
            except OSError as error:
                _log.error("disk_unreadable", error=str(error))
                self._free = 0
            else:
                self._free = status.f_bavail * status.f_frsize if status.f_favail or not status.f_files else 0
        return self._free >= max(self._minimum_free, 2 * size + schema.WAL_LIMIT)

    def claim_due(self, now: float, limit: int) -> Deferred[list[Message]]:
        """See ISpool."""
        return self._writer.submit(self._tables.claim, (now, limit))

    def next_due(self) -> Deferred[float | None]:
        """See ISpool."""
        return self._bodies.run(self._read, self._tables.next_due)

    def keep_ahead(self, ahead: float) -> Deferred[None]:
        """Remember how far the queue's time is ahead of the machine's; ``kept_time`` tells the next run."""
        return self._writer.submit(times.keep, ahead)

    def settle(self, results: Sequence[Settled], reports: Sequence[Any]) -> Deferred[list[Message]]:
        """See ISpool."""
        return Deferred.fromCoroutine(self._settle(results, reports))

    async def _settle(self, results: Sequence[Settled], reports: Sequence[SpoolWriter]) -> list[Message]:
        rows = [await report.prepare() for report in reports]
        gone = await self._writer.submit(self._tables.settle, (results, rows))
        if gone:
            # The rows went first; a file that outlives its row is swept at the next start.
            self._bodies.run(self._bodies.remove, gone).addErrback(
                lambda failure: _log.failure("remove_failed", failure)
            )
        return [report.message() for report in reports]

    def release(self, claims: Sequence[tuple[int, int, float]]) -> Deferred[None]:
        """See ISpool."""
        return self._writer.submit(self._tables.release, claims)

    def read(self, message: Message, offset: int, size: int) -> Deferred[bytes]:
        """See ISpool."""
        if message.body is not None:
            return succeed(message.body[offset : offset + size])
        return self._bodies.run(self._read, self._tables.read_body, message.number, offset, size)

    def _read(self, function: Callable[..., T], *arguments: object) -> T:
        """In a thread: call with a read-only connection of a pool no larger than the threads."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = apsw.Connection(os.fspath(self._database), flags=apsw.SQLITE_OPEN_READONLY)
            connection.set_busy_timeout(5000)
        try:
            return function(connection, *arguments)
        finally:
            self._readers.append(connection)

    def _sweep(self, below: int) -> None:
        """In a thread: delete body files of earlier runs that no row names."""
        files = [number for number in self._bodies.numbers() if number < below]
        orphans = self._read(self._tables.orphans, files)
        self._bodies.remove(orphans)
        if orphans:
            _log.info("orphans_swept", count=len(orphans))
