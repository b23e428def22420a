"""Delivery by SMTP: set up a connection, then message after message over it (RFC 5321 §3, RFC 2920)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.envelope import Deferral, Delivered, Failure, Message, Outcome, Recipient
from mtatwist.interfaces import IDelivery, ITransport
from mtatwist.smtp.data import DotWriter
from mtatwist.smtp.reply import Reply
from mtatwist.transports.client import ConnectionBroken, SmtpWire
from mtatwist.transports.dial import dial, split_next_hop
from mtatwist.transports.failures import ConnectFailed, Stale

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool

_log = Logger()

READ_SIZE = 256 * 1024
"""Octets of a large body read and written at once."""


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Seconds to wait for each (RFC 5321 §4.5.3.2)."""

    connect: float
    greeting: float
    ehlo: float
    mail: float
    rcpt: float
    data_init: float
    data_block: float
    data_done: float
    quit: float


@implementer(ITransport)
class SmtpTransport:
    """Connects to one kind of smart host: ``tls`` is none, may (take it when offered) or require or verify."""

    def __init__(
        self,
        *,
        spool: ISpool,
        reactor: Any,
        hostname: str,
        timeouts: ClientTimeouts,
        tls: str,
        tls_context: Callable[[str, bool], Any],
        **_: Any,
    ) -> None:
        """``tls_context(host, verify)`` gives the connection creator for a STARTTLS."""
        self.spool = spool
        self.timeouts = timeouts
        self._reactor = reactor
        self._hostname = hostname.encode()
        self._tls = tls
        self._tls_context = tls_context

    async def connect(self, next_hop: str) -> IDelivery:
        """See ITransport. Under ``tls = "may"`` a failed TLS handshake is followed by a try in clear."""
        try:
            return await self._connect(next_hop, self._tls)
        except _TlsFailed as failed:
            if self._tls != "may":
                raise ConnectFailed(Deferral(Reply(450, "4.7.5", f"TLS failed: {failed}"), next_hop)) from None
            _log.info("tls_failed", next_hop=next_hop, error=str(failed))
            return await self._connect(next_hop, "none")

    def stop(self) -> None:
        """Nothing runs here."""

    async def _connect(self, next_hop: str, tls: str) -> IDelivery:
        host, _ = split_next_hop(next_hop)
        try:
            wire = await dial(self._reactor, next_hop, SmtpWire(self._reactor), self.timeouts.connect)
        except Exception as error:
            why = str(error) or type(error).__name__
            raise ConnectFailed(Deferral(Reply(451, "4.4.1", f"Cannot connect: {why}"), next_hop)) from None
        try:
            (greeting,) = await wire.replies(1, self.timeouts.greeting)
            self._want(wire, greeting, 220, next_hop)
            offered = await self._hello(wire, next_hop)
            if tls != "none" and "STARTTLS" in offered:
                (reply,) = await wire.ask([b"STARTTLS"], self.timeouts.ehlo)
                if reply.code == 220:
                    offered = await self._secure(wire, next_hop, host, tls)
                elif tls != "may":
                    self._want(wire, reply, 220, next_hop)
            elif tls in ("require", "verify"):
                wire.quit(self.timeouts.quit)
                raise ConnectFailed(Deferral(Reply(450, "4.7.4", "TLS is required and not offered"), next_hop))
        except ConnectionBroken as broken:
            raise ConnectFailed(Deferral(Reply(451, "4.4.2", f"Connection failed: {broken}"), next_hop)) from None
        except ConnectFailed:
            raise
        except Exception:
            # Whatever it is (we may be told to give up), nobody else holds this connection.
            wire.break_off("given up")
            raise
        return SmtpDelivery(self, wire, offered, next_hop)

    async def _secure(self, wire: SmtpWire, next_hop: str, host: str, tls: str) -> dict[str, str]:
        wire.start_tls(self._tls_context(host, tls == "verify"))
        try:
            return await self._hello(wire, next_hop)
        except ConnectionBroken as broken:
            raise _TlsFailed(str(broken)) from None

    async def _hello(self, wire: SmtpWire, next_hop: str) -> dict[str, str]:
        """EHLO, or HELO where that is all the server knows; gives the extensions it offers."""
        (reply,) = await wire.ask([b"EHLO " + self._hostname], self.timeouts.ehlo)
        if reply.permanent:
            (reply,) = await wire.ask([b"HELO " + self._hostname], self.timeouts.ehlo)
            self._want(wire, reply, 250, next_hop)
            return {}
        self._want(wire, reply, 250, next_hop)
        lines = (line.partition(" ") for line in reply.text.split("\n")[1:])
        return {keyword.upper(): arguments for keyword, _, arguments in lines}

    def _want(self, wire: SmtpWire, reply: Reply, code: int, next_hop: str) -> None:
        """A server that does not want us is no verdict on a message, not even with 5xx: try again later."""
        if reply.code != code:
            wire.quit(self.timeouts.quit)
            raise ConnectFailed(Deferral(reply, next_hop))


class _TlsFailed(Exception):
    """The handshake did not succeed."""


@implementer(IDelivery)
class SmtpDelivery:
    """One connection to one server."""

    def __init__(self, transport: SmtpTransport, wire: SmtpWire, offered: dict[str, str], host: str) -> None:
        self._transport = transport
        self._wire = wire
        self._offered = offered
        self._host = host
        self._used = False
        self._fit = True

    @property
    def usable(self) -> bool:
        """See IDelivery."""
        return self._fit and not self._wire.broken

    def close(self) -> None:
        """See IDelivery."""
        self._wire.quit(self._transport.timeouts.quit)

    async def deliver(self, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        """See IDelivery. Raises Stale when a reused connection was gone before anything was answered."""
        limit = self._offered.get("SIZE", "")
        if limit.isdecimal() and 0 < int(limit) < message.size:
            return [Failure(Reply(552, "5.3.4", f"Message is larger than {limit} octets"), self._host)] * len(
                recipients
            )
        attempt = _Attempt(self._host, len(recipients))
        try:
            if await self._envelope(message, recipients, attempt):
                attempt.all_open(await self._data(message))
            self._used = True
        except ConnectionBroken as broken:
            if self._used and not attempt.answered and self._wire.left:
                raise Stale from None
            attempt.all_open(Reply(451, "4.4.2", str(broken)))
        return attempt.outcomes()

    async def _envelope(self, message: Message, recipients: Sequence[Recipient], attempt: _Attempt) -> bool:
        """MAIL, RCPT and DATA; True when the server waits for the message."""
        wire, timeouts = self._wire, self._transport.timeouts
        commands = [self._mail(message), *(b"RCPT TO:<" + r.address.encode() + b">" for r in recipients), b"DATA"]
        if "PIPELINING" in self._offered:
            replies = await wire.ask(commands, timeouts.mail)
            mail, *rcpts, data = replies
        else:
            (mail,) = await wire.ask(commands[:1], timeouts.mail)
            rcpts, data = [], None
        # A server that is closing says nothing about this message.
        attempt.answered = mail.code != 421
        if data is None and mail.positive:
            for index, command in enumerate(commands[1:-1]):
                (reply,) = await wire.ask([command], timeouts.rcpt)
                attempt.answer(index, reply)
        for index, reply in enumerate(rcpts):
            attempt.answer(index, reply)
        if not mail.positive:
            attempt.all(mail)
        if data is None and attempt.has_open():
            (data,) = await wire.ask([b"DATA"], timeouts.data_init)
        if data is not None and data.code == 354:
            if attempt.has_open():
                return True
            # RFC 2920 §3.1: the server goes on without recipients; end the message it waits for.
            wire.send(b".\r\n")
            await wire.replies(1, timeouts.data_done)
            return False
        if data is not None:
            # A 2xx here is no word of SMTP: nothing was sent, so nothing was taken.
            attempt.all_open(
                data if not data.positive else Reply(451, "4.5.0", f"Unexpected reply to DATA: {data.code}")
            )
        if data is not None and data.positive:
            self._fit = False
            return False
        await self._reset(attempt)
        return False

    async def _reset(self, attempt: _Attempt) -> None:
        """End a transaction that got no message; a server that can't do even that gets no other."""
        (reply,) = await self._wire.ask([b"RSET"], self._transport.timeouts.mail)
        self._fit = reply.code == 250

    async def _data(self, message: Message) -> Reply:
        """Send the message; the reply to its end."""
        wire, timeouts = self._wire, self._transport.timeouts
        dots = DotWriter()
        if message.body is not None:
            wire.send(dots.feed(message.body) + dots.end())
            await wire.writable(timeouts.data_block)
        else:
            offset = 0
            while part := await self._read(message, offset):
                offset += len(part)
                wire.send(dots.feed(part))
                await wire.writable(timeouts.data_block)
            if offset != message.size:
                wire.break_off("the message in the spool is not whole")
            wire.send(dots.end())
        (reply,) = await wire.replies(1, timeouts.data_done)
        if reply.code == 421:
            self._fit = False
        return (
            reply if reply.code < 300 or not reply.positive else Reply(451, "4.5.0", "Unexpected reply to the message")
        )

    async def _read(self, message: Message, offset: int) -> bytes:
        try:
            return await self._transport.spool.read(message, offset, READ_SIZE)
        except Exception:
            # Cutting the connection is the only way to end a message that must not be taken.
            _log.failure("spool_unreadable", id=message.id)
            self._wire.break_off("the message could not be read from the spool")
            raise ConnectionBroken(self._wire.broken) from None

    def _mail(self, message: Message) -> bytes:
        line = f"MAIL FROM:<{message.envelope.reverse_path}>"
        if "SIZE" in self._offered:
            line += f" SIZE={message.size}"
        if message.envelope.body_type and "8BITMIME" in self._offered:
            line += f" BODY={message.envelope.body_type}"
        return line.encode()


class _Attempt:
    """The outcome of each recipient, as replies come in. One that has none yet is open."""

    def __init__(self, host: str, count: int) -> None:
        self._host = host
        self._outcomes: list[Outcome | None] = [None] * count
        self.answered = False

    def answer(self, index: int, reply: Reply) -> None:
        """RCPT's reply: a positive one leaves the recipient open."""
        if not reply.positive:
            # RFC 5321 §4.5.3.1.10: 552 for "too many recipients" means 452.
            if reply.code == 552 and reply.enhanced in ("", "5.5.3"):
                reply = Reply(452, "4.5.3", reply.text)
            self._outcomes[index] = self._outcome(reply)

    def all(self, reply: Reply) -> None:
        """MAIL was refused: that is everyone's outcome."""
        self._outcomes = [self._outcome(reply)] * len(self._outcomes)

    def all_open(self, reply: Reply) -> None:
        """The outcome of all that are still open."""
        self._outcomes = [outcome or self._outcome(reply) for outcome in self._outcomes]

    def has_open(self) -> bool:
        """Is anyone left to send the message for?"""
        return None in self._outcomes

    def outcomes(self) -> list[Outcome]:
        """The outcome of each."""
        return [outcome or self._outcome(Reply(451, "4.3.0", "No outcome")) for outcome in self._outcomes]

    def _outcome(self, reply: Reply) -> Outcome:
        if reply.positive:
            return Delivered(reply, self._host)
        return Failure(reply, self._host) if reply.permanent else Deferral(reply, self._host)
