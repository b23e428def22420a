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

_UNSAFE = re.compile(rb"[^\t -<>-~]")
_AS_TEXT = [b"=%02X" % octet if _UNSAFE.match(bytes([octet])) else bytes([octet]) for octet in range(256)]


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
        out = []
        for line in lines:
            at = _whole_blocks(len(line), 1)
            out.append(_blocks(line, at) + _encoded(line[at:]) + b"\r\n")
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


def _encoded(line: bytes) -> bytes:
    """One line, or a block of one, encoded and broken where it is too long; there is room for a "=" behind it."""
    text = b"".join(map(_AS_TEXT.__getitem__, line)) if _UNSAFE.search(line) else line
    if text.endswith((b" ", b"\t")):
        text = text[:-1] + b"=%02X" % text[-1]
    if len(text) < _WIDTH and not text.startswith(b"--"):
        return text
    out = []
    at = 0
    while True:
        # A line that looked like a boundary would be taken for one; only two hyphens make that possible.
        guard = b"=2D" if text.startswith(b"--", at) else b""
        at += bool(guard)
        cut = at + _WIDTH - 1 - len(guard)
        if cut >= len(text):
            out.append(guard + text[at:])
            return b"=\r\n".join(out)
        # Never inside "=XX".
        cut -= 1 if text[cut - 1] == 61 else 2 if text[cut - 2] == 61 else 0
        out.append(guard + text[at:cut])
        at = cut


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
