"""Reads a database without SQLite, page by page: what SQLite refuses once a page that leads to the others is damaged.

The format is SQLite's own (https://sqlite.org/fileformat2.html). Nothing here writes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PAGE = 4096
"""Octets of a page, as spool.schema makes them."""

_HEADER = 100
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_LOG_HEADER, _FRAME_HEADER = 32, 24
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Row(NamedTuple):
    """A row as it is stored. ``rowid``: that of a table; None for the row of an index (or of a WITHOUT ROWID table)."""

    rowid: int | None
    values: list[Any]


class Unreadable(Exception):
    """A row, or a page of it, can't be read."""


class Pages:
    """A database file with what its log has committed on top; to be closed."""

    def __init__(self, database: Path, log: Path) -> None:
        """Raises OSError. The log may be missing."""
        self._file = database.open("rb")
        self._log = None
        self._in_log: dict[int, int] = {}
        self.count = (database.stat().st_size + PAGE - 1) // PAGE
        with contextlib.suppress(FileNotFoundError):
            self._log = log.open("rb")
            self._in_log, committed = _committed(self._log)
            self.count = max(self.count, committed)
        head = self._page(1) or b""
        self.has_header = head.startswith(b"SQLite format 3\0")
        self.version = int.from_bytes(head[60:64], "big") if self.has_header else 0
        self.free, self.knows_free = self._free_pages(head) if self.has_header else (set[int](), False)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._log is not None:
            self._log.close()

    def rows(self) -> Iterator[Row | None]:
        """The rows on all pages in use, in no order; None for each that can't be read."""
        for number in range(1, self.count + 1):
            if number not in self.free:
                yield from self.rows_on(number)

    def rows_on(self, number: int) -> Iterator[Row | None]:
        """The rows on one page, none where it is no page of rows."""
        page = self._page(number)
        if page is None:
            return
        start = _HEADER if number == 1 else 0
        kind = page[start]
        if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
            return
        first = start + (12 if kind == _INDEX_INTERIOR else 8)
        cells = int.from_bytes(page[start + 3 : start + 5], "big")
        for at in range(first, first + 2 * cells, 2):
            try:
                yield self._row(page, int.from_bytes(page[at : at + 2], "big"), kind)
            except (Unreadable, IndexError, struct.error):
                yield None

    def _page(self, number: int) -> bytes | None:
        try:
            if number in self._in_log and self._log is not None:
                self._log.seek(self._in_log[number])
                page = self._log.read(PAGE)
            else:
                self._file.seek((number - 1) * PAGE)
                page = self._file.read(PAGE)
        except OSError:
            return None
        return page if len(page) == PAGE else None

    def _free_pages(self, head: bytes) -> tuple[set[int], bool]:
        """The pages that are in no use, and whether the list of them is whole. They hold what was there before."""
        free: set[int] = set()
        trunk = int.from_bytes(head[32:36], "big")
        while trunk:
            page = self._page(trunk)
            if page is None or trunk in free or trunk > self.count:
                return free, False
            free.add(trunk)
            following, leaves = struct.unpack_from(">II", page)
            if leaves > PAGE // 4 - 2:
                return free, False
            free.update(struct.unpack_from(f">{leaves}I", page, 8))
            trunk = following
        return free, len(free) == int.from_bytes(head[36:40], "big")

    def _row(self, page: bytes, at: int, kind: int) -> Row:
        if kind == _INDEX_INTERIOR:
            at += 4
        size, at = _varint(page, at)
        rowid = None
        if kind == _TABLE_LEAF:
            rowid, at = _varint(page, at)
        most = PAGE - 35 if kind == _TABLE_LEAF else (PAGE - 12) * 64 // 255 - 23
        here = size
        if size > most:
            least = (PAGE - 12) * 32 // 255 - 23
            here = least + (size - least) % (PAGE - 4)
            if here > most:
                here = least
        payload = page[at : at + here]
        if size > here:
            payload = self._with_overflow(payload, size, int.from_bytes(page[at + here : at + here + 4], "big"))
        if len(payload) != size:
            raise Unreadable
        return Row(rowid, _values(payload))

    def _with_overflow(self, begin: bytes, size: int, number: int) -> bytes:
        if size > self.count * PAGE:
            raise Unreadable
        parts, have = [begin], len(begin)
        while have < size:
            page = self._page(number) if 0 < number <= self.count and number not in self.free else None
            if page is None or not any(page):
                # SQLite keeps no checksums: a page of nothing but zeros was lost, and is not a part of a message.
                raise Unreadable
            number = int.from_bytes(page[:4], "big")
            parts.append(page[4 : 4 + size - have])
            have += len(parts[-1])
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine octets, and where it ends."""
    value = 0
    for index in range(8):
        octet = data[at + index]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _values(payload: bytes) -> list[Any]:
    """The columns of a record."""
    end, at = _varint(payload, 0)
    content = end
    values: list[Any] = []
    while at < end:
        kind, at = _varint(payload, at)
        size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        data = payload[content : content + size]
        if len(data) != size:
            raise Unreadable
        content += size
        if kind in _INTEGERS:
            values.append(int.from_bytes(data, "big", signed=True))
        elif kind == 7:
            values.append(struct.unpack(">d", data)[0])
        elif kind >= 12:
            values.append(data.decode("utf-8", "replace") if kind % 2 else data)
        else:
            values.append({8: 0, 9: 1}.get(kind))
    if at != end or content != len(payload):
        raise Unreadable
    return values


def _committed(log: Any) -> tuple[dict[int, int], int]:
    """Where in the log the latest committed copy of each page begins, and how many pages the database has with them."""
    header = log.read(_LOG_HEADER)
    if len(header) < _LOG_HEADER:
        return {}, 0
    magic, _, size, _, *salts, one, two = struct.unpack(">8I", header)
    order = ">" if magic & 1 else "<"
    if magic not in _LOG_MAGIC or size != PAGE or _checksum(header[:24], order, (0, 0)) != (one, two):
        return {}, 0
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    committed, so_far, at = 0, (one, two), _LOG_HEADER
    while len(frame := log.read(_FRAME_HEADER + PAGE)) == _FRAME_HEADER + PAGE:
        number, pages, *rest = struct.unpack(">6I", frame[:_FRAME_HEADER])
        so_far = _checksum(frame[:8] + frame[_FRAME_HEADER:], order, so_far)
        if rest != [*salts, *so_far]:
            break
        pending[number] = at + _FRAME_HEADER
        at += len(frame)
        if pages:
            found.update(pending)
            pending.clear()
            committed = pages
    return found, committed


def _checksum(data: bytes, order: str, so_far: tuple[int, int]) -> tuple[int, int]:
    one, two = so_far
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even in words:
        one = one + even + two & 0xFFFFFFFF
        two = two + next(words) + one & 0xFFFFFFFF
    return one, two
