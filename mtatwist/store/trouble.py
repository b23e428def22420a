"""Kinds of trouble that a disk or a database file gives, as opposed to a job's own."""

from __future__ import annotations

import errno
from enum import Enum

import apsw


class Trouble(Enum):
    """What is wrong with the store. Its value is the word for it in the log."""

    FULL = "full"
    IO = "io"
    CORRUPT = "corrupt"


class StoreBroken(Exception):
    """Nothing was tried: the store is in trouble, and has not been opened and verified again yet."""


class Damaged(Exception):
    """The database is not as a server left it; the message says in what."""


_CORRUPT = (apsw.CorruptError, apsw.NotADBError, Damaged)
_IO = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)
_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Not among them: a file that is not there, and too many open ones. The database has nothing to do with those.
_BROKEN_DISK = (None, errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EUCLEAN)


def trouble_of(error: BaseException) -> Trouble | None:
    """The kind of trouble that ``error`` tells of; None: the disk and the database are not to blame."""
    if isinstance(error, _CORRUPT):
        return Trouble.CORRUPT
    if isinstance(error, apsw.FullError):
        return Trouble.FULL
    if isinstance(error, _IO):
        # SQLite's shared memory is a file, too.
        return Trouble.FULL if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE else Trouble.IO
    if isinstance(error, OSError):
        return Trouble.FULL if error.errno in _SPACE else Trouble.IO if error.errno in _BROKEN_DISK else None
    return None


def doubtful(error: BaseException) -> bool:
    """Must one who reads or writes beside the writer, and met ``error``, have the database verified?

    What could not be opened is no reason: a process that has no descriptors left has a good disk all the same.
    """
    return trouble_of(error) is not None and not isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError)
