"""The header section of a message, as far as a transfer agent reads it (RFC 5322 §2.2)."""

from __future__ import annotations

import re
from functools import lru_cache

_VALUE = re.compile(rb"[ \t]*:(.*(?:\n[ \t].*)*)")

MAX_HEADER = 65_536
"""Octets of a message that are looked at when searching its header section."""


def header_end(data: bytes) -> int:
    """Where the header section in ``data`` ends (after its empty line), or -1 when that is not there yet."""
    if data.startswith(b"\r\n"):
        return 2
    end = data.find(b"\r\n\r\n")
    return end + 4 if end >= 0 else -1


def count_field(header: bytes, name: bytes) -> int:
    """How many fields called ``name`` (any case) the header section has."""
    lowered = b"\r\n" + header.lower()
    return lowered.count(b"\r\n" + name.lower() + b":")


def field_values(header: bytes, name: bytes) -> list[bytes]:
    """What stands behind the colon of each field called ``name`` (any case), folded lines joined (RFC 5322 §2.2.3).

    Space before the colon (§4.5) and line ends that are none (a bare CR or LF) count, too: some readers go by them.
    """
    lines, lowered = _lines(header)
    start = b"\n" + name.lower()
    found = []
    # Many times as quick as one expression that looks at every line.
    at = lowered.find(start)
    while at >= 0:
        at += len(start)
        match = _VALUE.match(lines, at)
        if match is not None:
            found.append(match[1].replace(b"\n", b""))
        at = lowered.find(start, at)
    return found


@lru_cache(maxsize=2)
def _lines(header: bytes) -> tuple[bytes, bytes]:
    """A line feed before each line, and the same in lower case. Of one message, several fields are looked at."""
    lines = b"\n" + header.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return lines, lines.lower()


def without_field(header: bytes, name: bytes) -> bytes:
    """``header`` without the fields called ``name``, folded lines included."""
    return re.sub(rb"(?im)^" + re.escape(name) + rb"[ \t]*:.*\r\n(?:[ \t].*\r\n)*", b"", header)
