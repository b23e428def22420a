"""The receiver: twisted.mail's ESMTP with everything overridden that the open internet would misuse.

What is kept of the parent: its place (portal, challengers, avatars, extensions(), TimeoutMixin's methods), not its
way of reading. Never set ``mode`` to smtp.DATA: the parent's data methods own name-mangled state that we don't have.

The flow of bytes is in connection.py, message data in content.py; here are the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.credentials import Anonymous
from twisted.cred.error import LoginFailed, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure

from mtatwist.domain import wire_domain
from mtatwist.envelope import Recipient
from mtatwist.interfaces import IMessageStream
from mtatwist.receive.adapter import StreamedDelivery
from mtatwist.receive.login import MAX_RESPONSE_LINE, RESPONSE_TOO_LONG, TLS_FIRST, LoginConnection
from mtatwist.smtp import command, reply
from mtatwist.smtp.address import NULL, Address
from mtatwist.smtp.framing import LineFramer
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Transaction

_log = Logger()

_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"})


class ReceiveProtocol(LoginConnection):
    """One SMTP session."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._framer = LineFramer(command.MAX_COMMAND_LINE)
        self._first = True

    def _take_line(self) -> bool:
        line, self._at = self._framer.cut(self._buffer, self._at)
        if line is None:
            return False
        # Only a whole line is a sign of life.
        self.resetTimeout()
        if isinstance(line, Reply):
            self._line = b""
            if self.mode == smtp.AUTH:
                self._give_up(RESPONSE_TOO_LONG if line == reply.LINE_TOO_LONG else line)
            else:
                self._refuse(line)
        elif self.mode == smtp.AUTH:
            self.state_AUTH(line)
        else:
            self._line = line
            self.state_COMMAND(line)
        return True

    def _expect_response(self, expected: bool) -> None:
        super()._expect_response(expected)
        self._framer.limit = MAX_RESPONSE_LINE if expected else command.MAX_COMMAND_LINE

    def lookupMethod(self, verb: str) -> Callable[[str], None] | None:
        """(SMTP) The method for a verb: those of the table, and nothing else that happens to have such a name."""
        name = COMMANDS.get(verb)
        return None if name is None else getattr(self, name)

    def state_COMMAND(self, line: bytes) -> None:
        """(SMTP) One command line, without its CRLF."""
        late = self._clock.seconds() - self._tired_at
        # A transaction may outlast the session's time, but not by sending commands for ever.
        if late > 0 and (self._transaction is None or late > self._timeouts.session):
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
            b"BINARYMIME": None,
            b"SMTPUTF8": None,
            b"DSN": None,
        }
        if self.canStartTLS:
            offered[b"STARTTLS"] = None
        if self._offers_login:
            offered[b"AUTH"] = list(self.challengers)
        return offered

    def do_EHLO(self, rest: str) -> None:
        """RFC 5321 §4.1.1.1."""
        if self._hello(rest, extended=True):
            peer = self.session.peer or "there"
            self.answer(Reply(250, "", f"{self._name} greets {peer}\n{self.listExtensions().decode('ascii')}"))

    def do_HELO(self, rest: str) -> None:
        """RFC 5321 §4.1.1.1."""
        if self._hello(rest, extended=False):
            self.answer(Reply(250, "", self._name))

    def _hello(self, rest: str, extended: bool) -> bool:
        name = rest.strip()
        if not name or " " in name:
            self._refuse(Reply(501, "5.5.4", f"Syntax: {'EHLO' if extended else 'HELO'} hostname"))
            return False
        self._reset()
        self.session.helo = name[:255]
        self.session.extended = extended
        self._helo = (name.encode(), self.session.peer.encode())
        return True

    def do_MAIL(self, rest: str) -> None:
        """RFC 5321 §4.1.1.2."""
        if self._stopping:
            self._end(reply.SHUTDOWN)
        elif self.draining:
            self._end(reply.DRAINING)
        elif not self.session.helo or self._transaction is not None:
            self._refuse(reply.BAD_SEQUENCE)
        elif self._tls_is_due:
            self._refuse(TLS_FIRST)
        else:
            address, parameters = command.parse_path_command("FROM:", rest)
            if not address.domain and address != NULL:
                address = address._replace(domain=self._name)
            transaction = Transaction(self.session, address, parameters)
            self._check_characters(address, transaction)
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

    def do_RCPT(self, rest: str) -> None:
        """RFC 5321 §4.1.1.3."""
        transaction = self._transaction
        if transaction is None or self._body is not None:
            self._refuse(reply.BAD_SEQUENCE)
            return
        address, parameters = command.parse_path_command("TO:", rest)
        if address == NULL:
            raise command.CommandError(Reply(501, "5.1.3", "Bad address: a recipient can't be empty"))
        self._check_characters(address, transaction)
        recipient = Recipient(0, str(address), _routed_domain(address.domain), parameters=parameters)
        self._judge(self._stream.rcpt(transaction, recipient), self.answer, reply.RECIPIENT_OK)

    @staticmethod
    def _check_characters(address: Address, transaction: Transaction) -> None:
        if not (address.local.isascii() and address.domain.isascii()) and not transaction.smtputf8:
            raise command.CommandError(Reply(553, "5.6.7", "Addresses outside ASCII need SMTPUTF8"))

    def do_RSET(self, rest: str) -> None:
        """RFC 5321 §4.1.1.5."""
        if rest.strip():
            self._refuse(reply.SYNTAX)
            return
        self._reset()
        self.answer(reply.OK)

    def do_NOOP(self, rest: str) -> None:
        """RFC 5321 §4.1.1.9."""
        self.answer(reply.OK)

    def do_VRFY(self, rest: str) -> None:
        """RFC 5321 §3.5.3: we don't tell who is here."""
        if rest.strip():
            self.answer(Reply(252, "2.5.0", "Cannot verify; send a message to try"))
        else:
            self._refuse(reply.SYNTAX)

    def do_HELP(self, rest: str) -> None:
        """RFC 5321 §4.1.1.8."""
        self.answer(Reply(214, "2.0.0", "Commands: " + " ".join(sorted(COMMANDS))))

    def do_EXPN(self, rest: str) -> None:
        """RFC 5321 §3.5.3."""
        self._refuse(reply.NOT_IMPLEMENTED)

    def do_QUIT(self, rest: str) -> None:
        """RFC 5321 §4.1.1.10."""
        self._end(reply.BYE)

    def ext_STARTTLS(self, rest: str) -> None:
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
            self._output.through_transport()
            self.transport.startTLS(self.ctx)
            self._secured()
            self._forget_session()

    def _secured(self) -> None:
        self.startedTLS = True
        self.canStartTLS = False
        self._begin_handshake()

    def _forget_session(self) -> None:
        self._reset()
        self.session.helo = ""
        self.session.extended = False
        self._helo = (None, self.session.peer.encode())
        self._log_out()


def _routed_domain(domain: str) -> str:
    """As routes know it. Raises CommandError."""
    try:
        return wire_domain(domain)
    except ValueError:
        raise command.CommandError(Reply(501, "5.1.3", "Bad address: not a valid domain")) from None


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
