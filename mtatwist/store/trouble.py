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


_CORRUPT = (apsw.CorruptError, apsw.NotADBError)
_IO = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, OSError)
_SPACE = (errno.ENOSPC, errno.EDQUOT)


def trouble_of(error: BaseException) -> Trouble | None:
    """The kind of trouble that ``error`` tells of; None: the disk and the database are not to blame."""
    if isinstance(error, _CORRUPT):
        return Trouble.CORRUPT
    if isinstance(error, apsw.FullError):
        return Trouble.FULL
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return Trouble.FULL
    if isinstance(error, OSError) and error.errno in _SPACE:
        return Trouble.FULL
    return Trouble.IO if isinstance(error, _IO) else None
