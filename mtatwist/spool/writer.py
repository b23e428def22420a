"""One message on its way into the SQLite spool: in memory while it is small, streamed to a file once it is not."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import apsw
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.envelope import Envelope, Message
from mtatwist.interfaces import ISpoolWriter

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.spool.bodies import BodyFiles
    from mtatwist.spool.tables import NewMessage, Tables
    from mtatwist.store.writer import Writer

_log = Logger()

IN_ROW = 256 * 1024
"""Octets up to which a body stands in its row: it then shares the group's fsync. A much larger one, which goes through
the disk twice (WAL and database), costs more than the fsyncs of a file of its own: docs/spool.rst has the figures."""

WRITE_SIZE = 256 * 1024
"""Octets handed to a thread at once; a writer holds at most twice as much."""

HELD_LIMIT = 64 * 1024 * 1024
"""Octets that all writers together hold, before each of them holds only a little."""

LITTLE = 16 * 1024
"""What a writer holds then: a small message still stands in its row, a larger one goes to a file as it comes."""


class Held:
    """Counts the octets of unfinished messages in memory, and says it when they are too many."""

    def __init__(self, metrics: Instruments) -> None:
        self.octets = 0
        self._metrics = metrics
        self._short = False

    def little(self) -> int:
        """How much a writer may hold, now that all of them hold too much."""
        if not self._short:
            self._short = True
            self._metrics.memory_short.value += 1
            _log.warn("memory_short", octets=self.octets)
        return LITTLE

    def let_go(self, octets: int) -> None:
        """So many fewer."""
        self.octets -= octets
        if self.octets < HELD_LIMIT // 2:
            self._short = False


@implementer(ISpoolWriter)
class SpoolWriter:
    """Collects a message; nothing is promised before :meth:`commit` fires."""

    def __init__(
        self,
        number: int,
        envelope: Envelope,
        *,
        writer: Writer,
        tables: Tables,
        bodies: BodyFiles,
        held: Held,
        may_commit: Callable[[], bool],
    ) -> None:
        """``held`` is shared by all writers. ``may_commit``: is what room there is for new messages, too? It is always
        there for reports."""
        self.number = number
        self._may_commit = may_commit
        self._envelope = envelope
        self._writer = writer
        self._tables = tables
        self._bodies = bodies
        self._held = held
        self._holds = 0
        self._parts: list[bytes] = []
        self._waiting = 0
        self._size = 0
        self._file: BinaryIO | None = None
        self._in_file = False
        self._task: Deferred[None] | None = None
        self._trouble: Failure | None = None
        self._committing = False
        self._durable = False

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take more. A thread writes while the next part comes in; two parts ahead of it, the caller waits."""
        octets = len(data)
        self._size += octets
        if self._trouble is not None:
            return None
        self._parts.append(data)
        self._waiting += octets
        self._holds += octets
        held = self._held
        held.octets += octets
        most = IN_ROW if held.octets <= HELD_LIMIT else held.little()
        if not self._in_file and self._size <= most:
            return None
        ahead = min(WRITE_SIZE, most)
        if self._in_file and self._waiting < ahead:
            return None
        if self._task is None:
            self._flush()
            return None
        return self._task_done().addCallback(self._flush_waiting) if self._waiting >= ahead else None

    def commit(self) -> Deferred[Message]:
        """Fires with the message once it is on stable storage, claimed by this run."""
        if self._trouble is None and not self._may_commit():
            self._trouble = Failure(OSError(errno.ENOSPC, "the disk is full, and what room there is is the queue's"))
        self._committing = True
        if self._in_file:
            return Deferred.fromCoroutine(self._commit_file())
        if self._trouble is not None:
            self._let_go()
            return fail(self._trouble)
        body = b"".join(self._parts)
        done = self._writer.submit(self._tables.insert, self._tables.row(self.number, self._envelope, self._size, body))
        return done.addCallbacks(self._stored, self._let_go, callbackArgs=(body,))

    def _stored(self, _: None, body: bytes) -> Message:
        self._let_go()
        return Message(self.number, self._envelope, self._size, body)

    async def prepare(self) -> NewMessage:
        """The rows of this message, its file (if any) durable: for a transaction that does more than this.

        Once it has succeeded it may be asked again.
        """
        if not self._in_file:
            if self._trouble is not None:
                self._trouble.raiseException()
            return self._tables.row(self.number, self._envelope, self._size, b"".join(self._parts))
        await self._finish_file()
        return self._tables.row(self.number, self._envelope, self._size, None)

    def message(self) -> Message:
        """The message, once what prepare() gave has been committed."""
        self._let_go()
        return Message(self.number, self._envelope, self._size, None if self._in_file else b"".join(self._parts))

    def abort(self) -> None:
        """Forget it, file and all; once commit() has been called that cleans up, and its outcome stands."""
        if self._committing:
            return
        self._trouble = self._trouble or Failure(RuntimeError("aborted"))
        self._parts.clear()
        self._let_go()
        if self._in_file:
            Deferred.fromCoroutine(self._discard())

    def _let_go(self, result: Any = None, octets: int | None = None) -> Any:
        """So many octets of what we held, or all, are no longer in memory, or no longer ours."""
        octets = self._holds if octets is None else min(octets, self._holds)
        self._holds -= octets
        self._held.let_go(octets)
        return result

    async def _commit_file(self) -> Message:
        try:
            await self._writer.submit(self._tables.insert, await self.prepare())
        except apsw.IOError:
            # The row may yet turn out to be there after a crash: the file stays until the database has been verified.
            self._bodies.doubtful.append(self.number)
            raise
        except Exception:
            await self._discard()
            raise
        finally:
            self._let_go()
        return Message(self.number, self._envelope, self._size)

    def _flush(self) -> None:
        """Hand what has come to a thread."""
        parts, self._parts, octets, self._waiting = self._parts, [], self._waiting, 0
        self._in_file = True
        written = self._bodies.run(self._write_parts, parts).addBoth(self._let_go, octets)
        self._task = written.addCallbacks(self._flushed, self._failed)

    def _write_parts(self, parts: list[bytes]) -> None:
        """In a thread."""
        if self._file is None:
            self._file = self._bodies.create(self.number)
        self._file.writelines(parts)

    def _flushed(self, _: object) -> None:
        self._task = None

    def _failed(self, failure: Failure) -> None:
        self._task = None
        self._trouble = self._trouble or failure
        self._parts.clear()
        self._writer.doubt(failure.value or RuntimeError())

    def _flush_waiting(self, _: None) -> None:
        if self._waiting and self._task is None and self._trouble is None:
            self._flush()

    def _task_done(self) -> Deferred[None]:
        """Fires when the thread is done with the part it has."""
        waiter: Deferred[None] = Deferred()
        assert self._task is not None
        self._task.addBoth(lambda _: waiter.callback(None))
        return waiter

    async def _finish_file(self) -> None:
        while self._task is not None:
            await self._task_done()
        if self._trouble is not None:
            self._trouble.raiseException()
        if not self._durable:
            try:
                await self._bodies.run(self._sync, self._parts)
            except OSError as error:
                self._writer.doubt(error)
                raise
            self._parts.clear()
            self._durable = True

    def _sync(self, parts: list[bytes]) -> None:
        """In a thread: all on stable storage, or an exception."""
        if self._file is None:
            self._file = self._bodies.create(self.number)
        with self._file as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())

    async def _discard(self) -> None:
        """Remove the file, after the thread that may still write it."""
        try:
            while self._task is not None:
                await self._task_done()
            await self._bodies.run(self._remove)
        except Exception:
            _log.failure("discard_failed", number=self.number)

    def _remove(self) -> None:
        """In a thread. Closing writes what is buffered, which on a full disk fails: the file must go all the same."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._bodies.remove([self.number])
