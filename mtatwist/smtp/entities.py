"""Walks over the parts of a message, by the chunk: header sections, bodies, and the delimiters between (RFC 2046 §5.1).

Octets come out in their order, each exactly once, whatever the chunks' borders are. A delimiter is a whole line: two
hyphens, a boundary of a multipart that is open, two more hyphens perhaps, and white space. The outermost multipart it
fits is the one that it belongs to, as in Python's email package; an inner one whose end is missing ends with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from mtatwist.smtp.header import MAX_HEADER
from mtatwist.smtp.mime import MAX_BOUNDARY, Kind, PartHeader, read_header

MAX_DEPTH = 50
"""Multiparts and messages that may lie in one another; what lies deeper is not looked into."""

MAX_SECTIONS = 5_000
"""Parts, preambles and epilogues of one message; the rest counts as one part that can't be read."""

_MAX_DELIMITER = MAX_BOUNDARY + 100
"""Octets of a delimiter line, white space at its end included."""

# What a line of a header section begins with; the first line that doesn't ends it. RFC 5322 §4.5.8: white space
# may stand before the colon. "From " is the first line of a mailbox file, which some senders leave in.
_FIELD_LINE = re.compile(rb"From |[!-9;-~]*+[ \t]*+:|[ \t]")
# Many such lines at once, but none that could be a delimiter.
_FIELD_LINES = re.compile(rb"(?:(?!--)(?:From |[!-9;-~]*+[ \t]*+:|[ \t])[^\r\n]*+\r\n)*+")

_UNREADABLE = PartHeader(Kind.UNREADABLE, "", "")


@dataclass(slots=True)
class Container:
    """A multipart or message that is open. ``section`` is the number of its header section."""

    section: int
    header: PartHeader
    boundary: bytes = b""
    seen: bool = False


class Visitor(Protocol):
    """Told of what the walk comes across."""

    def header(self, section: int, header: PartHeader, lines: bytes, separator: bytes, whole: bool) -> None:
        """A header section: its lines, and the empty line behind them, if there was one.

        ``whole``: it is that of a message, not of a part of a multipart.
        """

    def body(self, section: int, data: bytes) -> None:
        """Some of the body that belongs to the header section of this number; a preamble or an epilogue has a number
        of its own, and no header."""

    def closed(self, section: int, container: Container | None) -> None:
        """No more comes of this body, or of a container."""

    def delimiter(self, line: bytes) -> None:
        """A delimiter, and the CRLF before it unless that had another meaning."""


class Walk:
    """One pass over a message. ``containers`` are those that are open, outermost first."""

    def __init__(self, visitor: Visitor) -> None:
        self.containers: list[Container] = []
        self._visitor = visitor
        self._delimiters: dict[bytes, tuple[Container, bool]] = {}
        self._buffer = b""
        self._at = 0  # what is before was given out, but the last two octets may be the CRLF before a delimiter
        self._line = 0  # where the header line begins that is looked at
        self._in_header = True
        self._whole = True
        self._section = 0

    def feed(self, data: bytes) -> None:
        """Take a chunk."""
        keep = max(0, self._at - 2)
        self._buffer = self._buffer[keep:] + data
        self._at -= keep
        self._line -= keep
        self._run(False)

    def end(self) -> None:
        """The message ends here."""
        self._run(True)
        self._visitor.closed(self._section, None)
        self._close(0)

    def _run(self, at_end: bool) -> None:
        while self._header_step(at_end) if self._in_header else self._body_step(at_end):
            pass

    # Both steps give False when they need more than is there.

    def _header_step(self, at_end: bool) -> bool:
        buffer = self._buffer
        while True:
            match = _FIELD_LINES.match(buffer, self._line, self._at + MAX_HEADER)
            self._line = line = match.end() if match else self._line
            end = buffer.find(b"\r\n", line)
            after = end + 2
            if end < 0:
                end = after = len(buffer)
                if not at_end and end - self._at < MAX_HEADER + 2:
                    return False
            if end - self._at > MAX_HEADER or self._section >= MAX_SECTIONS:
                return self._header_ends(self._at, self._at, _UNREADABLE)
            if end == line:
                return self._header_ends(line, after)
            if buffer.startswith(b"--", line) and self._delimiter(line + 2, end):
                return self._header_ends(line, line)
            if not _FIELD_LINE.match(buffer, line, end):
                return self._header_ends(line, line)
            self._line = after

    def _header_ends(self, end: int, body: int, header: PartHeader | None = None) -> bool:
        """The header section goes to ``end``, the body begins at ``body``."""
        lines, separator = self._buffer[self._at : end], self._buffer[end:body]
        if header is None:
            header = read_header(lines, self._default_type())
            if header.kind in (Kind.MULTIPART, Kind.MESSAGE) and len(self.containers) >= MAX_DEPTH:
                header = header._replace(kind=Kind.UNREADABLE)
        if self._section >= MAX_SECTIONS:
            self._delimiters = {}
        self._visitor.header(self._section, header, lines, separator, self._whole)
        self._at = self._line = body
        self._in_header = self._whole = header.kind is Kind.MESSAGE
        if header.kind in (Kind.MULTIPART, Kind.MESSAGE):
            self.containers.append(Container(self._section, header, header.boundary))
            self._section += 1
            self._read_delimiters()
        return True

    def _body_step(self, at_end: bool) -> bool:
        buffer, start = self._buffer, self._at
        search = max(0, start - 2)
        while self._delimiters:
            begin = buffer.find(b"\r\n--", search)
            if begin < 0:
                break
            end = buffer.find(b"\r\n", begin + 4)
            if end < 0:
                if not at_end and len(buffer) - begin - 4 < _MAX_DELIMITER + 2:
                    self._give(begin)
                    return False
                end = len(buffer)
            if found := self._delimiter(begin + 4, end):
                self._give(begin)
                self._passed(*found, end + 2)
                return True
            search = end
        end = len(buffer)
        if self._delimiters and not at_end:
            end -= next((length for length in (3, 2, 1) if buffer.endswith(b"\r\n-"[:length])), 0)
        self._give(end)
        return False

    def _give(self, end: int) -> None:
        if end > self._at:
            self._visitor.body(self._section, self._buffer[self._at : end])
            self._at = end

    def _delimiter(self, start: int, end: int) -> tuple[Container, bool] | None:
        """The multipart that the line with these octets behind its hyphens delimits, and whether it is its end."""
        if end - start > _MAX_DELIMITER:
            return None
        return self._delimiters.get(self._buffer[start:end].rstrip(b" \t"))

    def _passed(self, container: Container, is_end: bool, after: int) -> None:
        """A delimiter of ``container`` stands from where we are to ``after``."""
        self._visitor.closed(self._section, None)
        self._close(self.containers.index(container) + 1)
        self._visitor.delimiter(self._buffer[self._at : after])
        self._at = self._line = min(after, len(self._buffer))
        self._section += 1
        self._in_header = not is_end
        self._whole = False
        container.seen = True
        if is_end:
            container.boundary = b""
        self._read_delimiters()

    def _close(self, depth: int) -> None:
        while len(self.containers) > depth:
            container = self.containers.pop()
            self._visitor.closed(container.section, container)

    def _default_type(self) -> str:
        in_digest = not self._whole and self.containers and self.containers[-1].header.subtype == "digest"
        return "message/rfc822" if in_digest else "text/plain"

    def _read_delimiters(self) -> None:
        self._delimiters = {}
        for container in self.containers:
            if container.boundary:
                self._delimiters.setdefault(container.boundary, (container, False))
                self._delimiters.setdefault(container.boundary + b"--", (container, True))
