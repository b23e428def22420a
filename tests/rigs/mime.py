"""A message as a reader of MIME sees it, and what the conversion for an old peer makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email.message import Message
from itertools import pairwise

from mtatwist.smtp.downgrade import MAX_LINE, Level, Plan, Scan


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """``data`` in chunks, with borders at the offsets ``at``."""
    borders = [0, *sorted(position % (len(data) + 1) for position in at), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def plan_for(chunks: Sequence[bytes], level: Level = Level.SEVEN_BIT) -> Plan:
    """What the scan says of a message that comes in these chunks."""
    scan = Scan(level)
    for chunk in chunks:
        scan.feed(chunk)
    return scan.finish()


def converted(chunks: Sequence[bytes], level: Level = Level.SEVEN_BIT, scanned: Sequence[bytes] = ()) -> bytes:
    """What the conversion makes of it; ``scanned``: the chunks of the first pass, if they were others."""
    plan = plan_for(scanned or chunks, level)
    converter = plan.converter()
    return b"".join(converter.feed(chunk) for chunk in chunks) + converter.end()


def _leaves(message: Message) -> Iterator[tuple[str, bytes | None]]:
    if message.is_multipart():
        for part in message.get_payload():
            assert isinstance(part, Message)
            yield from _leaves(part)
    else:
        payload = message.get_payload(decode=True)
        assert payload is None or isinstance(payload, bytes)
        yield message.get_content_type(), payload


def parts(message: bytes) -> list[tuple[str, bytes | None]]:
    """Each part as Python's email package reads it: its type and its decoded octets."""
    return list(_leaves(message_from_bytes(message)))


def fit(message: bytes) -> bool:
    """Can a peer without extensions take it, as RFC 5322 §2.1.1 and RFC 5321 §4.5.3.1.6 have it?"""
    lines = message.split(b"\r\n")
    bare = any(octet in line for line in lines for octet in (b"\r", b"\n", b"\0"))
    return message.isascii() and not bare and max(map(len, lines)) <= MAX_LINE
