"""Whether there is room for new mail, with enough left to drain the queue."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtatwist.spool.ballast import Ballast
from mtatwist.spool.schema import WAL_LIMIT

_log = Logger()

ROOM_CHECK = 0.5
"""Seconds between two looks at the file system's free space."""


class Room:
    """Knows the free space below ``path``, and puts the ballast back when there is enough again."""

    def __init__(
        self,
        path: Path,
        *,
        clock: IReactorTime,
        minimum_free: int,
        ballast: Ballast,
        in_thread: Callable[[Callable[[], None]], Deferred[Any]],
    ) -> None:
        """``minimum_free``: octets of disk space below which there is no room."""
        self._path = path
        self._clock = clock
        self._minimum_free = minimum_free
        self._ballast = ballast
        self._in_thread = in_thread
        self._free = 0
        self._looked_at = -ROOM_CHECK
        self._making = False
        self._short_of = 0

    def start(self) -> None:
        """See what is left of the ballast, and put the rest back if there is room. Raises OSError."""
        self._ballast.look()
        self._look()
        self._looked_at -= ROOM_CHECK

    @property
    def free(self) -> int:
        """Octets that were free at the last look."""
        return self._free

    def enough_for(self, size: int) -> bool:
        """Room for twice ``size`` and a full WAL, with minimum_free to spare (looked up at most twice a second)."""
        if self._clock.seconds() - self._looked_at >= ROOM_CHECK:
            self._look()
        needed = self._needed(size)
        enough = not self._ballast.given_back and self._is_free(needed)
        if not enough or self._short_of:
            self._tell(enough, needed)
        return enough

    def _tell(self, enough: bool, needed: int) -> None:
        """Mail begins to be refused for want of room, or that is over: said once, whatever sizes are asked for."""
        if not self._short_of:
            self._short_of = needed
            _log.warn("room_short", free=self._free, kept_for_ballast=self._ballast.missing, needed=needed)
        elif enough and needed >= self._short_of:
            self._short_of = 0
            _log.info("room_again", free=self._free)

    def _needed(self, size: int) -> int:
        return max(self._minimum_free, 2 * size + WAL_LIMIT)

    def _is_free(self, needed: int) -> bool:
        # New mail must not take what the ballast had.
        return self._free - self._ballast.missing >= needed

    def _look(self) -> None:
        self._looked_at = self._clock.seconds()
        try:
            status = os.statvfs(self._path)
        except OSError as error:
            _log.error("disk_unreadable", error=str(error))
            self._free = 0
            return
        self._free = status.f_bavail * status.f_frsize if status.f_favail or not status.f_files else 0
        if self._ballast.missing and not self._making and self._is_free(self._needed(0)):
            self._making = True
            self._in_thread(self._ballast.make).addErrback(self._not_made).addBoth(self._made)

    def _not_made(self, failure: Any) -> None:
        _log.error("ballast_not_made", error=failure.getErrorMessage())

    def _made(self, _: object) -> None:
        self._making = False
        self._looked_at -= ROOM_CHECK
