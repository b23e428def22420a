"""Group commit: one thread writes, and everything that waits shares one transaction and one fsync."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from mtatwist.store.trouble import StoreBroken, Trouble, doubtful, trouble_of

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

GROUP_LIMIT = 256
"""Jobs in one transaction: bounds how long the first of a group waits for the last."""

RETRY_SECONDS = 2.0
"""Time between two tries to open the database again, while it is in trouble."""

#: A kind of work: gets everything of its kind in the group, gives a result for each, in order.
Job = Callable[[apsw.Connection, Sequence[Any]], Sequence[Any]]
_Entry = tuple[Job, Any, "Deferred[Any]"]


class IWriterReactor(IReactorFromThreads, IReactorTime):
    """What the writer needs of a reactor."""


class WriterStopped(Exception):
    """The writer no longer takes work: the server is stopping."""


class _Signal(Enum):
    """What the thread finds in its queue, beside groups and errors that others met."""

    STOP = 0
    OPEN_AGAIN = 1


class Writer:
    """Owns the only connection that writes and checkpoints.

    A lone job commits at once; there is no timer. What arrives during a commit makes the next group.

    After an error of the disk nothing is believed, and everybody is told so at once, until the database has been opened
    again and verified: at once, and then every RETRY_SECONDS. After damage there is no second try. docs/spool.rst has
    the reasons.
    """

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        *,
        reactor: IWriterReactor,
        metrics: Instruments,
        examine: Callable[[BaseException], BaseException] = lambda error: error,
        verify: Callable[[apsw.Connection], object] = lambda connection: None,
        relieve: Callable[[Trouble], object] = lambda trouble: None,
        recovered: Callable[[], object] = lambda: None,
    ) -> None:
        """``examine`` tells what an error really was. ``verify``: looks at a database that was opened again, commits
        something, or raises. ``relieve``: makes what room it can. These are called in the thread; ``recovered``, when
        all is well again, in the reactor's."""
        self._connect = connect
        self._reactor = reactor
        self._metrics = metrics
        self._examine = examine
        self._verify = verify
        self._relieve = relieve
        self._on_recovery = recovered
        self._queue: SimpleQueue[list[_Entry] | _Signal | BaseException] = SimpleQueue()
        self._collected: list[_Entry] = []
        self._connection: apsw.Connection | None = None
        self._anchor: apsw.Connection | None = None
        self._thread: threading.Thread | None = None
        self._retry: IDelayedCall | None = None
        self._since: float | None = None
        self._well_since = -RETRY_SECONDS
        self.trouble: Trouble | None = None
        #: Called when the thread was given work: much of what else there is to do waits for that.
        self.meanwhile: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Open the database (raises what ``connect`` raises) and start the thread."""
        self._connection = self._connect()
        # As long as a connection that reads is open, SQLite knows where the last good commit ends. So what a failed
        # one has written is not there when the database is opened again, and the next commit overwrites it.
        self._anchor = self._connect()
        self._anchor.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._anchor.execute("PRAGMA user_version").fetchall()
        self._thread = threading.Thread(target=self._run, name="mtatwist-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, then end the thread and close the database. Blocks for that one group."""
        if self._thread is not None:
            self._hand_over()
            self._queue.put(_Signal.STOP)
            self._thread.join()
            self._thread = None
            if self._retry is not None and self._retry.active():
                self._retry.cancel()

    def submit(self, job: Job, payload: Any) -> Deferred[Any]:
        """Have ``job`` do ``payload`` in the next group; fires in the reactor's thread, after the commit."""
        done: Deferred[Any] = Deferred()
        if self._thread is None:
            done.errback(WriterStopped())
        else:
            if not self._collected:
                self._reactor.callLater(0, self._hand_over)
            self._collected.append((job, payload, done))
        return done

    def doubt(self, error: BaseException) -> None:
        """One who uses the same disk met ``error``: open the database again and verify it, as after trouble of our own.

        A file that found no room is only counted: the database may well have some.
        """
        if self._thread is None or not doubtful(error):
            return
        if trouble_of(error) is Trouble.FULL:
            self._metrics.spool_trouble_full.value += 1
            _log.error("spool_trouble", trouble=Trouble.FULL.value, error=str(error), kind=type(error).__name__)
        elif self.trouble is None:
            self.trouble = trouble_of(error)
            self._queue.put(error)

    def _hand_over(self) -> None:
        """At the end of the reactor's round: what came in during one round belongs into one group."""
        if self._collected:
            collected, self._collected = self._collected, []
            self._queue.put(collected)
            self.meanwhile()

    # In the thread.

    def _run(self) -> None:
        running = True
        while running:
            waiting: list[_Entry] = []
            more = self._queue.get()
            while more is not _Signal.STOP:
                if isinstance(more, list):
                    waiting += more
                elif isinstance(more, BaseException):
                    self._stumble(more)
                else:
                    self._open_again()
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
            else:
                running = False
            for start in range(0, len(waiting), GROUP_LIMIT):
                answers = self._commit(waiting[start : start + GROUP_LIMIT])
                self._reactor.callFromThread(self._answer, answers)
        for connection in (self._anchor, self._connection):
            # The one that writes goes last, so that SQLite checkpoints and removes the log.
            _close(connection)
        self._anchor = self._connection = None

    def _commit(self, group: list[_Entry]) -> list[tuple[Deferred[Any], bool, Any]]:
        """Do the whole group in one transaction. If that fails, each job alone: one bad job spoils no other.

        Unless the trouble is everybody's: each would wait anew for a lock that somebody else holds.
        """
        if self._connection is None:
            broken = StoreBroken("the database has not been opened again yet")
            return [(done, False, broken) for _, _, done in group]
        try:
            results = self._transaction(self._connection, group)
        except Exception as error:
            trouble = error
        else:
            return [(done, True, result) for (_, _, done), result in zip(group, results, strict=True)]
        if trouble_of(trouble) is not None:
            # Never believe a connection after an I/O error, nor a retried fsync.
            self._stumble(trouble)
        elif len(group) > 1 and not isinstance(trouble, apsw.BusyError):
            return [answer for entry in group for answer in self._commit([entry])]
        return [(done, False, trouble) for _, _, done in group]

    def _transaction(self, connection: apsw.Connection, group: list[_Entry]) -> list[Any]:
        kinds: dict[Job, list[int]] = {}
        for position, (job, _, _) in enumerate(group):
            kinds.setdefault(job, []).append(position)
        results: list[Any] = [None] * len(group)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for job, positions in kinds.items():
                answers = job(connection, [group[position][1] for position in positions])
                for position, answer in zip(positions, answers, strict=True):
                    results[position] = answer
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return results

    def _stumble(self, error: BaseException) -> None:
        """Trouble: close the database, make room, and have it told before anybody is answered."""
        connection, self._connection = self._connection, None
        _close(connection)
        error = self._examine(error)
        try:
            self._relieve(trouble_of(error) or Trouble.IO)
        except Exception:
            _log.failure("relief_failed")
        self._reactor.callFromThread(self._in_trouble, error)

    def _open_again(self) -> None:
        """Is all well again?"""
        if self._connection is not None:
            return
        connection = None
        try:
            connection = self._connect()
            self._verify(connection)
        except Exception as error:
            _close(connection)
            self._reactor.callFromThread(self._still_in_trouble, self._examine(error))
        else:
            self._connection = connection
            self._reactor.callFromThread(self._recovered)

    # In the reactor's thread.

    def _in_trouble(self, error: BaseException) -> None:
        now, metrics = self._reactor.seconds(), self._metrics
        self.trouble = trouble_of(error) or Trouble.IO
        if self._since is None:
            self._since = now
        log = _log.error
        if self.trouble is Trouble.FULL:
            metrics.spool_trouble_full.value += 1
        elif self.trouble is Trouble.IO:
            metrics.spool_trouble_io.value += 1
        else:
            metrics.spool_trouble_corrupt.value += 1
            log = _log.critical
        log("spool_trouble", trouble=self.trouble.value, error=str(error), kind=type(error).__name__)
        if self.trouble is not Trouble.CORRUPT:
            # At once, but for trouble that comes back as soon as it is over.
            self._open_again_in(max(self._well_since + RETRY_SECONDS - now, 0))

    def _still_in_trouble(self, error: BaseException) -> None:
        if trouble_of(error) is Trouble.CORRUPT:
            self._in_trouble(error)
        else:
            _log.error("spool_not_opened", error=str(error), kind=type(error).__name__)
            self._open_again_in(RETRY_SECONDS)

    def _open_again_in(self, seconds: float) -> None:
        if self._thread is not None:
            self._retry = self._reactor.callLater(seconds, self._queue.put, _Signal.OPEN_AGAIN)

    def _recovered(self) -> None:
        self._well_since = self._reactor.seconds()
        since, self._since, self.trouble = self._since, None, None
        self._metrics.spool_recoveries.value += 1
        _log.warn("spool_recovered", seconds=round(self._well_since - (since or self._well_since), 3))
        self._on_recovery()

    def _answer(self, answers: list[tuple[Deferred[Any], bool, Any]]) -> None:
        metrics = self._metrics
        metrics.spool_groups.value += 1
        metrics.spool_group_size.observe(len(answers))
        for done, good, result in answers:
            if good:
                done.callback(result)
            else:
                metrics.spool_errors.value += 1
                if self.trouble is None:
                    # Trouble of everybody's has been told once.
                    _log.error("spool_error", error=str(result), kind=type(result).__name__)
                done.errback(result)


def _close(connection: apsw.Connection | None) -> None:
    """It is gone either way; the error that brought us here is the one that is reported."""
    if connection is not None:
        with contextlib.suppress(apsw.Error):
            connection.close()
