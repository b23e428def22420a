"""End of data, dots and line ends: right for every way the bytes may be cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.data import DotReader, DotWriter, LineEnds

PIECES = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"bc", b"\r\n.", b"\x00", b"\xff"]), max_size=30
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted(position % (len(data) + 1) for position in at), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def read(pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    reader, message = DotReader(), b""
    for number, piece in enumerate(pieces):
        body, rest = reader.feed(piece)
        message += body
        if rest is not None:
            return message, rest + b"".join(pieces[number + 1 :])
    return message, None


def reference(data: bytes) -> tuple[bytes, bytes | None]:
    """The slow and obvious way: line by line, lines end with CRLF only."""
    lines = data.split(b"\r\n")
    for number, line in enumerate(lines[:-1]):
        if line == b".":
            body = lines[:number]
            unstuffed = [text[1:] if text.startswith(b".") else text for text in body]
            return b"".join(text + b"\r\n" for text in unstuffed), b"\r\n".join(lines[number + 1 :])
    return data, None


@given(PIECES, PIECES, st.lists(st.integers(0, 200), max_size=8))
def test_reader_agrees_with_the_slow_way_however_the_data_is_cut(
    before: list[bytes], after: list[bytes], at: list[int]
) -> None:
    data = b"".join(before) + b"\r\n.\r\n" + b"".join(after)
    message, rest = read(cut(data, at))
    assert (message, rest) == reference(data)


@given(PIECES, st.lists(st.integers(0, 200), max_size=8), st.lists(st.integers(0, 200), max_size=8))
def test_what_the_writer_sends_the_reader_gets(pieces: list[bytes], at: list[int], again: list[int]) -> None:
    message = b"".join(pieces)
    writer = DotWriter()
    wire = b"".join(writer.feed(piece) for piece in cut(message, at)) + writer.end()
    got, rest = read(cut(wire, again))
    assert rest == b""
    assert got == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n", b"\r\n\x00.\r\n"]
)
def test_nothing_but_the_five_octets_ends_data(ending: bytes) -> None:
    assert read([b"text" + ending])[1] is None


@given(PIECES, st.lists(st.integers(0, 200), max_size=8))
def test_bare_line_ends_are_seen_however_the_data_is_cut(pieces: list[bytes], at: list[int]) -> None:
    data = b"".join(pieces)
    watch, mend = LineEnds(False), LineEnds(True)
    watched = b"".join(watch.feed(piece) for piece in cut(data, at)) + watch.end()
    mended = b"".join(mend.feed(piece) for piece in cut(data, at)) + mend.end()
    assert watched == data
    assert watch.bad == bool(re.search(rb"(?<!\r)\n|\r(?!\n)", data))
    assert mended == re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    assert not mend.bad
