"""Reading the administrator's files: whole, up to a limit, and without waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple


class NotRegular(OSError):
    """A pipe or a device: it might never have anything to read, or never end."""


class TooLarge(OSError):
    """The file has more octets than are read."""


class RegularFile(NamedTuple):
    """What was read. ``facts``: of the very file that ``content`` is from."""

    content: bytes
    facts: os.stat_result


def read_regular(path: str, limit: int) -> RegularFile:
    """Read a whole file of at most ``limit`` octets. It blocks: the disk may be slow.

    Raises OSError, among them NotRegular and TooLarge; each says in its ``strerror`` what is wrong.
    """
    # Where somebody has put a pipe, open() must not wait for its other end.
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise NotRegular(errno.EINVAL, "is not a file", path)
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise TooLarge(errno.EFBIG, f"is larger than {limit} octets", path)
    return RegularFile(content, facts)
