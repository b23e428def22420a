"""Size and room, before the message travels (RFC 1870 §6.1)."""

from __future__ import annotations

from collections.abc import Callable

from mtatwist.smtp.reply import NO_ROOM, TOO_BIG, Reply
from mtatwist.transaction import Transaction


class Size:
    """Refuses at MAIL what would be too big (552) or finds no room (452)."""

    name = "size"

    def __init__(self, message_size: int, has_room: Callable[[int], bool]) -> None:
        self._message_size = message_size
        self._has_room = has_room

    def mail(self, transaction: Transaction) -> Reply | None:
        """Judge by SIZE=; without it, room for any message that may come is wanted."""
        size = transaction.declared_size
        if size > self._message_size:
            return TOO_BIG
        if not self._has_room(size or self._message_size):
            return NO_ROOM
        return None
