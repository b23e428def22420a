"""Message data within a session: DATA and BDAT, and the reply to their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mtatwist.receive.body import Body
from mtatwist.receive.connection import Connection
from mtatwist.smtp import command, reply
from mtatwist.smtp.data import DotReader
from mtatwist.smtp.reply import Reply

if TYPE_CHECKING:
    from mtatwist.transaction import Transaction


MOST_MESSAGES = 4
"""A message over the size limit is read to its end, so that the peer gets its 552; this many times the limit is
where that ends."""


NO_RECIPIENTS = Reply(503, "5.5.1", "No valid recipients")


class ContentConnection(Connection):
    """A connection whose input is, at times, message data."""

    def __init__(self, *arguments: Any, check_header: Callable[[Transaction, bytes], Any], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._check_header = check_header
        self._stream: Any = None
        self._transaction: Transaction | None = None
        self._body: Body | None = None
        # What input means: dotted data, a counted chunk, or (neither) command lines.
        self._dots: DotReader | None = None
        self._chunk_left = -1
        self._chunk_last = False
        self._chunk_refusal: Reply | None = None
        # What the peer has sent of the message, how long it took for that, and since when we wait for more.
        self._octets = 0
        self._seconds = 0.0
        self._ready_at = 0.0

    def _consume(self) -> bool:
        if self._dots is None and self._chunk_left < 0:
            return self._take_line()
        if not self._fast_enough():
            self.timeoutConnection()
        elif self._octets > MOST_MESSAGES * self._limits.message_size:
            # It has been over the limit for long, and does not look as if it would end.
            self._end(reply.TOO_BIG)
        else:
            self.resetTimeout()
            before = self._at
            if self._dots is not None:
                self._take_data(self._dots)
            else:
                self._take_chunk()
            self._octets += self._at - before
        self._ready_at = self._clock.seconds()
        return True

    def _fast_enough(self) -> bool:
        """Judge the peer by the time that we spent waiting for it, not by the time it waited for us."""
        self._seconds += self._clock.seconds() - self._ready_at
        if self._seconds <= self._timeouts.data_block:
            return True
        return self._octets + len(self._buffer) - self._at >= self._limits.data_rate * self._seconds

    def _go_on(self, _: None) -> None:
        """The store is ready for more."""
        self._ready_at = self._clock.seconds()

    def _take_line(self) -> bool:
        """Use a command line, if there is a whole one."""
        raise NotImplementedError

    def _busy(self) -> bool:
        return self._transaction is not None

    def do_DATA(self, rest: str) -> None:
        """RFC 5321 §4.1.1.4."""
        if rest.strip():
            self._refuse(reply.SYNTAX)
        elif self._transaction is None or self._body is not None:
            self._refuse(reply.BAD_SEQUENCE)
        elif not self._transaction.recipients:
            self._refuse(NO_RECIPIENTS)
        elif self._transaction.parameters and self._transaction.binary:
            # RFC 3030 §3.
            self._refuse(Reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT"))
        else:
            refusal = self._open()
            if refusal is not None:
                self._reset()
                self._refuse(refusal)
                return
            self._dots = DotReader()
            self.setTimeout(self._timeouts.data_init)
            self.answer(reply.GO_AHEAD)

    def do_BDAT(self, rest: str) -> None:
        """RFC 3030 §2: whatever the answer, the chunk follows the command and must be read."""
        size, last = command.parse_bdat(rest)
        refusal = None
        if self._body is None:
            if self._transaction is None:
                refusal = reply.BAD_SEQUENCE
            elif not self._transaction.recipients:
                refusal = NO_RECIPIENTS
            else:
                refusal = self._open()
        if self._body is None:
            # A chunk that is refused is read as fast as any other, and not measured by what came before it.
            self._octets, self._seconds = 0, 0.0
        # The peer may take its time between two chunks: that is what timeouts.command is for.
        self._ready_at = self._clock.seconds()
        self._chunk_left, self._chunk_last, self._chunk_refusal = size, last, refusal
        self.setTimeout(self._timeouts.data_block)
        if size == 0:
            self._chunk_done()

    def _open(self) -> Reply | None:
        """Open the stream of the message, or say why not."""
        assert self._transaction is not None
        writer = self._stream.open(self._transaction)
        if isinstance(writer, Reply):
            return writer
        self._octets, self._seconds = 0, 0.0
        self._ready_at = self._clock.seconds()
        self._body = Body(
            self._transaction,
            writer,
            message_size=self._limits.message_size,
            mend_line_ends=self.session.trusted or self.session.role == "submission",
            check_header=self._check_header,
        )
        return None

    def _reset(self) -> None:
        """Forget the transaction."""
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._transaction = None

    def _take_data(self, dots: DotReader) -> None:
        data, self._at = self._buffer[self._at :] if self._at else self._buffer, len(self._buffer)
        body, rest = dots.feed(data)
        assert self._body is not None
        pause = self._body.take(body) if body else None
        if rest is None:
            if self.timeOut != self._timeouts.data_block:
                self.setTimeout(self._timeouts.data_block)
            if pause is not None:
                self._wait_for(pause, self._go_on)
            return
        self._at -= len(rest)
        self._dots = None
        self._finish()

    def _take_chunk(self) -> None:
        data = self._buffer[self._at : self._at + self._chunk_left]
        self._at += len(data)
        self._chunk_left -= len(data)
        pause = None
        if self._body is not None and self._chunk_refusal is None:
            pause = self._body.take(data)
        if self._chunk_left == 0:
            self._chunk_done()
        elif pause is not None:
            self._wait_for(pause, self._go_on)

    def _chunk_done(self) -> None:
        size, self._chunk_left = self._chunk_left, -1
        refusal, self._chunk_refusal = self._chunk_refusal, None
        self.setTimeout(self._timeouts.command)
        if refusal is not None:
            self._reset()
            self._refuse(refusal)
        elif self._chunk_last:
            self._finish()
        else:
            assert size == 0
            self.answer(Reply(250, "2.0.0", "Chunk received"))

    def _finish(self) -> None:
        assert self._body is not None
        self.setTimeout(self._timeouts.data_done)
        self._wait_for(self._body.finish(), self._finished)

    def _finished(self, result: Reply) -> None:
        self._body = None
        self._transaction = None
        self.setTimeout(self._timeouts.command)
        if result.positive:
            self.answer(result)
        else:
            counter = self._metrics.refused if result.permanent else self._metrics.postponed
            counter.value += 1
            self._refuse(result)
        if self._stopping:
            self._end(reply.SHUTDOWN)
