"""The avatar of a session: it judges a transaction by the validators and opens the spool for its message."""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.mail import smtp
from zope.interface import implementer

from mtatwist.envelope import Envelope, Message, Recipient, queue_id
from mtatwist.interfaces import IMessageStream, IMessageWriter
from mtatwist.log import EventLogger
from mtatwist.receive.adapter import SpooledMessage, address
from mtatwist.receive.fixups import Fixups
from mtatwist.receive.received import received_field
from mtatwist.receive.submission import Submission
from mtatwist.smtp.address import DomainSet
from mtatwist.smtp.reply import NO_ROOM, OUR_TROUBLE, TOO_MANY_RECIPIENTS, Reply
from mtatwist.transaction import Account, Session, Transaction

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ISpoolWriter, Verdict
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.validators.chain import Chain
    from mtatwist.validators.usage import Sending

_log = EventLogger()


@dataclass(frozen=True, slots=True)
class Door:
    """What all deliveries of one listener share. ``wake`` gets each message that has been made durable.

    ``wall`` gives the machine's time (for people), ``queue_time`` the queue's (for what is stored); both count seconds
    since the epoch. ``now`` is monotonic. ``recipients``: how many RCPT may name. ``resolve`` finds who gets mail of a
    recipient of ours, or why nobody does (None: it does itself), and never refuses a postmaster. ``expansion``: up to
    how many recipients a group may join. ``domains`` are ours; ``postmaster`` is where mail for any postmaster of ours
    goes (RFC 5321 §4.5.1). ``submission``: what holds for those who have logged in; None: nothing but the validators.
    """

    hostname: str
    spool: ISpool
    chain: Chain
    metrics: Instruments
    wake: Callable[[Message], None]
    wall: Callable[[], float]
    queue_time: Callable[[], float]
    now: Callable[[], float]
    message_size: int
    recipients: int
    domains: DomainSet
    postmaster: str
    resolve: Callable[[Recipient], Awaitable[list[Recipient] | Reply]] | None = None
    expansion: int = 1000
    submission: Submission | None = None


@implementer(IRealm)
class Realm:
    """Gives out deliveries: for anonymous sessions, and (with submission) for users."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """``mind`` is the session that logs in."""
        if smtp.IMessageDelivery not in interfaces:
            raise NotImplementedError("this realm gives out message deliveries only")
        session = mind if mind is not None else Session(id="", role="mx", peer="")
        if avatarId is not ANONYMOUS:
            # A checker of somebody else's only tells a name: it may send as that, if it is an address.
            known = isinstance(avatarId, Account)
            session.account = avatarId if known else Account(_text(avatarId), frozenset({_text(avatarId)}))
        return smtp.IMessageDelivery, Delivery(self._door, session), lambda: None


@implementer(smtp.IMessageDelivery, IMessageStream)
class Delivery:
    """Judges and stores the messages of one session."""

    def __init__(self, door: Door, session: Session) -> None:
        self._door = door
        self._session = session
        self._transaction: Transaction | None = None

    # IMessageStream: how our own protocol hands a message over.

    def mail(self, transaction: Transaction) -> Verdict:
        """See IMessageStream."""
        return self._door.chain.mail(transaction)

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Verdict:
        """See IMessageStream."""
        door = self._door
        if len(transaction.named) >= door.recipients:
            return TOO_MANY_RECIPIENTS
        if recipient.address.partition("@")[0].lower() == "postmaster" and self._is_ours(recipient.domain):
            named = recipient.address
            if door.resolve is None or not recipient.domain:
                recipient.address = door.postmaster
                recipient.domain = recipient.address.rpartition("@")[2].lower()
            return self._admit(transaction, recipient, named if "@" in named else door.postmaster)
        verdict = door.chain.rcpt(transaction, recipient)
        if verdict is None:
            return self._admit(transaction, recipient, recipient.address)
        if not isinstance(verdict, Reply):
            return Deferred.fromCoroutine(self._rcpt_later(verdict, transaction, recipient))
        return verdict

    def open(self, transaction: Transaction) -> IMessageWriter | Reply:
        """See IMessageStream."""
        door = self._door
        if not door.spool.has_room(transaction.declared_size or door.message_size):
            return NO_ROOM
        session = transaction.session
        at = door.wall()
        envelope = Envelope(
            str(transaction.reverse_path),
            transaction.recipients,
            received_at=door.queue_time(),
            session=session.id,
            peer=session.peer,
            helo=session.helo,
            protocol=transaction.protocol,
            tls=session.tls,
            user=session.user,
        )
        if transaction.parameters:
            parameters = transaction.parameters
            envelope.body_type = parameters.get("BODY", "").upper()
            envelope.smtputf8 = transaction.smtputf8
            envelope.ret = parameters.get("RET", "").upper()
            envelope.envid = parameters.get("ENVID", "")
        writer = door.spool.create(envelope)
        sole = transaction.named[0] if len(transaction.named) == 1 else ""
        id, protocol = queue_id(writer.number), envelope.protocol
        account, submission = session.account, door.submission
        login = session.user if submission is not None and submission.received_user else ""
        writer.write(
            received_field(session, protocol=protocol, by=door.hostname, id=id, at=at, sole_recipient=sole, user=login)
        )
        if account is None or submission is None:
            return Intake(door, transaction, writer)
        usage = submission.usage
        sending = None if usage is None else usage.begin(session, len(transaction.named))
        if isinstance(sending, Reply):
            writer.abort()
            return sending
        fixups = Fixups(transaction, account, hostname=door.hostname, at=at, delimiter=submission.delimiter)
        return Intake(door, transaction, writer, fixups, sending)

    async def _rcpt_later(self, pending: Any, transaction: Transaction, recipient: Recipient) -> Reply | None:
        verdict: Verdict = await pending
        if verdict is None:
            verdict = self._admit(transaction, recipient, recipient.address)
        return verdict if verdict is None or isinstance(verdict, Reply) else await verdict

    def _is_ours(self, domain: str) -> bool:
        return not domain or domain in self._door.domains

    def _admit(self, transaction: Transaction, recipient: Recipient, named: str) -> Verdict:
        """Let those join who get the mail of ``recipient``, which RCPT calls ``named``."""
        if self._door.resolve is None or recipient.domain not in self._door.domains:
            return self._join(transaction, [recipient], named)
        resolved = self._door.resolve(recipient)

        async def join() -> Reply | None:
            try:
                found = await resolved
            except Exception:
                self._door.metrics.recipient_crashes.value += 1
                _log.failure("recipient_crashed", session=transaction.session.id, address=recipient.address)
                return OUR_TROUBLE
            return found if isinstance(found, Reply) else self._join(transaction, found, named)

        return Deferred.fromCoroutine(join())

    def _join(self, transaction: Transaction, found: Sequence[Recipient], named: str) -> Reply | None:
        # Named twice (or as postmaster and by name, or in two groups): one copy is what anyone wants.
        there = {self._mailbox(recipient) for recipient in transaction.recipients}
        new = [recipient for recipient in found if self._mailbox(recipient) not in there] if there else found
        if len(found) > 1 and len(there) + len(new) > self._door.expansion:
            return TOO_MANY_RECIPIENTS
        for recipient in new:
            recipient.index = len(transaction.recipients)
            if recipient.parameters:
                recipient.notify = recipient.parameters.get("NOTIFY", "").upper()
                recipient.orcpt = recipient.parameters.get("ORCPT", "")
            transaction.recipients.append(recipient)
        if named not in transaction.named:
            transaction.named.append(named)
        return None

    def _mailbox(self, recipient: Recipient) -> tuple[str, str]:
        """Equal for addresses of one mailbox, as far as anybody can tell: at domains of ours, case makes no difference,
        and elsewhere it is for others to say (RFC 5321 §2.4)."""
        local = recipient.address.rpartition("@")[0]
        if recipient.domain in self._door.domains:
            local = unicodedata.normalize("NFC", local).lower()
        return local, recipient.domain

    # IMessageDelivery: how any other protocol of twisted.mail does.

    async def _refuse(self, verdict: Verdict) -> None:
        reply = verdict if verdict is None or isinstance(verdict, Reply) else await verdict
        if reply is not None:
            raise smtp.SMTPServerError(reply.code, f"{reply.enhanced} {reply.text}")

    def validateFrom(self, helo: tuple[bytes, bytes], origin: smtp.Address) -> Deferred[smtp.Address]:
        """See IMessageDelivery."""
        self._session.helo = (helo[0] or b"").decode("utf-8", "replace")
        self._transaction = Transaction(self._session, address(origin))
        refused = Deferred.fromCoroutine(self._refuse(self.mail(self._transaction)))
        return refused.addCallback(lambda _: origin)

    def validateTo(self, user: smtp.User) -> Deferred[Callable[[], Any]]:
        """See IMessageDelivery. Each recipient's message is stored for itself, as that interface has it."""
        assert self._transaction is not None
        transaction = Transaction(self._session, self._transaction.reverse_path)
        to = address(user.dest)
        recipient = Recipient(0, str(to), to.domain.lower())
        refused = Deferred.fromCoroutine(self._refuse(self.rcpt(transaction, recipient)))
        return refused.addCallback(lambda _: lambda: SpooledMessage(self.open(transaction)))

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        """Nothing: open() writes the field, since only it knows the queue id."""
        return b""


@implementer(IMessageWriter)
class Intake:
    """A message on its way into the spool; finish() answers 250 only once it is durable."""

    def __init__(
        self,
        door: Door,
        transaction: Transaction,
        writer: ISpoolWriter,
        fixups: Fixups | None = None,
        sending: Sending | None = None,
    ) -> None:
        """``fixups`` and ``sending``: of messages whose sender has logged in."""
        self._door = door
        self._transaction = transaction
        self._writer = writer
        self._fixups = fixups
        self._sending = sending

    def write(self, data: bytes) -> Deferred[None] | None:
        """See IMessageWriter."""
        if self._fixups is not None:
            data = self._fixups.feed(data)
        return self._writer.write(data) if data else None

    def abort(self) -> None:
        """See IMessageWriter."""
        self._writer.abort()
        if self._sending is not None:
            self._sending.dropped()

    def finish(self) -> Deferred[Reply]:
        """See IMessageWriter."""
        if self._fixups is not None:
            rest = self._fixups.end()
            if rest:
                self._writer.write(rest)
        started = self._door.now()
        return self._writer.commit().addCallbacks(self._stored, self._not_stored, callbackArgs=(started,))

    def _stored(self, message: Message, started: float) -> Reply:
        door, metrics = self._door, self._door.metrics
        metrics.accepted.value += 1
        metrics.accepted_size.observe(message.size)
        metrics.accept_seconds.observe(door.now() - started)
        if self._fixups is not None:
            metrics.fields_added.value += self._fixups.added
        if self._sending is not None:
            self._sending.accepted()
        self._transaction.session.accepted += 1
        envelope = message.envelope
        forward_paths = [recipient.address for recipient in envelope.recipients]
        # Where aliases have made others of them.
        named = self._transaction.named
        id = message.id
        _log.info(
            "accepted",
            id=id,
            session=envelope.session,
            peer=envelope.peer,
            helo=envelope.helo,
            protocol=envelope.protocol,
            tls=envelope.tls,
            user=envelope.user,
            reverse_path=envelope.reverse_path,
            forward_paths=forward_paths,
            **({"named": named} if named != forward_paths else {}),
            size=message.size,
        )
        door.wake(message)
        return Reply(250, "2.0.0", f"Ok: queued as {id}")

    def _not_stored(self, failure: Any) -> Reply:
        """Whatever it is, it is our trouble."""
        _log.error("not_stored", session=self._transaction.session.id, error=failure.getErrorMessage())
        self.abort()
        return OUR_TROUBLE


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
