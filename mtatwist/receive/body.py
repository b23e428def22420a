"""The body of one transaction on its way to a writer: size, line ends and header checks by the chunk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from mtatwist.smtp.data import LineEnds
from mtatwist.smtp.header import MAX_HEADER, header_end
from mtatwist.smtp.reply import BAD_BYTES, OUR_TROUBLE, TOO_BIG, Reply

if TYPE_CHECKING:
    from mtatwist.interfaces import IMessageWriter, Verdict
    from mtatwist.transaction import Transaction

_log = Logger()


class Body:
    """Takes message octets until the end of data, whatever is wrong with them; refuses only then.

    Of several reasons to refuse it is always the same one that is told, however the octets were cut up: size before
    bytes before the header.
    """

    def __init__(
        self,
        transaction: Transaction,
        writer: IMessageWriter,
        *,
        message_size: int,
        mend_line_ends: bool,
        check_header: Callable[[Transaction, bytes], Verdict],
    ) -> None:
        self._transaction = transaction
        self._writer = writer
        self._limit = message_size
        self._line_ends = None if transaction.binary else LineEnds(mend_line_ends)
        self._check_header = check_header
        self._head: bytes | None = b""
        self._refusal: Reply | None = None
        self._pending: Awaitable[Reply | None] | None = None

    def take(self, data: bytes) -> Deferred[None] | None:
        """Take a chunk; a Deferred asks to wait with the next one."""
        try:
            return self._take(data)
        except Exception:
            # No memory, or a bug: it costs this message, and nothing else.
            self._crashed()
            return None

    def _take(self, data: bytes) -> Deferred[None] | None:
        if self._refusal is TOO_BIG:
            return None
        line_ends = self._line_ends
        if line_ends is not None:
            data = line_ends.feed(data)
        self._transaction.size += len(data)
        if self._transaction.size > self._limit:
            self._refuse(TOO_BIG)
        elif line_ends is not None and line_ends.bad:
            self._refuse(BAD_BYTES)
        elif data and self._refusal is None:
            if self._head is not None:
                if not self._head and data[0] in b" \t":
                    # It has no header section, and would read as the rest of our Received field (RFC 5322 §2.2.3).
                    self._writer.write(b"\r\n")
                self._collect_header(data)
            if self._refusal is None:
                return self._writer.write(data)
        return None

    def finish(self) -> Deferred[Reply]:
        """The end of data has come: fires with the reply it gets."""
        try:
            return self._finish()
        except Exception:
            self._crashed()
            return succeed(OUR_TROUBLE)

    def _finish(self) -> Deferred[Reply]:
        held = self._line_ends.end() if self._line_ends is not None else b""
        if held:
            self.take(held)
        if self._refusal is None and self._head is not None:
            self._header_is(self._head)
        if self._refusal is not None:
            return succeed(self._refusal)
        if self._pending is not None:
            return Deferred.fromCoroutine(self._finish_later(self._pending))
        return self._writer.finish()

    def abort(self) -> None:
        """The message will not be finished."""
        if self._refusal is None:
            self._writer.abort()

    async def _finish_later(self, pending: Awaitable[Reply | None]) -> Reply:
        refusal = await pending
        if refusal is not None:
            self._refuse(refusal)
            return refusal
        return await self._writer.finish()

    def _crashed(self) -> None:
        _log.failure("content_crashed", session=self._transaction.session.id)
        self._refuse(OUR_TROUBLE)

    def _refuse(self, reply: Reply) -> None:
        if self._refusal is None:
            self._writer.abort()
        self._refusal = reply

    def _collect_header(self, data: bytes) -> None:
        assert self._head is not None
        head = self._head + data if self._head else data
        end = header_end(head)
        if end >= 0:
            self._header_is(head[: min(end, MAX_HEADER)])
        elif len(head) >= MAX_HEADER:
            self._header_is(head[:MAX_HEADER])
        else:
            self._head = head

    def _header_is(self, header: bytes) -> None:
        self._head = None
        verdict = self._check_header(self._transaction, header)
        if isinstance(verdict, Reply):
            self._refuse(verdict)
        elif verdict is not None:
            self._pending = verdict
