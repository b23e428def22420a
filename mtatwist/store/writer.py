"""Group commit: one thread writes, and everything that waits shares one transaction and one fsync."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

GROUP_LIMIT = 256
"""Jobs in one transaction: bounds how long the first of a group waits for the last."""

#: A kind of work: gets everything of its kind in the group, gives a result for each, in order.
Job = Callable[[apsw.Connection, Sequence[Any]], Sequence[Any]]
_Entry = tuple[Job, Any, "Deferred[Any]"]


class IWriterReactor(IReactorFromThreads, IReactorTime):
    """What the writer needs of a reactor."""


class WriterStopped(Exception):
    """The writer no longer takes work: the server is stopping."""


class Writer:
    """Owns the only connection that writes and checkpoints.

    A lone job commits at once; there is no timer. What arrives during a commit makes the next group.
    """

    def __init__(
        self, connect: Callable[[], apsw.Connection], *, reactor: IWriterReactor, metrics: Instruments
    ) -> None:
        self._connect = connect
        self._reactor = reactor
        self._metrics = metrics
        self._queue: SimpleQueue[list[_Entry] | None] = SimpleQueue()
        self._collected: list[_Entry] = []
        self._connection: apsw.Connection | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the database (raises what ``connect`` raises) and start the thread."""
        self._connection = self._connect()
        self._thread = threading.Thread(target=self._run, name="mtatwist-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, then end the thread and close the database. Blocks for that one group."""
        if self._thread is not None:
            self._hand_over()
            self._queue.put(None)
            self._thread.join()
            self._thread = None

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

    def _hand_over(self) -> None:
        """At the end of the reactor's round: what came in during one round belongs into one group."""
        if self._collected:
            collected, self._collected = self._collected, []
            self._queue.put(collected)

    def _run(self) -> None:
        running = True
        while running:
            waiting: list[_Entry] = []
            more = self._queue.get()
            while more is not None:
                waiting += more
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
            else:
                running = False
            for start in range(0, len(waiting), GROUP_LIMIT):
                answers = self._commit(waiting[start : start + GROUP_LIMIT])
                self._reactor.callFromThread(self._answer, answers)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit(self, group: list[_Entry]) -> list[tuple[Deferred[Any], bool, Any]]:
        """Do the whole group in one transaction. If that fails, each job alone: one bad job spoils no other.

        Unless the trouble is everybody's: each would wait anew for a lock that somebody else holds.
        """
        try:
            results = self._transaction(group)
        except Exception as error:
            trouble = error
        else:
            return [(done, True, result) for (_, _, done), result in zip(group, results, strict=True)]
        if isinstance(trouble, _DISK_TROUBLE):
            # Never believe a connection after an I/O error, nor a retried fsync: begin anew next time.
            self._forget_connection()
        elif len(group) > 1 and not isinstance(trouble, apsw.BusyError):
            return [answer for entry in group for answer in self._commit([entry])]
        return [(done, False, trouble) for _, _, done in group]

    def _transaction(self, group: list[_Entry]) -> list[Any]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
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

    def _forget_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # It is gone either way; the error that brought us here is the one that is reported.
            with contextlib.suppress(apsw.Error):
                connection.close()

    def _answer(self, answers: list[tuple[Deferred[Any], bool, Any]]) -> None:
        """Runs in the reactor's thread."""
        metrics = self._metrics
        metrics.spool_groups.value += 1
        metrics.spool_group_size.observe(len(answers))
        for done, good, result in answers:
            if good:
                done.callback(result)
            else:
                metrics.spool_errors.value += 1
                _log.error("spool_error", error=str(result), kind=type(result).__name__)
                done.errback(result)


_DISK_TROUBLE = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NotADBError,
    OSError,
)
