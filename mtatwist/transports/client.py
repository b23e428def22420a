"""The delivering client's wire: one bounded reply a command, and no more than is owed (RFC 5321 §4.2, RFC 2920).

Written anew because twisted.mail's SMTPClient takes replies sent ahead of time for success, reads endless ones, and
loses dots at the borders of chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.output import Output
from mtatwist.smtp.reply import Reply, split_enhanced
from mtatwist.transports.reasons import why_lost

MAX_LINE = 2048
"""Octets of a reply line; 512 by RFC 5321 §4.5.3.1.5, and some servers explain themselves at length."""

MAX_LINES = 100
"""Lines of one reply."""

MAX_TEXT = 8192
"""Octets of one reply: a transaction may have a hundred of them."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class ConnectionBroken(Exception):
    """The connection is of no more use; the text says why, for the log and the DSN."""


@implementer(IPushProducer)
class SmtpWire(Protocol):
    """Commands and content out, replies in. After :class:`ConnectionBroken` it is closed.

    ``broken`` says why it is of no more use ("" while it is); ``left`` is true when it was the peer that left.
    """

    transport: Any

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buffer = b""
        self._lines: list[bytes] = []
        self._class = b""
        self._text = 0
        self._replies: list[Reply] = []
        self._owed = 1  # the greeting
        self._content = False
        self._early = False
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
        self._class = match[1][:1]
        self._lines.append(match[3] or b"")
        self._text += len(line)
        if len(self._lines) > MAX_LINES or self._text > MAX_TEXT:
            self.break_off("reply has too many lines")
        elif match[2] != b"-":
            text = "\n".join(part.decode("utf-8", "replace") for part in self._lines)
            self._lines, self._text = [], 0
            self._reply_received(split_enhanced(int(match[1]), text))

    def _reply_received(self, reply: Reply) -> None:
        if not self._owed:
            if reply.code == 421:
                self.left = True
                self.break_off(f"server is closing: {reply}")
            else:
                self.break_off("server sent a reply before the command")
            return
        if reply.positive and (self._content or self._early):
            # It can't have had the end of the message yet.
            self.break_off("server took the message before its end")
            return
        self._early = False
        self._owed -= 1
        self._replies.append(reply)
        if reply.code == 421:
            self._farewell = f"server is closing: {reply}"
        self._wake("_writable" if self._content else "_waiter")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits is told."""
        self.left = self.left or not self.broken
        self._broke(self._farewell or why_lost(reason.value, self.transport))
        gone, self.gone = self.gone, Deferred()
        gone.callback(None)

    def pauseProducing(self) -> None:
        """(IPushProducer) The peer reads slower than we write."""
        self._flowing = False

    def resumeProducing(self) -> None:
        """(IPushProducer) It has caught up."""
        self._flowing = True
        self._wake("_writable")

    def stopProducing(self) -> None:
        """(IPushProducer) connectionLost() follows."""

    # Commands and replies.

    @property
    def leaving(self) -> bool:
        """Has the server said 421? It takes nothing more (RFC 5321 §3.8)."""
        return bool(self._farewell)

    async def ask(self, line: bytes, seconds: float) -> Reply:
        """Send one command, and wait for its reply. Raises ConnectionBroken."""
        self.send(line)
        return await self.reply(seconds)

    def send(self, *lines: bytes) -> None:
        """Send commands in one write; a reply is owed for each. Raises ConnectionBroken."""
        if any(_CONTROL.search(line) for line in lines):
            # What came over the wire has been checked long before; this is the last door.
            self.break_off("a command would have had control characters")
        if self._content:
            self.break_off("a command would have been part of the message")
        self._refuse_early()
        self._owed += len(lines)
        self._output.write(b"".join(line + b"\r\n" for line in lines))

    async def reply(self, seconds: float) -> Reply:
        """The next reply that is owed, ``seconds`` from now at the latest. Raises ConnectionBroken.

        What came in before the connection broke still counts.
        """
        if not self._replies:
            self._check()
            waiter: Deferred[None] = Deferred()
            self._waiter = waiter
            with self.within(seconds, "no reply in time"):
                await waiter
        return self._replies.pop(0)

    # The message itself.

    @property
    def refused(self) -> bool:
        """Has the server refused the message before its end?"""
        return self._content and bool(self._replies)

    def begin_content(self, replies: int) -> None:
        """What is written now is the message; ``replies`` are owed for it, but none that takes it before its end.

        Raises ConnectionBroken.
        """
        self._refuse_early()
        self._content = True
        self._owed += replies

    async def write(self, data: bytes, seconds: float) -> None:
        """Write some of the message, and wait until the peer has taken it, or refused it. Raises ConnectionBroken."""
        self._refuse_begun()
        self._output.write(data)
        if not self._flowing and not self.refused:
            writable: Deferred[None] = Deferred()
            self._writable = writable
            with self.within(seconds, "server does not take the message"):
                await writable

    def end_content(self) -> None:
        """All of the message has been written and taken: now the server may judge it. Raises ConnectionBroken."""
        self._refuse_begun()
        self._early = bool(self._buffer or self._lines)
        self._content = False

    # Everything else.

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
        if self._content:
            # A QUIT would be part of the message, and might be the part that it lacks.
            self.break_off("closed")
            return
        self._broke("closed")
        self._output.write(b"QUIT\r\n")
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        late = self._clock.callLater(seconds, self.transport.abortConnection)
        self.gone.addCallback(lambda _: late.cancel() if late.active() else None)

    @contextmanager
    def within(self, seconds: float, why: str) -> Iterator[None]:
        """Break off unless the ``with`` is left in time."""
        late = self._clock.callLater(seconds, self.break_off, why)
        try:
            yield
        finally:
            if late.active():
                late.cancel()

    def _refuse_early(self) -> None:
        if not self._owed and (self._buffer or self._lines):
            self.break_off("server sent a reply before the command")
        self._check()

    def _refuse_begun(self) -> None:
        """While the message is sent, half of a reply is bad enough, unless it is the beginning of a refusal."""
        begun = self._class if self._lines else self._buffer[:1]
        if begun and begun < b"4":
            self.break_off("server took the message before its end")
        self._check()

    def _check(self) -> None:
        if self.broken:
            raise ConnectionBroken(self.broken)

    def _broke(self, why: str) -> None:
        self.broken = self.broken or why
        for name in ("_waiter", "_writable"):
            self._wake(name, ConnectionBroken(self.broken))

    def _wake(self, name: str, error: ConnectionBroken | None = None) -> None:
        waiter: Deferred[None] | None = getattr(self, name)
        if waiter is not None:
            setattr(self, name, None)
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)
