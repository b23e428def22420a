"""The octets of a message in the spool, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from mtatwist.envelope import Message

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool

_log = Logger()

READ_SIZE = 256 * 1024
"""Octets of a large body read and written at once."""


class Unreadable(Exception):
    """The spool does not give the message; the text is for a DSN."""


class Body:
    """A message's octets, which can be read from the beginning several times."""

    def __init__(self, spool: ISpool, message: Message) -> None:
        self._spool = spool
        self._message = message
        self._offset = 0

    @property
    def is_ascii(self) -> bool | None:
        """Is it all ASCII? None: nobody has looked, as it is not in memory."""
        body = self._message.body
        return None if body is None else body.isascii()

    @property
    def at_end(self) -> bool:
        """Has all of it been read?"""
        return self._offset >= self._message.size

    def rewind(self) -> None:
        """Begin again."""
        self._offset = 0

    async def part(self) -> bytes:
        """The next octets; empty only at the end. Raises Unreadable, too when there is less than there was."""
        message = self._message
        if message.body is not None:
            part = message.body[self._offset :] if self._offset else message.body
        else:
            try:
                part = await self._spool.read(message, self._offset, READ_SIZE)
            except Exception:
                _log.failure("spool_unreadable", id=message.id)
                raise Unreadable("the message could not be read from the spool") from None
        self._offset += len(part)
        if (not part and not self.at_end) or self._offset > message.size:
            raise Unreadable("the message in the spool is not as long as it was")
        return part
