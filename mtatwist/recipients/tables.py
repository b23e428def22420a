"""The files: aliases in the form of /etc/aliases, and the list of those who get mail. Text in, tables out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mtatwist.recipients.names import Name, name_of, parse
from mtatwist.smtp.address import Address, AddressError

SHOWN = 20
"""Wrong lines of a file that are told of."""

_NOT_ADDRESSES = (("|", "a command"), ("/", "a file"), (":include:", "another list"))
# A quoted string is one piece, whatever is in it; a quote that is never closed is none.
_PIECE = r'(?:"(?:[^"\\]|\\.)*"|[^",{}])'
_KEY = re.compile(rf"({_PIECE.format(':')}*):(.*)", re.DOTALL)
_ITEM = re.compile(rf"({_PIECE.format('')}*)(,|$)", re.DOTALL)

IsOurs = Callable[[str], bool]


class TableError(ValueError):
    """What is wrong with a file: ``problems`` are pairs of line number and reason, ``str()`` the first of them."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(f"line {line}: {reason}" for line, reason in self.problems[:SHOWN])


class Aliases(NamedTuple):
    """What addresses stand for. Keys without a domain count at all of ours; members without one are at the alias's."""

    members: dict[Name, tuple[Address, ...]] = {}  # noqa: RUF012

    def of(self, name: Name) -> tuple[Address, ...] | None:
        """What ``name`` stands for, its whole address first; None when it is no alias."""
        found = self.members.get(name) or self.members.get(Name(name.local, ""))
        if found is None:
            return None
        return tuple(each if each.domain else each._replace(domain=name.domain) for each in found)


class Listed(NamedTuple):
    """Those who get mail. A name without a domain counts at all of ours."""

    names: frozenset[Name] = frozenset()
    domains: frozenset[str] = frozenset()

    def knows(self, name: Name) -> bool:
        """Does ``name`` get mail?"""
        return self.has(name) or name.domain in self.domains

    def has(self, name: Name) -> bool:
        """Is ``name`` there by itself, not with everybody at its domain?"""
        return name in self.names or Name(name.local, "") in self.names


def parse_aliases(text: str, is_ours: IsOurs) -> Aliases:
    """Read lines such as ``name: address, address``; those that begin with white space go on with the one before.

    Raises TableError with all that is wrong.
    """
    members: dict[Name, tuple[Address, ...]] = {}
    first: dict[Name, int] = {}
    problems: list[tuple[int, str]] = []
    for number, line in _logical_lines(text):
        try:
            key, found = _alias(line, is_ours)
            if key in first:
                raise AddressError(
                    f'"{_shown(str(key))}" is an alias in line {first[key]} already: make one of the two'
                )
            first[key] = number
            members[key] = found
        except AddressError as error:
            problems.append((number, str(error)))
    if problems:
        raise TableError(problems)
    return Aliases(members)


def parse_recipients(text: str, is_ours: IsOurs) -> Listed:
    """Read one address, local part or "@domain" a line. Raises TableError with all that is wrong."""
    names: set[Name] = set()
    domains: set[str] = set()
    problems: list[tuple[int, str]] = []
    for number, line in _lines(text):
        try:
            if line.startswith("@"):
                domains.add(_of_ours(_address(f"x{line}"), is_ours).domain)
            else:
                names.add(name_of(_of_ours(_address(line), is_ours)))
        except AddressError as error:
            problems.append((number, str(error)))
    if problems:
        raise TableError(problems)
    return Listed(frozenset(names), frozenset(domains))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """What is neither empty nor a comment, with its number; white space around it is gone."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that continue them, and the number of the first."""
    whole: list[str] = []
    start = 0
    raw = text.split("\n")
    for number, line in _lines(text):
        if whole and raw[number - 1][0] in " \t":
            whole.append(line)
            continue
        if whole:
            yield start, " ".join(whole)
        whole, start = [line], number
    if whole:
        yield start, " ".join(whole)


def _alias(line: str, is_ours: IsOurs) -> tuple[Name, tuple[Address, ...]]:
    match = _KEY.fullmatch(line)
    if match is None:
        raise AddressError(
            'is not an alias: write a name, a colon and addresses, such as "sales: ann@example.org, bob"'
        )
    key = name_of(_of_ours(_address(match[1].strip()), is_ours))
    items = [item for item in _items(match[2]) if item]
    if not items:
        raise AddressError(f'"{_shown(str(key))}" stands for nothing: write addresses behind the colon')
    return key, tuple(dict.fromkeys(_member(item) for item in items))


def _items(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _ITEM.match(text, at)
        if match is None:
            raise AddressError("has a quotation mark that is never closed")
        yield match[1].strip()
        at = match.end()


def _member(item: str) -> Address:
    inner = item[1:-1] if len(item) > 1 and item.startswith('"') and item.endswith('"') else item
    for mark, words in _NOT_ADDRESSES:
        if inner.lower().startswith(mark):
            raise AddressError(
                f'"{_shown(inner)}" is {words}, not an address: aliases lead to addresses only, so let the mail go to '
                "a mailbox and do the rest there"
            )
    if inner is not item and "@" in inner:
        raise AddressError(f"{_shown(item)} is an address in quotation marks: leave them out")
    return _address(item)


def _address(text: str) -> Address:
    try:
        return parse(text)
    except AddressError as error:
        hint = ": comments have lines of their own" if "#" in text else ""
        raise AddressError(f'"{_shown(text)}" is {error}{hint}') from None


def _of_ours(address: Address, is_ours: IsOurs) -> Address:
    if address.domain and not is_ours(address.domain):
        raise AddressError(f'"{_shown(address.domain)}" is not one of relay.domains')
    return address


def _shown(text: str) -> str:
    """In a message: on one line, and not endlessly."""
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 80 else f"{text[:76]} ..."
