"""A file that is read again when it changes; one that is wrong by then leaves what it held before in force."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtatwist.recipients.shared import Shared
from mtatwist.recipients.tables import SHOWN, TableError
from mtatwist.regular_file import NotRegular, TooLarge, read_regular

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

T = TypeVar("T")

_log = Logger()

CHECK_SECONDS = 1.0
"""How long a change may go unnoticed, in seconds."""

PATIENCE = 2.0
"""Seconds that a recipient waits for a file to be looked at; then it has to do with what is known of it."""

READ_LIMIT = 32 * 1024 * 1024
"""Octets a file can have."""

Mark = tuple[int, int, int]
InThread = Callable[[Callable[[], T]], Awaitable[T]]


class FileError(Exception):
    """A file can't be used; ``reasons`` are for the administrator, each with the file and, mostly, the line.

    ``forbidden``: this user may not read it.
    """

    def __init__(self, *reasons: str, forbidden: bool = False) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.forbidden = forbidden


class WatchedTable(Generic[T]):
    """What a file holds now. It is read at once; later it is looked at in a thread, when somebody asks."""

    def __init__(
        self,
        path: str,
        parse: Callable[[str], T],
        *,
        clock: IReactorTime,
        in_thread: InThread[tuple[Mark, T] | None],
        metrics: Instruments,
    ) -> None:
        """``parse`` raises TableError. Raises FileError when the file can't be used."""
        self._path = path
        self._parse = parse
        self._clock = clock
        self._in_thread = in_thread
        self._metrics = metrics
        self._complaint = ""
        self._begun_at = self._checked_at = clock.seconds()
        self._check: Shared[None] | None = None
        self._mark, self._value = read_table(path, parse)

    async def current(self) -> T:
        """What it holds, as of a second ago. Never raises."""
        now = self._clock.seconds()
        if (self._check is None or self._check.done) and now - self._checked_at >= CHECK_SECONDS:
            self._begun_at = now
            self._check = Shared(Deferred.fromCoroutine(self._look()))
        # A disk that has been away for longer holds up nobody more.
        if self._check is not None and not self._check.done and now - self._begun_at < PATIENCE:
            with contextlib.suppress(TimeoutError):
                await self._check.join().addTimeout(PATIENCE, self._clock)
        return self._value

    async def _look(self) -> None:
        try:
            changed = await self._in_thread(self._read)
        except FileError as error:
            self._complain(str(error))
        except Exception:
            _log.failure("file_check_failed", path=self._path)
        else:
            self._complaint = ""
            if changed is not None:
                self._mark, self._value = changed
                _log.info("file_read", path=self._path)
        finally:
            self._checked_at = self._clock.seconds()

    def _complain(self, complaint: str) -> None:
        """Once for each thing that is wrong."""
        if complaint != self._complaint:
            self._complaint = complaint
            self._metrics.recipient_files_refused.value += 1
            _log.warn("file_refused", path=self._path, reason=complaint)

    def _read(self) -> tuple[Mark, T] | None:
        """None: it is as it was. Raises FileError."""
        with contextlib.suppress(OSError):
            if _mark(os.stat(self._path)) == self._mark:
                return None
        return read_table(self._path, self._parse)


def read_table(path: str, parse: Callable[[str], T]) -> tuple[Mark, T]:
    """Read a whole file: its mark, which changes with it, and what ``parse`` makes of its text. Raises FileError."""
    try:
        content, facts = read_regular(path, READ_LIMIT)
    except NotRegular as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except TooLarge:
        raise FileError(f"{path}: is larger than {READ_LIMIT >> 20} MiB") from None
    except (OSError, ValueError) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise FileError(f"{path}: cannot be read: {words}", forbidden=isinstance(error, PermissionError)) from None
    try:
        return _mark(facts), parse(content.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(f"{path}:{line}: is not UTF-8 text") from None
    except TableError as error:
        shown = [f"{path}:{line}: {reason}" for line, reason in error.problems[:SHOWN]]
        more = len(error.problems) - len(shown)
        raise FileError(*shown, *([f"{path}: and {more} more wrong lines"] if more else ())) from None


def _mark(stat: os.stat_result) -> Mark:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
