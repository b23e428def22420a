"""The flow of a session: one event at a time, replies corked, deadlines kept, an end that really ends.

While a command waits for its answer, later input waits in a bounded buffer. What input means is for the subclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.output import Output
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.clock import Deadline
from mtatwist.receive.ended import log_end
from mtatwist.receive.handshake import Handshake
from mtatwist.smtp import reply
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Session

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

INPUT_LIMIT = 64 * 1024
"""Octets of input that may wait before the transport is paused; a chunk of what was under way may come on top."""

REPLIES_A_ROUND = 200
"""Commands that one session may have answered in one round of the reactor: 64 KiB hold ten thousand."""

LOGGED = 300
"""Octets of a refused command that the log repeats."""

ABORT_AFTER = 5.0
"""Seconds a peer has to take our last words, before the connection is cut."""


@implementer(IPushProducer, IHandshakeListener)
class Connection(smtp.ESMTP):
    """The connection under a session. Subclasses consume its input and say when they are busy."""

    transport: Any
    portal: Any
    delivery: Any
    timeOut: float | None  # type: ignore[assignment]

    def __init__(
        self,
        session: Session,
        *,
        limits: Limits,
        timeouts: Timeouts,
        metrics: Instruments,
        clock: IReactorTime,
        ended: Callable[[Connection], None],
        chal: dict[bytes, Any] | None = None,
        contextFactory: Any = None,
    ) -> None:
        super().__init__(chal, contextFactory)
        self.session = session
        self._limits = limits
        self._timeouts = timeouts
        self._metrics = metrics
        self._clock = clock
        self._ended = ended
        self._buffer = b""
        self._at = 0
        self._out: list[bytes] = []
        self._draining = False
        self._waiting = False
        self._paused = False
        self._clogged = False
        self._closing = False
        self._stopping = False
        #: No transaction may begin: the server takes no new mail.
        self.draining = False
        self._errors = 0
        self._line = b""
        self._handshake: Handshake | None = None

    def _consume(self) -> bool:
        """Use some input from ``_buffer[_at:]`` and move ``_at``; False when more of it must come first."""
        raise NotImplementedError

    def _busy(self) -> bool:
        """Is a transaction under way?"""
        raise NotImplementedError

    def _reset(self) -> None:
        """Forget the transaction."""
        raise NotImplementedError

    # The connection.

    def connectionMade(self) -> None:
        """Greet, in clear: what is written before a TLS handshake is over would pause us, and the handshake with us."""
        self._began_at = self._clock.seconds()
        self._tired_at = self._began_at + self._timeouts.session
        self._deadline = Deadline(self._clock, self.timeoutConnection)
        self._helo = (None, self.session.peer.encode())
        self.canStartTLS = self.ctx is not None and not self.startedTLS
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._output = Output(self.transport)
        self._implicit_tls = self.startedTLS
        if self._implicit_tls:
            self._begin_handshake()
        else:
            self.setTimeout(self._timeouts.command)
            self._greet()

    def _begin_handshake(self) -> None:
        """From now on it is the peer's turn."""
        self._handshake = Handshake(self.session, self._metrics, implicit=self._implicit_tls)
        self.setTimeout(self._timeouts.handshake)

    def handshakeCompleted(self) -> None:
        """(IHandshakeListener) Now is the time to greet, where the session began with TLS."""
        handshake, self._handshake = self._handshake, None
        if handshake is None or self._closing:
            return
        handshake.completed(self.transport.getHandle())
        self.setTimeout(self._timeouts.command)
        if self._implicit_tls:
            self._greet()

    def _greet(self) -> None:
        self.answer(Reply(220, "", f"{self._name} ESMTP mtatwist"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the unfinished message and log out."""
        if self._handshake is not None:
            self._handshake.lost(reason)
        self._closing = True
        self._deadline.cancel()
        self._reset()
        super().connectionLost(reason)
        log_end(self.session, refused=self._errors, seconds=self._clock.seconds() - self._began_at)
        self._ended(self)

    def callLater(self, period: float, func: Callable[[], None]) -> Any:
        """(TimeoutMixin) On the clock that was passed in."""
        return self._clock.callLater(period, func)

    def setTimeout(self, period: float | None) -> None:
        """(TimeoutMixin) Wait for ``period`` seconds at most, or for ever."""
        self.timeOut = period
        if period is None:
            self._deadline.cancel()
        else:
            self._deadline.set(period)

    def resetTimeout(self) -> None:
        """(TimeoutMixin) The peer did something."""
        if self.timeOut is not None:
            self._deadline.touch(self.timeOut)

    def timeoutConnection(self) -> None:
        """The peer (or our own store) took too long."""
        self._metrics.timeouts.value += 1
        if self._handshake is not None:
            self._handshake.late(self.transport.getHandle())
            self._end()
            return
        _log.info("timeout", session=self.session.id, peer=self.session.peer)
        self._end(reply.TIMEOUT)

    def shut_down(self, now: bool) -> None:
        """The server stops: end at once when ``now`` or nothing is under way, else after this transaction."""
        self._stopping = True
        if now or not (self._busy() or self._waiting):
            self._end(reply.SHUTDOWN)

    def pauseProducing(self) -> None:
        """(IPushProducer) The peer does not read our replies: neither do we read its commands."""
        self._clogged = True
        self._regulate()

    def resumeProducing(self) -> None:
        """(IPushProducer) It reads again."""
        self._clogged = False
        self._drain()

    def stopProducing(self) -> None:
        """(IPushProducer) The connection is gone; connectionLost() follows."""

    def _end(self, last: Reply | None = None) -> None:
        """Say ``last`` and close; cut the connection if the peer does not let us."""
        if self._closing:
            return
        self._closing = True
        self._handshake = None
        self._deadline.cancel()
        if last is not None:
            self.answer(last)
        self._flush()
        self._reset()
        self._buffer = b""
        if self._paused:
            # A paused transport does not notice that the peer has gone.
            self._paused = False
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._deadline = Deadline(self._clock, self.transport.abortConnection)
        self._deadline.set(ABORT_AFTER)

    # Output: corked, so that the replies to pipelined commands leave in one write.

    @property
    def _name(self) -> str:
        name: bytes = self.host
        return name.decode("ascii", "replace")

    def answer(self, what: Reply) -> None:
        """Reply to a command."""
        metrics = self._metrics
        if what.code < 300:
            metrics.replies_2xx.value += 1
        elif what.code < 400:
            metrics.replies_3xx.value += 1
        elif what.code < 500:
            metrics.replies_4xx.value += 1
        else:
            metrics.replies_5xx.value += 1
        self._out.append(what.encode())
        if not self._draining:
            self._flush()

    def sendLine(self, line: bytes) -> None:
        """(LineOnlyReceiver) A line as it is."""
        self._out.append(line + b"\r\n")
        if not self._draining:
            self._flush()

    def sendCode(self, code: int, message: bytes = b"") -> None:
        """(SMTP) A reply in the parent's form."""
        self.answer(reply.split_enhanced(code, message.decode("utf-8", "replace")))

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self._output.write(out[0] if len(out) == 1 else b"".join(out))

    def _refuse(self, what: Reply) -> None:
        """Refuse a command, and say so in the log."""
        session = self.session
        _log.info(
            "refused", session=session.id, peer=session.peer, helo=session.helo, command=self._said(), reply=str(what)
        )
        self._reject(what)

    def _reject(self, what: Reply) -> None:
        """Refuse a command; too many of them end the session."""
        self._errors += 1
        self.answer(what)
        if self._errors >= self._limits.errors:
            self._end(reply.TOO_MANY_ERRORS)

    def _said(self) -> str:
        """The last command: whole where it names a path; of others, which may be secret, the verb."""
        line = self._line[:LOGGED].decode("utf-8", "replace")
        verb = line.replace("\t", " ").partition(" ")[0]
        return line if verb.upper() in ("MAIL", "RCPT") else verb

    # Input.

    def dataReceived(self, data: bytes) -> None:
        """Whatever came, in whatever pieces."""
        if self._closing:
            return
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        self._drain()

    def _drain(self) -> None:
        """Work through the buffer until it is empty or something must be waited for."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._at < len(self._buffer) and not (self._waiting or self._closing or self._clogged):
                if len(self._out) >= REPLIES_A_ROUND:
                    self._give_way()
                elif not self._consume():
                    break
        except Exception:
            _log.failure("session_crashed", session=self.session.id)
            self._end(reply.OUR_TROUBLE._replace(code=421))
        finally:
            self._draining = False
        if not self._closing:
            self._flush()
            if self._waiting or self._paused or self._clogged:
                self._regulate()

    def _give_way(self) -> None:
        """Let the other sessions have their turn."""
        self._waiting = True
        self._clock.callLater(0, self._resume, None, lambda _: None)

    def _regulate(self) -> None:
        """Stop reading when enough is waiting, go on when it is not."""
        full = self._clogged or (self._waiting and len(self._buffer) - self._at > INPUT_LIMIT)
        if full != self._paused and not self._closing:
            self._paused = full
            if full:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _wait_for(self, later: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Go on with ``then`` when ``later`` fires; until then nothing else is read."""
        self._waiting = True
        later.addCallbacks(self._resume, self._crashed, callbackArgs=(then,))

    def _resume(self, result: Any, then: Callable[[Any], None]) -> None:
        self._waiting = False
        if self._closing:
            return
        corked, self._draining = self._draining, True
        try:
            then(result)
            self._draining = corked
            self._drain()
        except Exception:
            self._draining = corked
            self._crashed(Failure())

    def _crashed(self, failure: Failure) -> None:
        _log.failure("session_crashed", failure, session=self.session.id)
        self._waiting = False
        self._end(reply.OUR_TROUBLE._replace(code=421))
