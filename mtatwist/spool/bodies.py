"""Large bodies: a file each, streamed to and from a bounded pool of threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mtatwist.envelope import queue_id
from mtatwist.store.datadir import sync_directory

T = TypeVar("T")

THREADS = 4
"""Threads for files and reads: more do not make one disk faster."""


class BodyFiles:
    """The directory of body files, named by queue id."""

    def __init__(self, path: Path, reactor: IReactorFromThreads) -> None:
        self.path = path
        self._reactor = reactor
        self._pool = ThreadPool(1, THREADS, name="mtatwist-bodies")
        #: Messages whose commit failed in the flush: a crash may yet show that their rows are there.
        self.doubtful: list[int] = []

    def start(self) -> None:
        """Make the directory durable, start the threads."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
        # Always: an earlier run may have died between making it and this.
        sync_directory(self.path.parent)
        self._pool.start()

    def stop(self) -> None:
        """End the threads once their work is done."""
        self._pool.stop()

    def run(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Call ``function`` in one of the threads."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def file(self, number: int) -> Path:
        """Where the body of message ``number`` lies."""
        return self.path / queue_id(number)

    def create(self, number: int) -> BinaryIO:
        """A new file for a body (in a thread)."""
        return open(os.open(self.file(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def read(self, number: int, offset: int, size: int) -> bytes:
        """A part of a body (in a thread)."""
        with open(self.file(number), "rb") as file:
            return os.pread(file.fileno(), size, offset)

    def remove(self, numbers: Iterable[int]) -> None:
        """Delete bodies (in a thread); one that is not there is no error."""
        for number in numbers:
            self.file(number).unlink(missing_ok=True)

    def numbers(self) -> list[int]:
        """The messages that have a file here (in a thread)."""
        return body_numbers(self.path)


def body_numbers(bodies: Path) -> list[int]:
    """The messages that have a file in ``bodies``, if there is such a directory; names that are no queue id are
    passed over."""
    found = []
    for path in bodies.iterdir() if bodies.is_dir() else ():
        try:
            number = int(path.name, 16)
        except ValueError:
            continue
        if queue_id(number) == path.name:
            found.append(number)
    return found
