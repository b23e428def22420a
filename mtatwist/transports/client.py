"""The delivering client's wire: one bounded reply a command, and no more than is owed (RFC 5321 §4.2, RFC 2920).

Written anew because twisted.mail's SMTPClient takes replies sent ahead of time for success, reads endless ones, and
loses dots at the borders of chunks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.output import Output
from mtatwist.smtp.reply import Reply, split_enhanced

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE = 2048
"""Octets of a reply line; 512 by RFC 5321 §4.5.3.1.5, and some servers explain themselves at length."""

MAX_LINES = 100
"""Lines of one reply."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class ConnectionBroken(Exception):
    """The connection is of no more use; the text says why, for the log and the DSN."""


@implementer(IPushProducer)
class SmtpWire(Protocol):
    """Commands out, replies in. After :class:`ConnectionBroken` it is closed.

    ``broken`` says why it is of no more use ("" while it is); ``left`` is true when it was the peer that left.
    """

    transport: Any

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buffer = b""
        self._lines: list[bytes] = []
        self._replies: list[Reply] = []
        self._owed = 1  # the greeting
        self._waiter: Deferred[None] | None = None
        self._writable: Deferred[None] | None = None
        self._flowing = True
        self._farewell = ""
        self.broken = ""
        self.left = False
        self.gone: Deferred[None] = Deferred()

    # What the peer does.

    def connectionMade(self) -> None:
        """Keep the transport from buffering without bound."""
        self.transport.registerProducer(self, True)
        self._output = Output(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Collect reply lines; what is not owed breaks the connection."""
        if self.broken:
            return
        self._buffer += data
        while not self.broken:
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > MAX_LINE:
                    self.break_off("reply line too long")
                return
            line, self._buffer = self._buffer[:end].rstrip(b"\r"), self._buffer[end + 1 :]
            self._line_received(line)

    def _line_received(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_LINE:
            self.break_off("reply is no SMTP reply")
            return
        self._lines.append(match[3] or b"")
        if len(self._lines) > MAX_LINES:
            self.break_off("reply has too many lines")
        elif match[2] != b"-":
            text = "\n".join(part.decode("utf-8", "replace") for part in self._lines)
            self._lines = []
            self._reply_received(split_enhanced(int(match[1]), text))

    def _reply_received(self, reply: Reply) -> None:
        if len(self._replies) >= self._owed:
            if reply.code == 421:
                self.left = True
                self.break_off(f"server is closing: {reply}")
            else:
                self.break_off("server sent a reply before the command")
            return
        self._replies.append(reply)
        if reply.code == 421:
            self._farewell = f"server is closing: {reply}"
        if len(self._replies) == self._owed and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits is told."""
        self.left = self.left or not self.broken
        why = "connection lost" if reason.check(ConnectionDone) else f"connection lost: {reason.getErrorMessage()}"
        self._broke(self._farewell or why)
        gone, self.gone = self.gone, Deferred()
        gone.callback(None)

    def pauseProducing(self) -> None:
        """(IPushProducer) The peer reads slower than we write."""
        self._flowing = False

    def resumeProducing(self) -> None:
        """(IPushProducer) It has caught up."""
        self._flowing = True
        if self._writable is not None:
            writable, self._writable = self._writable, None
            writable.callback(None)

    def stopProducing(self) -> None:
        """(IPushProducer) connectionLost() follows."""

    # What we do.

    async def ask(self, lines: Sequence[bytes], seconds: float) -> list[Reply]:
        """Send commands in one write, and wait for a reply to each; ``seconds`` for all of them.

        Raises ConnectionBroken.
        """
        if any(_CONTROL.search(line) for line in lines):
            # What came over the wire has been checked long before; this is the last door.
            self.break_off("a command would have had control characters")
        self.send(b"".join(line + b"\r\n" for line in lines))
        return await self.replies(len(lines), seconds)

    def send(self, data: bytes) -> None:
        """Write. Raises ConnectionBroken when a reply came that nothing had asked for."""
        self._refuse_early()
        self._output.write(data)

    async def replies(self, count: int, seconds: float) -> list[Reply]:
        """Wait for ``count`` replies, ``seconds`` at most. Raises ConnectionBroken."""
        if not self._owed:
            self._refuse_early()
        self._check()
        self._owed = count
        if len(self._replies) < count:
            waiter: Deferred[None] = Deferred()
            self._waiter = waiter
            await self._bounded(waiter, seconds, "no reply in time")
        replies, self._replies, self._owed = self._replies, [], 0
        return replies

    async def writable(self, seconds: float) -> None:
        """Wait until the peer has taken what we wrote. Raises ConnectionBroken."""
        self._check()
        if not self._flowing:
            writable: Deferred[None] = Deferred()
            self._writable = writable
            await self._bounded(writable, seconds, "server does not take the message")

    def start_tls(self, context: object) -> None:
        """Turn to TLS; what came in clear behind the reply to STARTTLS is an attack (CVE-2021-38371)."""
        if self._buffer or self._lines:
            self.break_off("server sent something behind its STARTTLS reply")
        self._check()
        self._output.through_transport()
        self.transport.startTLS(context)

    def break_off(self, why: str) -> None:
        """Cut the connection; whoever waits gets ConnectionBroken."""
        self._broke(why)
        if self.transport is not None:
            self.transport.abortConnection()

    def quit(self, seconds: float) -> None:
        """Say QUIT and leave, without caring for the answer; cut after ``seconds``."""
        if self.broken:
            return
        self._broke("closed")
        self._output.write(b"QUIT\r\n")
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        late = self._clock.callLater(seconds, self.transport.abortConnection)
        self.gone.addCallback(lambda _: late.cancel() if late.active() else None)

    def _refuse_early(self) -> None:
        if self._buffer or self._lines:
            self.break_off("server sent a reply before the command")
        self._check()

    def _check(self) -> None:
        if self.broken:
            raise ConnectionBroken(self.broken)

    def _broke(self, why: str) -> None:
        self.broken = self.broken or why
        for name in ("_waiter", "_writable"):
            waiter: Deferred[None] | None = getattr(self, name)
            if waiter is not None:
                setattr(self, name, None)
                waiter.errback(ConnectionBroken(self.broken))

    async def _bounded(self, waiter: Deferred[None], seconds: float, why: str) -> None:
        late = self._clock.callLater(seconds, self.break_off, why)
        try:
            await waiter
        finally:
            if late.active():
                late.cancel()
