"""Between our streams and twisted.mail's older interfaces: a plain IMessageDelivery works with our protocol, and
our avatar with a plain protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.envelope import Recipient
from mtatwist.interfaces import IMessageStream, IMessageWriter
from mtatwist.smtp.address import NULL, Address
from mtatwist.smtp.reply import OK, OUR_TROUBLE, Reply, split_enhanced
from mtatwist.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

_log = Logger()


def address(origin: smtp.Address) -> Address:
    """twisted.mail's address as ours."""
    if not origin.local and not origin.domain:
        return NULL
    return Address(origin.local.decode("utf-8", "replace"), origin.domain.decode("utf-8", "replace"))


@implementer(smtp.IMessage)
class SpooledMessage:
    """A writer of ours as twisted.mail's IMessage: by the line."""

    def __init__(self, writer: IMessageWriter | Reply) -> None:
        if isinstance(writer, Reply):
            # At DATA, twisted.mail writes it as it is; elsewhere it wants a str.
            raise smtp.SMTPServerError(writer.code, f"{writer.enhanced} {writer.text}".encode())
        self._writer = writer

    def lineReceived(self, line: bytes) -> None:
        """See IMessage."""
        self._writer.write(line + b"\r\n")

    async def _finish(self) -> None:
        reply = await self._writer.finish()
        if not reply.positive:
            raise smtp.SMTPServerError(reply.code, f"{reply.enhanced} {reply.text}")

    def eomReceived(self) -> Deferred[None]:
        """See IMessage."""
        return Deferred.fromCoroutine(self._finish())

    def connectionLost(self) -> None:
        """See IMessage."""
        self._writer.abort()


@implementer(IMessageStream)
class StreamedDelivery:
    """A plain IMessageDelivery as the stream our protocol wants: one IMessage a recipient, fed by the line."""

    def __init__(self, delivery: smtp.IMessageDelivery) -> None:
        self._delivery = delivery
        self._origin: Any = None
        self._users: list[tuple[smtp.User, Callable[[], smtp.IMessage]]] = []

    def mail(self, transaction: Transaction) -> Deferred[Reply | None]:
        """Ask validateFrom."""
        self._users = []
        origin = smtp.Address(str(transaction.reverse_path).encode())
        asked = maybeDeferred(self._delivery.validateFrom, self._helo(transaction), origin)
        return asked.addCallbacks(self._set_origin, _refusal)

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Deferred[Reply | None]:
        """Ask validateTo."""
        user = smtp.User(recipient.address.encode(), self._helo(transaction), None, self._origin)
        asked = maybeDeferred(self._delivery.validateTo, user)

        def join(make: Callable[[], smtp.IMessage]) -> None:
            self._users.append((user, make))
            recipient.index = len(transaction.recipients)
            transaction.recipients.append(recipient)

        return asked.addCallbacks(join, _refusal)

    def open(self, transaction: Transaction) -> IMessageWriter | Reply:
        """Make the messages."""
        messages: list[smtp.IMessage] = []
        try:
            for user, make in self._users:
                message = make()
                messages.append(message)
                field = self._delivery.receivedHeader(self._helo(transaction), self._origin, [user])
                if field:
                    message.lineReceived(field)
        except Exception:
            for message in messages:
                message.connectionLost()
            refusal = _refusal(Failure())
            return refusal
        return LineWriter(messages)

    def _set_origin(self, origin: Any) -> None:
        self._origin = origin

    @staticmethod
    def _helo(transaction: Transaction) -> tuple[bytes, bytes]:
        return transaction.session.helo.encode(), transaction.session.peer.encode()


@implementer(IMessageWriter)
class LineWriter:
    """Cuts chunks to lines for several IMessages. The last line may wait in memory: as long as the message may be."""

    def __init__(self, messages: list[smtp.IMessage]) -> None:
        self._messages = messages
        self._rest = b""
        self._refused: Reply | None = None

    def write(self, data: bytes) -> None:
        """See IMessageWriter. A message may refuse its content by an exception: that is told at the end."""
        if self._refused is not None:
            return
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        try:
            for line in lines:
                for message in self._messages:
                    message.lineReceived(line)
        except Exception:
            self._refused = _refusal(Failure())
            self.abort()

    def finish(self) -> Deferred[Reply]:
        """See IMessageWriter."""
        if self._rest:
            self.write(b"\r\n")
        if self._refused is not None:
            return succeed(self._refused)
        if not self._messages:
            return succeed(OK)
        done = gatherResults([maybeDeferred(message.eomReceived) for message in self._messages], consumeErrors=True)
        return done.addCallbacks(lambda _: OK, _not_stored)

    def abort(self) -> None:
        """See IMessageWriter."""
        messages, self._messages, self._rest = self._messages, [], b""
        for message in messages:
            message.connectionLost()


def _refusal(failure: Failure) -> Reply:
    """What a third-party delivery raised, as a reply: its own words only where it chose them."""
    error = failure.value
    if isinstance(error, smtp.SMTPServerError):
        text = error.resp
        return split_enhanced(error.code, text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
    _log.failure("delivery_crashed", failure)
    return OUR_TROUBLE


def _not_stored(failure: Failure) -> Reply:
    _log.failure("not_stored", failure)
    return OUR_TROUBLE
