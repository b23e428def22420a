"""The receiver: twisted.mail's ESMTP with everything overridden that the open internet would misuse.

What is kept of the parent: its place (portal, challengers, avatars, extensions(), TimeoutMixin's methods), not its
way of reading. Never set ``mode`` to smtp.DATA: the parent's data methods own name-mangled state that we don't have.

One event at a time: while a command waits for its answer, later input waits in a bounded buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.cred.credentials import Anonymous
from twisted.cred.error import LoginFailed, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.envelope import Recipient
from mtatwist.interfaces import IMessageStream
from mtatwist.receive.adapter import StreamedDelivery
from mtatwist.receive.body import Body
from mtatwist.receive.clock import Deadline
from mtatwist.smtp import command, reply
from mtatwist.smtp.address import NULL
from mtatwist.smtp.data import DotReader
from mtatwist.smtp.framing import LineFramer
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Session, Transaction

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.receive.factory import ReceiveFactory

_log = Logger()

INPUT_LIMIT = 64 * 1024
"""Octets of input that may wait before the transport is paused; a chunk of what was under way may come on top."""

ABORT_AFTER = 5.0
"""Seconds a peer has to take our last words, before the connection is cut."""

_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets and counts. ``errors``: refused commands in a session before it is ended."""

    message_size: int
    errors: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, by what we are waiting for (RFC 5321 §4.5.3.2). ``session`` is looked at between transactions."""

    command: float
    data_init: float
    data_block: float
    data_done: float
    session: float


@implementer(IPushProducer)
class ReceiveProtocol(smtp.ESMTP):
    """One SMTP session."""

    factory: ReceiveFactory

    def __init__(
        self,
        session: Session,
        *,
        limits: Limits,
        timeouts: Timeouts,
        metrics: Instruments,
        check_header: Callable[[Transaction, bytes], Any],
        chal: dict[bytes, Any] | None = None,
        contextFactory: Any = None,  # noqa: N803
    ) -> None:
        super().__init__(chal, contextFactory)
        self.session = session
        self._limits = limits
        self._timeouts = timeouts
        self._metrics = metrics
        self._check_header = check_header
        self._stream: Any = None
        self._transaction: Transaction | None = None
        self._framer = LineFramer(command.MAX_COMMAND_LINE)
        self._buffer = b""
        self._at = 0
        self._out: list[bytes] = []
        self._draining = False
        self._waiting = False
        self._paused = False
        self._clogged = False
        self._closing = False
        self._stopping = False
        self._errors = 0
        self._first = True
        # What input means: command lines, dotted data, or a counted chunk.
        self._body: Body | None = None
        self._dots: DotReader | None = None
        self._chunk_left = -1
        self._chunk_last = False
        self._chunk_refusal: Reply | None = None

    # The connection.

    def connectionMade(self) -> None:  # noqa: N802
        """Greet."""
        clock = self.factory.clock
        self._started = clock.seconds()
        self._deadline = Deadline(clock, self.timeoutConnection)
        self._helo = (None, self.session.peer.encode())
        self.canStartTLS = self.ctx is not None and not self.startedTLS
        self.transport.registerProducer(self, True)
        self.answer(Reply(220, "", f"{self._name} ESMTP mtatwist"))
        self.setTimeout(self._timeouts.command)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """Forget the unfinished message and log out."""
        self._closing = True
        self._deadline.cancel()
        if self._body is not None:
            self._body.abort()
            self._body = None
        super().connectionLost(reason)
        self.factory.session_ended(self)

    def callLater(self, period: float, func: Callable[[], None]) -> Any:  # noqa: N802
        """(TimeoutMixin) On the clock that was passed in."""
        return self.factory.clock.callLater(period, func)

    def setTimeout(self, period: float | None) -> None:  # noqa: N802
        """(TimeoutMixin) Wait for ``period`` seconds at most, or for ever."""
        self.timeOut = period
        if period is None:
            self._deadline.cancel()
        else:
            self._deadline.set(period)

    def resetTimeout(self) -> None:  # noqa: N802
        """(TimeoutMixin) The peer did something."""
        if self.timeOut is not None:
            self._deadline.set(self.timeOut)

    def timeoutConnection(self) -> None:  # noqa: N802
        """The peer (or our own store) took too long."""
        self._metrics.timeouts.value += 1
        _log.info("timeout", session=self.session.id, peer=self.session.peer)
        self._end(reply.TIMEOUT)

    def shut_down(self, now: bool) -> None:
        """The server stops: end at once when ``now`` or nothing is under way, else after this transaction."""
        self._stopping = True
        if now or (self._transaction is None and self._body is None and not self._waiting):
            self._end(reply.SHUTDOWN)

    def pauseProducing(self) -> None:  # noqa: N802
        """(IPushProducer) The peer does not read our replies: neither do we read its commands."""
        self._clogged = True
        self._regulate()

    def resumeProducing(self) -> None:  # noqa: N802
        """(IPushProducer) It reads again."""
        self._clogged = False
        self._drain()

    def stopProducing(self) -> None:  # noqa: N802
        """(IPushProducer) The connection is gone; connectionLost() follows."""

    def _end(self, last: Reply | None = None) -> None:
        """Say ``last`` and close; cut the connection if the peer does not let us."""
        if self._closing:
            return
        self._closing = True
        self._deadline.cancel()
        if last is not None:
            self.answer(last)
        self._flush()
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._buffer = b""
        if self._paused:
            # A paused transport does not notice that the peer has gone.
            self._paused = False
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._deadline = Deadline(self.factory.clock, self.transport.abortConnection)
        self._deadline.set(ABORT_AFTER)

    # Output: corked, so that the replies to pipelined commands leave in one write.

    @property
    def _name(self) -> str:
        return self.host.decode("ascii", "replace")

    def answer(self, what: Reply) -> None:
        """Reply to a command."""
        metrics = self._metrics
        if what.code < 400:
            metrics.replies_2xx.value += 1
        elif what.code < 500:
            metrics.replies_4xx.value += 1
        else:
            metrics.replies_5xx.value += 1
        self._out.append(what.encode())
        if not self._draining:
            self._flush()

    def sendLine(self, line: bytes) -> None:  # noqa: N802
        """(LineOnlyReceiver) A line as it is."""
        self._out.append(line + b"\r\n")
        if not self._draining:
            self._flush()

    def sendCode(self, code: int, message: bytes = b"") -> None:  # noqa: N802
        """(SMTP) A reply in the parent's form."""
        self.answer(reply.split_enhanced(code, message.decode("utf-8", "replace")))

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _refuse(self, what: Reply) -> None:
        """Refuse a command; too many of them end the session."""
        self._errors += 1
        self.answer(what)
        if self._errors >= self._limits.errors:
            self._end(reply.TOO_MANY_ERRORS)

    # Input.

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Whatever came, in whatever pieces."""
        if self._closing:
            return
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        if not self._waiting and (self._dots is not None or self._chunk_left >= 0):
            self.resetTimeout()
        self._drain()

    def _drain(self) -> None:
        """Work through the buffer until it is empty or something must be waited for."""
        if self._draining:
            return
        self._draining = True
        try:
            while not (self._waiting or self._closing or self._clogged) and self._at < len(self._buffer):
                if self._dots is not None:
                    self._take_data(self._dots)
                elif self._chunk_left >= 0:
                    self._take_chunk()
                elif not self._take_line():
                    break
        except Exception:
            _log.failure("session_crashed", session=self.session.id)
            self._end(reply.OUR_TROUBLE._replace(code=421))
        finally:
            self._draining = False
        if not self._closing:
            self._flush()
            self._regulate()

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
        later.addCallback(self._resume, then)
        later.addErrback(self._crashed)

    def _resume(self, result: Any, then: Callable[[Any], None]) -> None:
        self._waiting = False
        if self._closing:
            return
        corked, self._draining = self._draining, True
        try:
            then(result)
        finally:
            self._draining = corked
        self._drain()

    def _crashed(self, failure: Failure) -> None:
        _log.failure("session_crashed", failure, session=self.session.id)
        self._waiting = False
        self._end(reply.OUR_TROUBLE._replace(code=421))

    # Commands.

    def _take_line(self) -> bool:
        line, self._at = self._framer.cut(self._buffer, self._at)
        if line is None:
            return False
        # Only a whole line is a sign of life.
        self.resetTimeout()
        if isinstance(line, Reply):
            self._refuse(line)
        elif self.mode == smtp.AUTH:
            self.state_AUTH(line)
        else:
            self.state_COMMAND(line)
        return True

    def lookupMethod(self, command: bytes | str) -> Callable[[Any], None] | None:  # noqa: N802
        """(SMTP) The method for a verb: those of the table, and nothing else that happens to have such a name."""
        verb = command if isinstance(command, str) else command.decode("ascii", "replace")
        name = COMMANDS.get(verb.upper() if verb.isascii() else verb)
        return None if name is None else getattr(self, name)

    def state_COMMAND(self, line: bytes) -> None:  # noqa: N802
        """(SMTP) One command line, without its CRLF."""
        if self._transaction is None and self.factory.clock.seconds() - self._started > self._timeouts.session:
            self.timeoutConnection()
            return
        try:
            verb, rest = command.split(line)
            method = self.lookupMethod(verb)
            if method is not None:
                method(rest)
            elif self._first and verb in _HTTP:
                self._end(reply.NOT_HTTP)
            else:
                self._refuse(reply.UNKNOWN_COMMAND)
        except command.CommandError as error:
            self._refuse(error.reply)
            if isinstance(error, command.ChunkTooLarge):
                self._end()
        self._first = False

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        """(ESMTP) What EHLO offers: only what works here and now."""
        offered: dict[bytes, list[bytes] | None] = {
            b"SIZE": [b"%d" % self._limits.message_size],
            b"8BITMIME": None,
            b"PIPELINING": None,
            b"ENHANCEDSTATUSCODES": None,
            b"CHUNKING": None,
        }
        if self.canStartTLS:
            offered[b"STARTTLS"] = None
        return offered

    def do_EHLO(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.1."""
        if self._hello(rest, extended=True):
            peer = self.session.peer or "there"
            self.answer(Reply(250, "", f"{self._name} greets {peer}\n{self.listExtensions().decode('ascii')}"))

    def do_HELO(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.1."""
        if self._hello(rest, extended=False):
            self.answer(Reply(250, "", self._name))

    def _hello(self, rest: str, extended: bool) -> bool:
        name = rest.strip()
        if not name or " " in name:
            self._refuse(Reply(501, "5.5.4", f"Syntax: {'EHLO' if extended else 'HELO'} hostname"))
            return False
        self._reset()
        if self.startedTLS:
            self.session.tls = self._tls_facts()
        self.session.helo = name[:255]
        self.session.extended = extended
        self._helo = (name.encode(), self.session.peer.encode())
        return True

    def _tls_facts(self) -> str:
        """Version and cipher; the handshake is over once a command has come through it."""
        connection = self.transport.getHandle()
        return f"{connection.get_protocol_version_name()} with cipher {connection.get_cipher_name()}"

    def do_MAIL(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.2."""
        if self._stopping:
            self._end(reply.SHUTDOWN)
        elif not self.session.helo or self._transaction is not None:
            self._refuse(reply.BAD_SEQUENCE)
        else:
            address, parameters = command.parse_path_command("FROM:", rest)
            if not address.domain and address != NULL:
                address = address._replace(domain=self._name)
            self._need_ascii(str(address))
            transaction = Transaction(self.session, address, parameters)
            if self._stream is None or self.deliveryFactory is not None:
                self._log_in(transaction)
            else:
                self._judge(self._stream.mail(transaction), self._begun, transaction)

    def _log_in(self, transaction: Transaction) -> None:
        """Get the avatar that judges this session's transactions."""
        if self.delivery is None and self.deliveryFactory is None and self.portal is None:
            self._refuse(reply.OUR_TROUBLE)
            return
        if self.delivery is None and self.deliveryFactory is None:
            login = self.portal.login(Anonymous(), self.session, smtp.IMessageDeliveryFactory, smtp.IMessageDelivery)
            login.addCallback(self._cbAnonymousAuthentication)
        else:
            login = Deferred()
            login.callback(None)

        def logged_in(_: object) -> Any:
            if self.deliveryFactory is not None:
                self.delivery = self.deliveryFactory.getMessageDelivery()
            provided = IMessageStream.providedBy(self.delivery)
            self._stream = self.delivery if provided else StreamedDelivery(self.delivery)
            return self._stream.mail(transaction)

        def no_login(failure: Failure) -> Reply:
            failure.trap(LoginFailed, UnhandledCredentials)
            return reply.AUTH_FIRST

        login.addCallbacks(logged_in, no_login)
        self._judge(login, self._begun, transaction)

    def _judge(self, verdict: Any, accepted: Callable[..., None], *arguments: Any) -> None:
        """Refuse, or go on with ``accepted``, now or when the verdict is there."""
        if isinstance(verdict, Deferred) and verdict.called and not verdict.paused:
            result = verdict.result
            if result is None or isinstance(result, Reply):
                verdict = result
        if verdict is None:
            accepted(*arguments)
        elif isinstance(verdict, Reply):
            self._refuse(verdict)
        else:
            self._wait_for(verdict, lambda result: self._judge(result, accepted, *arguments))

    def _begun(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.answer(reply.SENDER_OK)

    def do_RCPT(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.3."""
        transaction = self._transaction
        if transaction is None or self._body is not None:
            self._refuse(reply.BAD_SEQUENCE)
            return
        address, parameters = command.parse_path_command("TO:", rest)
        if address == NULL:
            raise command.CommandError(Reply(501, "5.1.3", "Bad address: a recipient can't be empty"))
        text = str(address)
        self._need_ascii(text)
        recipient = Recipient(0, text, address.domain.lower(), parameters=parameters)
        self._judge(self._stream.rcpt(transaction, recipient), self.answer, reply.RECIPIENT_OK)

    @staticmethod
    def _need_ascii(address: str) -> None:
        if not address.isascii():
            raise command.CommandError(Reply(553, "5.6.7", "Addresses outside ASCII need SMTPUTF8"))

    def do_DATA(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.4."""
        if rest.strip():
            self._refuse(reply.SYNTAX)
        elif self._transaction is None or self._body is not None:
            self._refuse(reply.BAD_SEQUENCE)
        elif not self._transaction.recipients:
            self._refuse(Reply(503, "5.5.1", "No valid recipients"))
        else:
            refusal = self._open()
            if refusal is not None:
                self._reset()
                self._refuse(refusal)
                return
            self._dots = DotReader()
            self.setTimeout(self._timeouts.data_init)
            self.answer(reply.GO_AHEAD)

    def do_BDAT(self, rest: str) -> None:  # noqa: N802
        """RFC 3030 §2: whatever the answer, the chunk follows the command and must be read."""
        size, last = command.parse_bdat(rest)
        refusal = None
        if self._body is None:
            if self._transaction is None:
                refusal = reply.BAD_SEQUENCE
            elif not self._transaction.recipients:
                refusal = Reply(503, "5.5.1", "No valid recipients")
            else:
                refusal = self._open()
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
        self._body = Body(
            self._transaction,
            writer,
            message_size=self._limits.message_size,
            mend_line_ends=self.session.trusted or self.session.role == "submission",
            check_header=self._check_header,
        )
        return None

    def do_RSET(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.5."""
        if rest.strip():
            self._refuse(reply.SYNTAX)
            return
        self._reset()
        self.answer(reply.OK)

    def do_NOOP(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.9."""
        self.answer(reply.OK)

    def do_VRFY(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §3.5.3: we don't tell who is here."""
        if rest.strip():
            self.answer(Reply(252, "2.5.0", "Cannot verify; send a message to try"))
        else:
            self._refuse(reply.SYNTAX)

    def do_HELP(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.8."""
        self.answer(Reply(214, "2.0.0", "Commands: " + " ".join(sorted(COMMANDS))))

    def do_EXPN(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §3.5.3."""
        self._refuse(reply.NOT_IMPLEMENTED)

    def do_QUIT(self, rest: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.10."""
        self._end(reply.BYE)

    def ext_STARTTLS(self, rest: str) -> None:  # noqa: N802
        """RFC 3207: nothing that came in clear may count inside TLS."""
        if rest.strip():
            self._refuse(reply.SYNTAX)
        elif self.startedTLS:
            self._refuse(Reply(503, "5.5.1", "TLS is active already"))
        elif not self.canStartTLS:
            self._refuse(reply.NOT_IMPLEMENTED)
        elif self._at < len(self._buffer):
            _log.warn("starttls_injection", session=self.session.id, peer=self.session.peer)
            self._end(Reply(503, "5.5.1", "Nothing may follow STARTTLS before the TLS handshake"))
        else:
            self.answer(Reply(220, "2.0.0", "Ready to start TLS"))
            self._flush()
            self.transport.startTLS(self.ctx)
            self._secured()
            self._forget_session()

    def _secured(self) -> None:
        self.startedTLS = True
        self.canStartTLS = False
        self._metrics.tls_sessions.value += 1
        self.session.tls = "TLS"

    def ext_AUTH(self, rest: str) -> None:  # noqa: N802
        """RFC 4954: there are no mechanisms yet."""
        if not rest.strip():
            self._refuse(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
        else:
            self._refuse(reply.NOT_IMPLEMENTED)

    def _forget_session(self) -> None:
        self._reset()
        self.session.helo = ""
        self._helo = (None, self.session.peer.encode())
        self._stream = self.delivery = None

    def _reset(self) -> None:
        """Forget the transaction."""
        if self._body is not None:
            self._body.abort()
            self._body = None
        self._transaction = None

    # Message data.

    def _take_data(self, dots: DotReader) -> None:
        data, self._at = self._buffer[self._at :] if self._at else self._buffer, len(self._buffer)
        body, rest = dots.feed(data)
        assert self._body is not None
        pause = self._body.take(body) if body else None
        if rest is None:
            if self.timeOut != self._timeouts.data_block:
                self.setTimeout(self._timeouts.data_block)
            if pause is not None:
                self._wait_for(pause, lambda _: None)
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
            self._wait_for(pause, lambda _: None)

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
            self._metrics.refused.value += 1
            self._refuse(result)
        if self._stopping:
            self._end(reply.SHUTDOWN)


COMMANDS = {
    "EHLO": "do_EHLO",
    "HELO": "do_HELO",
    "MAIL": "do_MAIL",
    "RCPT": "do_RCPT",
    "DATA": "do_DATA",
    "BDAT": "do_BDAT",
    "RSET": "do_RSET",
    "NOOP": "do_NOOP",
    "VRFY": "do_VRFY",
    "EXPN": "do_EXPN",
    "HELP": "do_HELP",
    "QUIT": "do_QUIT",
    "STARTTLS": "ext_STARTTLS",
    "AUTH": "ext_AUTH",
}
"""Verbs and their methods: nothing else is a command."""
