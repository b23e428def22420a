"""How much a session may take, and how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets and counts. ``errors``: refused commands in a session before it is ended; ``data_rate``: the least
    octets a second of message data, on average."""

    message_size: int
    errors: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, by what we are waiting for (RFC 5321 §4.5.3.2). ``session`` is looked at between transactions."""

    handshake: float
    command: float
    data_init: float
    data_block: float
    data_done: float
    session: float
