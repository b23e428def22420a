"""Changes to the user file: each in one step, whoever reads it meanwhile, and two at the same time one by one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from mtatwist.auth import user_file
from mtatwist.auth.user_file import Content, UserFileError
from mtatwist.store.datadir import replace_file

LOCK_SECONDS = 10.0
"""How long to wait for somebody else who changes the file."""


class Busy(Exception):
    """Somebody else holds the file for too long."""


class Exists(Exception):
    """There is a user of this name already."""


class Missing(Exception):
    """There is no user of this name."""


class UserLines:
    """The lines of a user file. Comments, order and line ends stay as they are."""

    def __init__(self, content: Content) -> None:
        self._path = content.path
        self.data = content.data
        self.users = content.users

    def add(self, name: str, password_hash: str, addresses: Sequence[str]) -> None:
        """A new user on the last line. Raises Exists, and ValueError when it can't stand there."""
        if name in self.users:
            raise Exists
        line = ":".join([name, password_hash, *([",".join(addresses)] if addresses else [])])
        read = user_file.parse_line(line.encode(), 0)
        if read is None or (read.name, read.hash, read.addresses) != (name, password_hash, tuple(addresses)):
            raise ValueError("the file can't have such a name or address: a colon or comma is in it")
        end = b"" if not self.data or self.data.endswith(b"\n") else b"\n"
        self._take(self.data + end + line.encode() + b"\n")

    def remove(self, name: str) -> None:
        """Take the user's line out. Raises Missing."""
        lines = self.data.split(b"\n")
        del lines[self._index(name)]
        self._take(b"\n".join(lines))

    def set_hash(self, name: str, password_hash: str) -> None:
        """Give the user another hash. Raises Missing."""
        lines = self.data.split(b"\n")
        index = self._index(name)
        fields = lines[index].split(b":")
        # On the last field is what ends the line, too.
        end = b"\r" if len(fields) == 2 and fields[1].endswith(b"\r") else b""
        fields[1] = password_hash.encode() + end
        lines[index] = b":".join(fields)
        self._take(b"\n".join(lines))

    def _index(self, name: str) -> int:
        if name not in self.users:
            raise Missing
        return self.users[name].line - 1

    def _take(self, data: bytes) -> None:
        if len(data) > user_file.MAX_SIZE:
            raise UserFileError(f"{self._path}: would be larger than {user_file.MAX_SIZE} octets")
        self.users = user_file.parse(data, self._path)
        self.data = data


def change(path: str, edit: Callable[[UserLines], None], *, clock: Callable[[], float] = time.monotonic) -> None:
    """Replace the file with what ``edit`` makes of it, durably; a missing file has no lines.

    Owner, group and mode stay, but others get no access. A new file has mode 0600 and, when root makes it, the
    directory's owner. Raises UserFileError, Busy, OSError and what ``edit`` raises.
    """
    # A link stays a link.
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    with _held(directory, clock):
        lines = UserLines(user_file.read(path))
        edit(lines)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            replace_file(path, lines.data, like=os.stat(directory) if os.geteuid() == 0 else None)
        else:
            _refuse_if_of_another(found)
            replace_file(path, lines.data, like=found, mode=stat.S_IMODE(found.st_mode) & 0o660)


@contextlib.contextmanager
def _held(directory: str, clock: Callable[[], float]) -> Iterator[None]:
    """Hold the directory against others who change files in it; the file itself is another one after each change."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = clock() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= deadline:
                    raise Busy(f"{directory}: somebody else changes users: try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _refuse_if_of_another(found: os.stat_result) -> None:
    if os.geteuid() not in (0, found.st_uid):
        owner = _user_name(found.st_uid)
        raise PermissionError(errno.EPERM, f"it belongs to {owner}, who must be able to read it: run this as {owner}")


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
