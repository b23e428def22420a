"""Mail data: its end, its dots and its line ends (RFC 5321 §4.5.2, §2.3.8).

Everything works by the chunk, whatever the chunks' borders are, and never looks at single lines: that is where
a Python server's speed comes from.
"""

from __future__ import annotations

import re
from io import IncrementalNewlineDecoder

_END = b"\r\n.\r\n"
_STRAY = re.compile(rb"\r\n|\r|\n")


class DotReader:
    """Finds CRLF.CRLF, and nothing else, as the end of data; removes the dots that transparency added."""

    def __init__(self) -> None:
        # The CRLF of the DATA command counts as the one before the first line.
        self._held = b"\r\n"
        self._begun = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take bytes; give the message bytes they complete, and what follows the end of data (None: not there yet)."""
        data = self._held + data
        rest: bytes | None = None
        # One search serves both: most data has no line that begins with a dot before its end. And a search for one
        # octet is many times as quick as that for three: attachments have no dots at all.
        dot = data.find(b"\r\n.") if b"." in data else -1
        end = data.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            stop, rest = end + 2, data[end + 5 :]
        else:
            stop = len(data) - _tail(data)
            self._held = data[stop:]
        start = 0 if self._begun else 2
        self._begun = self._begun or stop > 0
        if 0 <= dot < stop - 2:
            return data[:stop].replace(b"\r\n.", b"\r\n")[start:], rest
        return data[start:stop], rest


def _tail(data: bytes) -> int:
    """How many bytes at the end of ``data`` may be the beginning of CRLF.CRLF."""
    for length in (4, 3, 2, 1):
        if data.endswith(_END[:length]):
            return length
    return 0


class DotWriter:
    """Adds the dots of transparency to a message sent by DATA, and ends it."""

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """``data`` as it goes over the wire."""
        if not data:
            return b""
        tail = self._tail
        self._tail = data[-2:] if len(data) > 1 else (tail + data)[-2:]
        if b"." not in data:
            return data
        if b"\r\n." in tail + data[:2]:
            return (tail + data).replace(b"\r\n.", b"\r\n..")[len(tail) :]
        return data.replace(b"\r\n.", b"\r\n..")

    def end(self) -> bytes:
        """The end of data; a last line without CRLF gets one, since DATA can't say it otherwise."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class LineEnds:
    """Watches (or mends) bare CR and bare LF in a message that comes by the chunk."""

    def __init__(self, mend: bool) -> None:
        """``mend``: turn bare CR and bare LF to CRLF; else only set :attr:`bad`."""
        self._mend = mend
        self._watch = IncrementalNewlineDecoder(None, translate=False)
        self._held = b""
        self.bad = False

    def feed(self, data: bytes) -> bytes:
        """Take a chunk, give what is settled of it: a CR at the border waits for the byte after it."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        return self._checked(data)

    def end(self) -> bytes:
        """What was still held."""
        held, self._held = self._held, b""
        return self._checked(held) if held else b""

    def _checked(self, data: bytes) -> bytes:
        # One pass in C. No CRLF is cut in two here, so each piece can be judged as the last one.
        self._watch.decode(str(data, "latin-1"), final=True)
        if self._watch.newlines in (None, "\r\n"):
            return data
        if self._mend:
            self._watch = IncrementalNewlineDecoder(None, translate=False)
            return _STRAY.sub(b"\r\n", data)
        self.bad = True
        return data
