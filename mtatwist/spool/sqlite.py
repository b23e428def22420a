"""The spool in one SQLite database, with the bodies of large messages in files beside it.

The order of steps, and what a crash at each leaves behind, stands in docs/spool.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.envelope import COUNTER_BITS, Envelope, Message, Settled
from mtatwist.interfaces import ISpool
from mtatwist.spool import changes, check, due, schema, survey, times
from mtatwist.spool.ballast import Ballast
from mtatwist.spool.bodies import BodyFiles
from mtatwist.spool.bounded import Looks, bounded
from mtatwist.spool.changes import Answer, Changes, Found, Key, Request
from mtatwist.spool.due import Claims
from mtatwist.spool.room import Room
from mtatwist.spool.selection import Selection
from mtatwist.spool.survey import Survey
from mtatwist.spool.tables import Tables
from mtatwist.spool.writer import Held, SpoolWriter
from mtatwist.store.datadir import DataDir
from mtatwist.store.queue_time import KeptTime
from mtatwist.store.trouble import Damaged, Trouble, doubtful, trouble_of
from mtatwist.store.writer import IWriterReactor, Job, Writer

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpoolWriter
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

T = TypeVar("T")


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
        ballast: int = 0,
    ) -> None:
        """``minimum_free``: octets of disk space below which has_room() says no; ``ballast``: octets of it that are
        kept for draining the queue when the disk is full all the same."""
        self._directory = DataDir(data_dir)
        self._database = Path(data_dir) / "spool.sqlite"
        self._reactor = reactor
        self._ballast = Ballast(Path(data_dir) / "ballast", ballast, metrics)
        self._writer = Writer(
            self._connect,
            reactor=reactor,
            metrics=metrics,
            examine=self._examine,
            verify=self._verify,
            relieve=self._relieve,
            recovered=self._recovered,
        )
        self._bodies = BodyFiles(Path(data_dir) / "bodies", reactor)
        self._room = Room(
            Path(data_dir),
            clock=reactor,
            minimum_free=minimum_free,
            ballast=self._ballast,
            in_thread=self._bodies.run,
        )
        self._tables = Tables(self._bodies)
        self._claims = Claims()
        self._changes = Changes()
        self._held = Held(metrics)
        self._readers: list[apsw.Connection] = []
        self._looks = Looks()
        self._next = 0
        self._identity: tuple[int, int] | None = None
        self.kept_time = KeptTime()

    def start(self) -> None:
        """Take the lock, open and migrate the database, begin a run.

        Raises DataDirError, SchemaTooNew, Damaged, apsw.Error, OSError.
        """
        self._directory.acquire()
        try:
            run = self._begin()
            self._tables.run = self._changes.run = run
            self._next = run << COUNTER_BITS
            self._bodies.start()
            self._room.start()
            self._writer.start()
        except BaseException as error:
            self._directory.release()
            error = self._examine(error)
            if trouble_of(error) is Trouble.CORRUPT:
                raise Damaged(str(error)) from error
            raise error
        # What a crash left of messages that were never acknowledged, or that had already been dropped.
        self._bodies.run(self._sweep, self._next).addErrback(lambda failure: _log.failure("sweep_failed", failure))

    def _begin(self) -> int:
        """Open, check and migrate the database; gives the number of this run."""
        check.files(self._directory.path)
        with contextlib.closing(schema.connect(self._database)) as connection:
            # A damaged database keeps its log.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            check.glance(connection, self._reactor.seconds)
            schema.migrate(connection)
            check.layout(connection)
            with connection:
                run = self._claims.begin(connection)
            self.kept_time = times.read(connection)
            return run

    def meanwhile(self, do: Callable[[], object]) -> None:
        """Have it done each time that the writer was given work: many sessions wait for that then."""
        self._writer.meanwhile = do

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
        return SpoolWriter(
            self._next,
            envelope,
            writer=self._writer,
            tables=self._tables,
            bodies=self._bodies,
            held=self._held,
            may_commit=self._may_commit,
        )

    def _may_commit(self) -> bool:
        return not self._ballast.given_back

    def has_room(self, size: int) -> bool:
        """Room for twice ``size`` and a full WAL, with minimum_free to spare; none while the spool is in trouble."""
        return self._writer.trouble is None and self._room.enough_for(size)

    @property
    def free(self) -> int:
        """Octets of disk space that were free at the last look: see has_room()."""
        return self._room.free

    @property
    def trouble(self) -> str | None:
        """The word for what is wrong with the disk or the database, as far as is known."""
        return None if self._writer.trouble is None else self._writer.trouble.value

    def survey(self, now: float) -> Deferred[Survey]:
        """How much waits in the queue, at this time of its own."""
        return self._bodies.run(self._read, survey.survey, now)

    def look(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Have ``function(connection, *arguments)`` called in a thread: see spool.views. Fires with what it raises, or
        TooLong."""
        return self._looks.run(lambda: self._bodies.run(self._read, bounded, function, *arguments))

    def find(
        self,
        action: str,
        selection: Selection,
        now: float,
        after: Key,
        limit: int,
        next_hop: Callable[[str], str],
    ) -> Deferred[Found]:
        """Those to whom ``action`` may be done: see spool.changes.find()."""
        return self.look(changes.find, action, selection, now, after, limit, next_hop)

    def change(self, request: Request) -> Deferred[Answer]:
        """Do it to those of them that are still what was meant, and that nobody works on."""
        return self._writer.submit(self._changes.change, request)

    def try_to_write(self) -> Deferred[None]:
        """Commit something that changes nothing. Fires with what goes wrong."""
        return self._writer.submit(survey.touch, None)

    def due_domains(self, now: float, start: str, limit: int) -> Deferred[tuple[list[str], str | None]]:
        """See ISpool."""
        return self._bodies.run(self._read, due.due_domains, now, start, limit)

    def claim_due(self, now: float, shares: Sequence[tuple[str, int]]) -> Deferred[list[Message]]:
        """See ISpool. What is due is looked up beside the writer, so that no commit waits for it."""
        return Deferred.fromCoroutine(self._claim_due(now, shares))

    async def _claim_due(self, now: float, shares: Sequence[tuple[str, int]]) -> list[Message]:
        work = await self._bodies.run(self._read, due.due, now, shares)
        claimed: list[Message] = await self._writer.submit(self._claims.claim, (now, work)) if work else []
        return claimed

    def claim_late(self, received_by: float, after: int, unwarned: bool, limit: int) -> Deferred[list[Message]]:
        """See ISpool."""
        return Deferred.fromCoroutine(self._claim_late(received_by, after, unwarned, limit))

    async def _claim_late(self, received_by: float, after: int, unwarned: bool, limit: int) -> list[Message]:
        work = await self._bodies.run(self._read, due.late, received_by, after, unwarned, limit)
        claimed: list[Message] = await self._writer.submit(self._claims.claim_late, (work, unwarned)) if work else []
        return claimed

    def next_due(self, after: float) -> Deferred[float | None]:
        """See ISpool."""
        return self._bodies.run(self._read, due.next_due, after)

    def keep_ahead(self, ahead: float) -> Deferred[None]:
        """Remember how far the queue's time is ahead of the machine's; ``kept_time`` tells the next run."""
        return self._writer.submit(times.keep, ahead)

    def submit(self, job: Job, payload: Any) -> Deferred[Any]:
        """Have a job of the small tables beside the mail done, in the same groups; fires after the commit."""
        return self._writer.submit(job, payload)

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
        return self._writer.submit(self._claims.release, claims)

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
            result = function(connection, *arguments)
        except Exception as error:
            if doubtful(error):
                with contextlib.suppress(apsw.Error):
                    connection.close()
                self._reactor.callFromThread(self._writer.doubt, error)
            else:
                self._readers.append(connection)
            raise
        self._readers.append(connection)
        return result

    def _connect(self) -> apsw.Connection:
        """A connection for the writer. Raises Damaged, OSError, apsw.Error."""
        status = os.stat(self._database)
        identity = status.st_dev, status.st_ino
        if self._identity not in (None, identity):
            # SQLite would read the log of ours into it.
            raise Damaged("another database has taken the place of ours")
        self._identity = identity
        return schema.connect(self._database, create=False)

    def _examine(self, error: BaseException) -> BaseException:
        """What it is that SQLite calls ``error``: not all of what it calls damage is damage."""
        if trouble_of(error) is not Trouble.CORRUPT:
            return error
        return check.unreadable(self._database, self._reactor.seconds) or error

    def _verify(self, connection: apsw.Connection) -> None:
        """In the writer's thread: is this the database of this run, whole as far as one sees, and can it be written?"""
        check.glance(connection, self._reactor.seconds)
        if connection.execute("SELECT number FROM run").fetchall() != [(self._tables.run,)]:
            raise Damaged("another server has begun a run")
        connection.execute("UPDATE run SET number=number")

    def _relieve(self, trouble: Trouble) -> None:
        """In the writer's thread."""
        if trouble is Trouble.FULL:
            self._ballast.give_back()

    def _recovered(self) -> None:
        """What a commit in doubt might have needed is now known to be needed no more."""
        numbers, self._bodies.doubtful = self._bodies.doubtful, []
        if numbers:
            self._bodies.run(self._remove_orphans, numbers).addErrback(
                lambda failure: _log.failure("remove_failed", failure)
            )

    def _sweep(self, below: int) -> None:
        """In a thread: delete body files of earlier runs that no row names."""
        files = [number for number in self._bodies.numbers() if number < below]
        orphans = self._remove_orphans(files)
        if orphans:
            _log.info("orphans_swept", count=len(orphans))

    def _remove_orphans(self, numbers: list[int]) -> list[int]:
        """In a thread: delete those of these files that no row names."""
        orphans = self._read(self._tables.orphans, numbers)
        self._bodies.remove(orphans)
        return orphans
