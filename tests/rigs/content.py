"""Messages that a careless server damages."""

from __future__ import annotations

from collections.abc import Iterator

HEAD = b"From: <sender@client.test>\r\nSubject: awkward\r\n\r\n"


def _filler(size: int) -> bytes:
    """Exactly ``size`` bytes of short lines (at least 2)."""
    line = b"x" * 70 + b"\r\n"
    body = line * (size // len(line))
    missing = size - len(body)
    if missing == 1:
        return body[:-2] + b"y\r\n"
    return body + (b"z" * (missing - 2) + b"\r\n" if missing else b"")


def dots_at(border: int) -> bytes:
    """Lines that begin with dots at each offset around each multiple of ``border``."""
    content = HEAD
    for shift in range(-6, 7):
        multiple = (len(content) // border + 1) * border
        content += _filler(multiple + shift - len(content)) + b".\r\n..\r\n...\r\n.a\r\n"
    return content


def awkward() -> Iterator[tuple[str, bytes]]:
    """Each with a name; all are canonical: CRLF line ends, and one at the end."""
    yield "empty", b""
    yield "one empty line", b"\r\n"
    yield "only dots", b".\r\n..\r\n.\r\n"
    yield "no header", b".starts with a dot, without a header\r\n"
    yield "no body", b"Subject: no body\r\n"
    yield "white space at the ends of lines", HEAD + b"trailing \t \r\n \r\n\t\r\n"
    yield "bytes above 127", HEAD + bytes(range(128, 256)) * 9 + b"\r\n"
    yield "control characters", HEAD + bytes(c for c in range(1, 32) if c not in b"\r\n") + b"\x7f\r\n"
    yield "NUL", HEAD + b"\0 in \0\0 between\0\r\n\0\r\n"
    yield "a line of 100 kB", HEAD + b"l" * 100_000 + b"\r\n.\r\n" + b"." * 100_000 + b"\r\n"
    yield "a header line of 20 kB", b"References: " + b"<id@client.test> " * 1200 + b"\r\n" + HEAD
    for border in (512, 4096, 16384, 65536):
        yield f"dots around multiples of {border}", dots_at(border)
