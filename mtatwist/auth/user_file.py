"""The users and their password hashes in a text file: ``name:hash:address,address``, a user a line.

UTF-8; empty lines and lines that begin with # are for people. Without addresses, a user may send as the name itself
where it is an address, and else as name@ each domain of ours.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mtatwist.auth import hashes
from mtatwist.auth.prepare import prepare_name
from mtatwist.domain import wire_domain
from mtatwist.regular_file import NotRegular, TooLarge, read_regular
from mtatwist.smtp.address import Address, AddressError, parse_path
from mtatwist.transaction import Account

MAX_SIZE = 4 * 1024 * 1024
"""Octets: about 30,000 users. More people than that are in a directory."""

MAX_PROBLEMS = 10
"""How many wrong lines are named."""


class UserFileError(Exception):
    """The file can't be used; the message has a line for each problem, with the file and the line's number.

    ``forbidden``: this process may not read it, and nothing is known about it.
    """

    def __init__(self, why: str, *, forbidden: bool = False) -> None:
        super().__init__(why)
        self.forbidden = forbidden


class Mark(NamedTuple):
    """What changes when a file does."""

    inode: int
    size: int
    modified: int
    changed: int


@dataclass(frozen=True, slots=True)
class User:
    """A line. ``line`` is its number, ``hash`` as it stands there, ``addresses`` as Account has them."""

    line: int
    name: str
    hash: str
    addresses: tuple[str, ...] = ()

    def account(self, domains: Iterable[str]) -> Account:
        """Who this is once logged in; ``domains``: ours, in wire form. Patterns ("*.example.org") name no address."""
        if self.addresses:
            return Account(self.name, frozenset(self.addresses))
        if "@" in self.name:
            mine = [self.name]
        else:
            mine = [f"{self.name}@{domain}" for domain in domains if not domain.startswith("*.")]
        return Account(self.name, frozenset(filter(None, map(_address_or_none, mine))))

    @property
    def fault(self) -> str:
        """Why nobody can log in with this hash, "" where somebody can."""
        try:
            hashes.scheme(self.hash)
        except hashes.UnusableHash as error:
            return str(error)
        return ""


@dataclass(frozen=True, slots=True)
class Content:
    """What was read. ``exposed``: others than the owner and the group may read or write the file."""

    path: str
    data: bytes
    users: Mapping[str, User]
    exposed: bool = False

    def without_password(self) -> list[str]:
        """The lines of those who can't log in, and why."""
        return [f"{self.path}:{user.line}: {user.fault}" for user in self.users.values() if user.fault]

    def warnings(self) -> list[str]:
        """What the administrator should know, a line each."""
        exposed = [f"{self.path}: everybody may read or write it: chmod o= {self.path}"] if self.exposed else []
        return exposed + self.without_password()[:MAX_PROBLEMS]


def mark(path: str) -> Mark | int:
    """The same as long as the file is the same; the errno where nobody can tell."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno or 0
    return Mark(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read(path: str) -> Content:
    """Read the file; a missing one has no users. Raises UserFileError."""
    try:
        data, facts = read_regular(path, MAX_SIZE)
    except FileNotFoundError:
        return Content(path, b"", {})
    except NotRegular as error:
        raise UserFileError(f"{path}: {error.strerror}") from None
    except TooLarge as error:
        raise UserFileError(f"{path}: {error.strerror}: so many people are better off in a directory") from None
    except OSError as error:
        raise UserFileError(
            f"{path}: {error.strerror}: make it readable for the user that the server runs as",
            forbidden=isinstance(error, PermissionError),
        ) from None
    return Content(path, data, parse(data, path), exposed=bool(facts.st_mode & (stat.S_IROTH | stat.S_IWOTH)))


def parse(data: bytes, path: str) -> dict[str, User]:
    """The users by name. ``path`` is for the errors. Raises UserFileError."""
    users: dict[str, User] = {}
    problems = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            user = parse_line(line, number)
            if user is not None and users.setdefault(user.name, user) is not user:
                raise ValueError(f"{user.name} is on line {users[user.name].line} already: remove one of the two")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise UserFileError("\n".join([*problems[:MAX_PROBLEMS], *([f"{path}: and {more} more"] if more > 0 else [])]))
    return users


def parse_line(line: bytes, number: int) -> User | None:
    """The user on a line, None on an empty one or a comment. Raises ValueError, never with a hash in its message."""
    try:
        text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode().strip()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8: save the file as that") from None
    if not text or text.startswith("#"):
        return None
    name, *rest = (field.strip() for field in text.split(":"))
    if not 1 <= len(rest) <= 2:
        raise ValueError("write name:hash or name:hash:address,address")
    return User(number, user_name(name), _hash(rest[0]), addresses(rest[1]) if len(rest) == 2 else ())


def user_name(name: str) -> str:
    """The name as it is at a login. Raises ValueError."""
    if not name:
        raise ValueError("the name is missing before the first colon")
    return prepare_name(name)


def addresses(text: str) -> tuple[str, ...]:
    """A list with commas, as Account has its addresses. Raises ValueError."""
    return tuple(address(each.strip()) for each in text.split(",")) if text else ()


def address(text: str) -> str:
    """An address as Account has it: its domain in wire form. Raises ValueError."""
    try:
        found, rest = parse_path(text)
        if not found.domain or rest:
            raise AddressError
        return str(Address(found.local, wire_domain(found.domain)))
    except ValueError:
        raise ValueError(f"{text!r} is not an address such as me@example.org") from None


def _address_or_none(text: str) -> str | None:
    try:
        return address(text)
    except ValueError:
        return None


def _hash(text: str) -> str:
    if not text:
        raise ValueError("the hash is missing behind the first colon: make one with mtactl users passwd")
    return text
