"""The two encodings that turn any octets to short lines of ASCII (RFC 2045 §6.7, §6.8), by the chunk.

What comes out does not depend on how the octets were cut. Lines are joined with CRLF, and the last one is left open:
the CRLF before a boundary belongs to the boundary.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Protocol

_WIDTH = 76
"""Octets of a line, the "=" of a soft line break included."""

_BLOCK = 900
"""Octets of one line that are encoded at once; a longer line is broken here in any case."""

_BASE64_LINE = 57

_UNSAFE = re.compile(rb"[^\t\r\n -<>-~]")
_AS_TEXT = [b"=%02X" % octet if _UNSAFE.match(bytes([octet])) else bytes([octet]) for octet in range(256)]
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_TRAILING = re.compile(rb"[ \t](?=\r\n|\Z)")
_HYPHENS = re.compile(rb"^--", re.MULTILINE)
_LONG = re.compile(rb"^[^\n]{76,}+", re.MULTILINE)


class Encoder(Protocol):
    """An encoding of one part."""

    def feed(self, data: bytes) -> bytes:
        """Take octets, give what is settled."""

    def end(self) -> bytes:
        """The rest; no CRLF stands at its end, unless the octets had one there."""

    def end_of_message(self) -> bytes:
        """The rest, and what ends the last line."""


class QuotedPrintable:
    """Keeps lines as lines: CRLF stays, everything else that is not plain text is encoded, bare CR and LF too."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """See Encoder. Up to 901 octets of a line wait for its end."""
        *lines, last = (self._held + data).split(b"\r\n")
        out: list[bytes] = []
        if lines and max(map(len, lines)) > _BLOCK:
            short: list[bytes] = []
            for line in lines:
                if len(line) > _BLOCK:
                    at = _whole_blocks(len(line), 1)
                    out += (_encoded(b"\r\n".join([*short, b""])), _blocks(line, at))
                    short = [line[at:]]
                else:
                    short.append(line)
            lines = short
        if lines:
            out.append(_encoded(b"\r\n".join([*lines, b""])))
        # A CR at the end may be half of a line end, so a block is sure when two octets more are there.
        at = _whole_blocks(len(last), 2)
        out.append(_blocks(last, at))
        self._held = last[at:]
        return b"".join(out)

    def end(self) -> bytes:
        """See Encoder."""
        line, self._held = self._held, b""
        at = _whole_blocks(len(line), 1)
        return _blocks(line, at) + _encoded(line[at:])

    def end_of_message(self) -> bytes:
        """See Encoder. A line that had no end gets a soft one, which a decoder removes."""
        rest = self.end()
        return rest + b"=\r\n" if rest else rest


def _whole_blocks(length: int, more: int) -> int:
    """How many octets of a line are whole blocks with at least ``more`` octets behind them."""
    return max(0, length - more) // _BLOCK * _BLOCK


def _blocks(line: bytes, end: int) -> bytes:
    """The first ``end`` octets of ``line`` encoded, each block ending with a soft line break."""
    return b"".join(_encoded(line[at : at + _BLOCK]) + b"=\r\n" for at in range(0, end, _BLOCK))


def _encoded(lines: bytes) -> bytes:
    """Lines that end with CRLF, the last one perhaps without; there is room for a "=" behind each."""
    text = b"".join(map(_AS_TEXT.__getitem__, lines)) if _UNSAFE.search(lines) else lines
    ends = text.count(b"\r\n")
    if text.count(b"\r") > ends or text.count(b"\n") > ends:
        text = _BARE.sub(_as_hex, text)
    # White space at the end of a line does not survive everywhere (RFC 2045 §6.7, rule 3).
    text = _TRAILING.sub(_as_hex, text)
    # A line that looked like a boundary would be taken for one; only two hyphens make that possible.
    if b"--" in text:
        text = _HYPHENS.sub(b"=2D-", text)
    return _LONG.sub(_broken, text)


def _as_hex(match: re.Match[bytes]) -> bytes:
    return b"=%02X" % match[0][0]


def _broken(match: re.Match[bytes]) -> bytes:
    """A line that may be too long, in pieces; its CR, if there is one, stays behind the last."""
    line = match[0].removesuffix(b"\r")
    out = []
    at = 0
    guard = b""
    while len(line) - at + len(guard) >= _WIDTH:
        cut = at + _WIDTH - 1 - len(guard)
        # Never inside "=XX".
        cut -= 1 if line[cut - 1] == 61 else 2 if line[cut - 2] == 61 else 0
        out.append(guard + line[at:cut])
        at = cut
        # What follows begins a line, too.
        guard = b"=2D" if line.startswith(b"--", at) else b""
        at += bool(guard)
    out.append(guard + line[at:])
    return b"=\r\n".join(out) + match[0][len(line) :]


class Base64:
    """Lines of 76 characters."""

    def __init__(self) -> None:
        self._held = b""
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """See Encoder. Up to 56 octets wait for the rest of a line."""
        data = self._held + data
        whole = len(data) - len(data) % _BASE64_LINE
        self._held = data[whole:]
        return self._lines(data[:whole])

    def end(self) -> bytes:
        """See Encoder."""
        held, self._held = self._held, b""
        return self._lines(held)

    def end_of_message(self) -> bytes:
        """See Encoder."""
        rest = self.end()
        return rest + b"\r\n" if self._begun else rest

    def _lines(self, data: bytes) -> bytes:
        lines = [b2a_base64(data[at : at + _BASE64_LINE], newline=False) for at in range(0, len(data), _BASE64_LINE)]
        if self._begun and lines:
            lines.insert(0, b"")
        self._begun = self._begun or bool(lines)
        return b"\r\n".join(lines)
