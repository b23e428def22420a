"""Room on the disk that is kept for bad times: a file that takes it, and is deleted when the disk is full."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.logger import Logger

from mtatwist.store.datadir import sync_directory

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()


class Ballast:
    """A file of ``size`` octets (0: none); ``missing`` of them are to be put back before new mail is accepted.

    While it is ``given_back``, its room is for what the queue has to write down, and for no message that was already on
    its way in.
    """

    def __init__(self, path: Path, size: int, metrics: Instruments) -> None:
        self._path = path
        self._size = size
        self._metrics = metrics
        self.missing = 0
        self.given_back = False

    def look(self) -> None:
        """What an earlier run has left of it. Raises OSError."""
        there = 0
        with contextlib.suppress(FileNotFoundError):
            there = self._path.stat().st_size
        if there > self._size or (there and not self._size):
            # The setting is smaller now.
            self._path.unlink()
            there = 0
        self.missing = self._size - there

    def give_back(self) -> None:
        """(In a thread.) The disk is full: let the queue drain on this room. Raises OSError."""
        if self._size and self._path.exists():
            self.missing = self._size
            self.given_back = True
            self._path.unlink()
            self._metrics.ballast_given_back.value += 1
            _log.warn("ballast_given_back", size=self._size)

    def make(self) -> None:
        """(In a thread.) Take the room again. Raises OSError, and leaves nothing then."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self._path.parent)
        except OSError:
            self.missing = self._size
            with contextlib.suppress(OSError):
                self._path.unlink()
            raise
        self.missing = 0
        self.given_back = False
        _log.info("ballast_made", size=self._size)
