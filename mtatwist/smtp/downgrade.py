"""Conversion of a message for a peer that can't take it as it is (RFC 6152 §3, RFC 3030 §3).

Two passes over the message, in chunks of any size, in bounded memory::

    scan = Scan(Level.SEVEN_BIT)
    for chunk in message:
        scan.feed(chunk)
    plan = scan.finish()
    if plan.obstacle:
        ...                             # bounce: it must not be sent
    elif plan.needed:
        converter = plan.converter()
        for chunk in message:
            send(converter.feed(chunk))
        send(converter.end())

Only the parts that need it are encoded, text as quoted-printable and everything else as base64; what stands around
them stays as it is, octet for octet. A preamble or an epilogue, which nobody reads, is encoded without saying so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mtatwist.smtp.encodings import Base64, Encoder, QuotedPrintable
from mtatwist.smtp.entities import Container, Walk
from mtatwist.smtp.mime import Kind, PartHeader, find_fields, relabelled

MAX_LINE = 998
"""Octets of a line of mail, without its CRLF (RFC 5322 §2.1.1)."""

_SIGNATURES = (b"dkim-signature", b"arc-message-signature", b"domainkey-signature")


class Level(Enum):
    """What the peer can take; the value is the label of what is no longer to be called 8bit or binary."""

    SEVEN_BIT = "7bit"  # neither 8BITMIME nor BINARYMIME
    EIGHT_BIT = "8bit"  # 8BITMIME


class Obstacle(Enum):
    """Why a message can't be converted; the value is the enhanced code that says so (RFC 6531 §4.2, RFC 3463 §3.7)."""

    HEADER = "5.6.9"  # what no encoding exists for: octets above 127 in a header section, or NUL, bare CR or bare LF
    BODY = "5.6.3"  # a part that may not be encoded, or can't be understood


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a message.

    ``needed``: the peer can't take it as it is. ``obstacle``: it can't be converted either, and ``why`` says it in
    words. ``signed``: a signature over it (DKIM, or multipart/signed) will no longer hold.
    """

    level: Level
    needed: bool
    obstacle: Obstacle | None
    why: str
    signed: bool
    _encoded: dict[int, bool]
    _unnamed: frozenset[int]
    _relabelled: frozenset[int]

    def converter(self) -> Converter:
        """One conversion of the same message. Only for a message without an obstacle."""
        if self.obstacle is not None:
            raise ValueError(f"can't be converted: {self.why}")
        return Converter(self.level, self._encoded, self._unnamed, self._relabelled)


class Scan:
    """The first pass: finds out which parts must be encoded, and whether they can be."""

    def __init__(self, level: Level = Level.SEVEN_BIT) -> None:
        self._level = level
        self._walk = Walk(self)
        self._content = _Content()
        self._header: PartHeader | None = None
        self._bare = False  # the header section has no Content-Type
        self._needed = False
        self._signed = self._signed_part = False
        self._obstacle: Obstacle | None = None
        self._why = ""
        self._encoded: dict[int, bool] = {}
        self._unnamed: set[int] = set()
        self._relabelled: set[int] = set()
        self._preambles: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Take the next octets of the message."""
        self._walk.feed(chunk)

    def finish(self) -> Plan:
        """That was all of it."""
        self._walk.end()
        return Plan(
            self._level,
            self._needed,
            self._obstacle,
            self._why,
            self._needed and (self._signed or self._signed_part),
            self._encoded,
            frozenset(self._unnamed),
            frozenset(self._relabelled),
        )

    # What the walk comes across (see Visitor).

    def header(self, section: int, header: PartHeader, lines: bytes, separator: bytes, whole: bool) -> None:
        """Look for what can't be encoded."""
        content = _Content()
        content.feed(lines)
        if content.binary():
            self._stop(Obstacle.HEADER, "control characters in a header section")
        elif content.eight_bit and self._level is Level.SEVEN_BIT:
            self._stop(Obstacle.HEADER, "a header section is not ASCII")
        if section == 0:
            self._signed = any(find_fields(lines, name) for name in _SIGNATURES)
        self._bare = not find_fields(lines, b"content-type")
        self._header = header
        if header.kind is Kind.MULTIPART:
            # What comes next is the preamble.
            self._header = None

    def body(self, section: int, data: bytes) -> None:
        """Look at its octets."""
        self._content.feed(data)

    def closed(self, section: int, container: Container | None) -> None:
        """Judge the body that ended."""
        if container is not None:
            if section + 1 in self._preambles and not container.seen:
                self._stop(Obstacle.BODY, "a multipart's boundary is nowhere in it")
            return
        content, self._content = self._content, _Content()
        header, self._header = self._header, None
        if not content.unfit(self._level):
            return
        self._needed = True
        kind = header.kind if header else Kind.TEXT
        if kind is Kind.TEXT or kind is Kind.OTHER:
            self._encoded[section] = kind is Kind.TEXT
        else:
            self._stop(Obstacle.BODY, _WHY[kind])
        if header is None:
            self._preambles.add(section)
        elif self._bare and content.eight_bit:
            self._unnamed.add(section)
        self._relabelled.update(open_.section for open_ in self._walk.containers)
        self._signed_part = self._signed_part or any(
            open_.header.subtype == "signed" for open_ in self._walk.containers
        )

    def delimiter(self, line: bytes) -> None:
        """ASCII in any case, or the header section before was not."""

    def _stop(self, obstacle: Obstacle, why: str) -> None:
        self._needed = True
        if self._obstacle is None:
            self._obstacle, self._why = obstacle, why


_WHY = {
    Kind.ENCODED: "an encoded part has octets that don't belong there",
    Kind.UNENCODABLE: "a part is of a type that must not be encoded",
    Kind.UNREADABLE: "the header section of a part can't be read",
}


class Converter:
    """The second pass: gives the message as the peer can take it."""

    def __init__(
        self, level: Level, encoded: dict[int, bool], unnamed: frozenset[int], to_relabel: frozenset[int]
    ) -> None:
        """``encoded``: sections to encode, and whether as text. See :meth:`Plan.converter`."""
        self._walk = Walk(self)
        self._level = level
        self._encoded = encoded
        self._unnamed = unnamed
        self._to_relabel = to_relabel
        self._encoder: Encoder | None = None
        self._out: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """Take the next octets of the message, give what is settled."""
        self._walk.feed(chunk)
        return self._taken()

    def end(self) -> bytes:
        """The rest."""
        self._walk.end()
        if self._encoder is not None:
            self._out.append(self._encoder.end_of_message())
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    # What the walk comes across (see Visitor).

    def header(self, section: int, header: PartHeader, lines: bytes, separator: bytes, whole: bool) -> None:
        """Say what the body will be."""
        if section in self._encoded:
            if section in self._unnamed:
                # RFC 1428 §4: nobody said what these octets mean.
                lines += b"Content-Type: text/plain; charset=unknown-8bit\r\n"
            lines = relabelled(lines, "quoted-printable" if self._encoded[section] else "base64")
            separator = b"\r\n"
        elif section in self._to_relabel and header.label not in ("", "7bit", self._level.value):
            lines = relabelled(lines, self._level.value)
        if (
            whole
            and (section in self._encoded or section in self._to_relabel)
            and not find_fields(lines, b"mime-version")
        ):
            lines += b"MIME-Version: 1.0\r\n"
        self._out += (lines, separator)

    def body(self, section: int, data: bytes) -> None:
        """Encode it, or leave it."""
        if section in self._encoded:
            if self._encoder is None:
                self._encoder = QuotedPrintable() if self._encoded[section] else Base64()
            data = self._encoder.feed(data)
        self._out.append(data)

    def closed(self, section: int, container: Container | None) -> None:
        """What follows decides how the last line ends."""

    def delimiter(self, line: bytes) -> None:
        """Stays."""
        if self._encoder is not None:
            self._out.append(self._encoder.end())
            self._encoder = None
        self._out.append(line)


class _Content:
    """What is in the octets of one section."""

    def __init__(self) -> None:
        self.eight_bit = False
        self._controls = False
        self._cr = False  # the last octet was a CR
        self._column = 0
        self._longest = 0

    def feed(self, data: bytes) -> None:
        """Take a chunk."""
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        self.eight_bit = self.eight_bit or not data.isascii()
        lines = data.split(b"\r\n")
        ends = len(lines) - 1
        self._controls = self._controls or b"\0" in data or data.count(b"\r") > ends or data.count(b"\n") > ends
        column = self._column + len(lines[0])
        if ends:
            lines[0] = b""
            self._longest = max(self._longest, column, max(map(len, lines)))
            column = len(lines[-1])
        self._column = column

    def binary(self) -> bool:
        """Is there what only BINARYMIME allows, lines that are too long left aside?"""
        return self._controls or self._cr

    def unfit(self, level: Level) -> bool:
        """Must it be encoded?"""
        long = max(self._longest, self._column) > MAX_LINE
        return long or self.binary() or (self.eight_bit and level is Level.SEVEN_BIT)
