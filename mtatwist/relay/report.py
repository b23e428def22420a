"""Puts DSNs together in the spool: what goes back is read and written in pieces, however large the message is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING

from mtatwist.envelope import Message
from mtatwist.log import EventLogger
from mtatwist.relay.dsn import Dsn, Returned, is_utf8
from mtatwist.relay.notice import Kind, Notice
from mtatwist.smtp.header import MAX_HEADER, header_end

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ISpoolWriter
    from mtatwist.metrics.instruments import Instruments

_log = EventLogger()

READ_SIZE = 256 * 1024
"""Octets of a message that goes back that are in memory at once."""

_HEADER = "The header section of your message is attached."
_WHOLE = "Your message is attached."


class Reporter:
    """Writes DSNs; the transaction that stores them is the recorder's."""

    def __init__(
        self,
        spool: ISpool,
        *,
        hostname: str,
        return_size: int,
        shown: Callable[[float], float],
        metrics: Instruments,
    ) -> None:
        """``return_size``: octets of a message that still goes back whole, if its sender wants that (RET=FULL).
        ``shown`` turns the queue's time to the machine's, which people read."""
        self._spool = spool
        self._hostname = hostname
        self._return_size = return_size
        self._shown = shown
        self._metrics = metrics

    async def write(
        self, message: Message, kind: Kind, notices: Sequence[Notice], *, now: float, until: float
    ) -> ISpoolWriter:
        """One DSN, prepared for ISpool.settle(); ``until``: when a delayed message fails. Raises what went wrong."""
        header = await self._header(message)
        words = self._what_goes_back(message, kind, header)
        if words == _WHOLE:
            try:
                eight_bit = await self._is_eight_bit(message)
                return await self._write(message, kind, notices, Returned(header, True, eight_bit, words), now, until)
            except Exception:
                # Better to be told without the message than not at all.
                self._metrics.relay_errors.value += 1
                _log.failure("message_not_returned", id=message.id)
                words = f"{_HEADER} All of it could not be read."
        returned = Returned(header, False, not header.isascii(), words)
        return await self._write(message, kind, notices, returned, now, until)

    def _what_goes_back(self, message: Message, kind: Kind, header: bytes) -> str:
        """What is attached, in words, and why not all of it. RET counts for failures only (RFC 3461 §4.3)."""
        if not header and message.size:
            return "Your message could not be read, so nothing of it is attached."
        if message.envelope.ret != "FULL" or kind is not Kind.FAILED:
            return _HEADER
        if message.size > self._return_size:
            return (
                f"{_HEADER} All of it would be more than the {_octets(self._return_size)} that are returned from here."
            )
        if message.envelope.body_type == "BINARYMIME":
            # A part of a message can't be binary where the next server takes no such messages (RFC 3030 §3).
            return f"{_HEADER} All of it can't be attached, since it is binary."
        if not (header.isascii() or is_utf8(header)):
            # Where only 7-bit mail is taken, nobody could convert it.
            return f"{_HEADER} All of it can't be attached, since that is in no charset that is known."
        if not self._spool.has_room(message.size):
            return f"{_HEADER} There is no room to return all of it."
        return _WHOLE

    async def _write(
        self, message: Message, kind: Kind, notices: Sequence[Notice], returned: Returned, now: float, until: float
    ) -> ISpoolWriter:
        dsn = Dsn(kind, message, notices, returned, self._hostname, token_hex(16), now, until, self._shown)
        before = dsn.before()
        writer = self._spool.create(dsn.envelope(before))
        try:
            await _put(writer, before)
            if returned.whole:
                offset = 0
                while offset < message.size:
                    part = await self._read(message, offset)
                    await _put(writer, part)
                    offset += len(part)
            else:
                await _put(writer, returned.header.rstrip(b"\r\n") + b"\r\n")
            await _put(writer, dsn.after())
            await writer.prepare()
        except BaseException:
            writer.abort()
            raise
        return writer

    async def _header(self, message: Message) -> bytes:
        """The header section, or its beginning; nothing when it can't be read."""
        try:
            beginning = await self._spool.read(message, 0, MAX_HEADER)
        except Exception:
            self._metrics.relay_errors.value += 1
            _log.failure("spool_unreadable", id=message.id)
            return b""
        end = header_end(beginning)
        return beginning[:end] if end >= 0 else beginning

    async def _is_eight_bit(self, message: Message) -> bool:
        """Does the message have octets beyond ASCII, whatever BODY said?"""
        offset = 0
        while offset < message.size:
            part = await self._read(message, offset)
            if not part.isascii():
                return True
            offset += len(part)
        return False

    async def _read(self, message: Message, offset: int) -> bytes:
        part = await self._spool.read(message, offset, READ_SIZE)
        if not part:
            raise LookupError(f"message {message.id} ends at {offset} of {message.size} octets")
        return part


async def _put(writer: ISpoolWriter, data: bytes) -> None:
    pause = writer.write(data)
    if pause is not None:
        await pause


def _octets(size: int) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 2**20 else f"{size / 2**10:.3g} KiB"
