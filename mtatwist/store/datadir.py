"""The data directory: made for us alone, and held by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class DataDirError(Exception):
    """The directory can't be used; the message says why and what helps."""


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable: a file's fsync does not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(
    path: str | os.PathLike[str], content: bytes, *, mode: int = 0o600, like: os.stat_result | None = None
) -> None:
    """Write a file beside this one, and let it take the place at once, durably. Two must not do so at the same time.

    ``like``: has the owner and group to be, where they are not ours. Raises OSError: then all is as it was.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    # What a crash left may have another mode.
    new.unlink(missing_ok=True)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            made = os.fstat(descriptor)
            if like is not None and (like.st_uid, like.st_gid) != (made.st_uid, made.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def _make(path: Path) -> None:
    """Make a directory, and those above it where they are missing, each of them durable in the one above."""
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


class DataDir:
    """A directory of mode 0700 with a lock file, held by flock until :meth:`release` or the process ends."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    def acquire(self) -> None:
        """Make the directory where it is missing, and take the lock. Raises DataDirError."""
        try:
            _make(self.path)
            if self.path.stat().st_uid == os.geteuid():
                self.path.chmod(0o700)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(
                f"server.data_dir {self.path}: {error.strerror}; it must be a directory this user may write"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 32).decode("ascii", "replace").strip()
            os.close(lock)
            raise DataDirError(
                f"server.data_dir {self.path} is in use by process {holder or '(unknown)'}: stop it first, or give"
                " this one a data_dir of its own"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
