"""Loop detection by the number of Received fields (RFC 5321 §6.3)."""

from __future__ import annotations

from mtatwist.smtp.header import count_field
from mtatwist.smtp.reply import TOO_MANY_HOPS, Reply
from mtatwist.transaction import Transaction


class Loop:
    """Refuses a message that has been through too many servers."""

    name = "loop"

    def __init__(self, hops: int) -> None:
        self._hops = hops

    def header(self, transaction: Transaction, header: bytes) -> Reply | None:
        """Count the Received fields of the message as it came."""
        return TOO_MANY_HOPS if count_field(header, b"Received") > self._hops else None
