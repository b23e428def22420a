"""The real seams: each has a second implementation, or a promise of one to people who extend this server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from mtatwist.envelope import Envelope, Message, Outcome, Recipient, Settled
    from mtatwist.smtp.reply import Reply
    from mtatwist.transaction import Transaction

    #: A refusal now, none now, or either later.
    Verdict = Reply | None | Awaitable[Reply | None]


class IValidator(Interface):
    """One policy at the door. First refusal wins; an exception in a validator is answered 451.

    A validator implements the stages it cares about and leaves the others out; each returns None to pass, a
    Reply to refuse, or an awaitable of either. Answering at once is much cheaper than an awaitable. One whose attribute
    ``idle`` is true (it need not have any) would pass everything, as it was made: it is not asked.
    ``transaction`` is a :class:`mtatwist.transaction.Transaction`; its ``session`` tells about the peer.
    """

    name: str = Attribute("What [validators] order calls it.")

    def mail(transaction: Transaction) -> Verdict:
        """MAIL was read: reverse path and parameters stand in the transaction."""

    def rcpt(transaction: Transaction, recipient: Recipient) -> Verdict:
        """RCPT was read; ``recipient`` is not yet part of the transaction."""

    def header(transaction: Transaction, header: bytes) -> Verdict:
        """The header section has come in (its first 64 KiB), line ends included."""


class IMessageStream(Interface):
    """What an avatar offers, beside twisted.mail's IMessageDelivery, to take a message as one stream."""

    def mail(transaction: Transaction) -> Verdict:
        """May this transaction begin?"""

    def rcpt(transaction: Transaction, recipient: Recipient) -> Verdict:
        """May ``recipient`` join? On None it has been added to the transaction."""

    def open(transaction: Transaction) -> IMessageWriter | Reply:
        """Begin the message: a writer for its bytes, or the reply that refuses it."""


class IMessageWriter(Interface):
    """Takes one message, by the chunk, in canonical form (CRLF lines, dots unstuffed)."""

    def write(data: bytes) -> Deferred[None] | None:
        """Take more. A Deferred means: no more until it fires. Raises nothing: trouble shows in finish()."""

    def finish() -> Deferred[Reply]:
        """All is there. Fires with the reply to the end of data: 250 only when it is on stable storage."""

    def abort() -> None:
        """Forget it; nothing stays behind."""


class ISpool(Interface):
    """Stable storage for messages and the state of each recipient."""

    def create(envelope: Envelope) -> ISpoolWriter:
        """Begin to store a message."""

    def has_room(size: int) -> bool:
        """Is there room for ``size`` bytes, with enough left to drain the queue?"""

    def due_domains(now: float, start: str, limit: int) -> Deferred[tuple[list[str], str | None]]:
        """In order from ``start`` ("": the first), those domains of which something unclaimed is due at ``now``, and
        where to go on; None: that were all. Bounded by ``limit``, however many domains have something waiting."""

    def claim_due(now: float, shares: Sequence[tuple[str, int]]) -> Deferred[list[Message]]:
        """Claim what has waited longest, of each of these domains about so many recipients: messages with just these
        recipients. Those of one message at one domain are claimed together."""

    def claim_late(received_by: float, after: int, unwarned: bool, limit: int) -> Deferred[list[Message]]:
        """Claim recipients of the oldest messages, due or not: of those with a number above ``after`` and received by
        then about ``limit``; with ``unwarned`` only those the sender was not told of. In order of number."""

    def next_due(after: float) -> Deferred[float | None]:
        """When the first unclaimed recipient is due, of those due later than ``after``; in the queue's time."""

    def settle(results: Sequence[Settled], reports: Sequence[ISpoolWriter]) -> Deferred[list[Message]]:
        """Record results (of claims still ours), drop messages nobody needs, and store finished ``reports``
        in the same transaction. Fires with the reports' messages, claimed.

        After a failure nobody knows whether it took place: it may be repeated with the same reports, and then stores
        each of them once. Only reports that were prepared can be.
        """

    def release(claims: Sequence[tuple[int, int, float]]) -> Deferred[None]:
        """Give claims (number, index, next attempt) back, uncounted."""

    def read(message: Message, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes of the message from ``offset``; empty at the end."""


class ISpoolWriter(Interface):
    """One message on its way into the spool."""

    number: int = Attribute("The message's number; queue_id() names it.")

    def write(data: bytes) -> Deferred[None] | None:
        """Take more. A Deferred means: no more until it fires."""

    def commit() -> Deferred[Message]:
        """Make it durable. Fires when it is on stable storage, claimed by us."""

    def prepare() -> Awaitable[object]:
        """Make durable what can be ahead of the transaction of ISpool.settle(), after the last write. Raises what
        went wrong, and then the writer is of no use but to be aborted."""

    def abort() -> None:
        """Forget it; nothing stays behind."""


class ITransport(Interface):
    """A way to a kind of next hop."""

    def connect(next_hop: str) -> Awaitable[IDelivery]:
        """Open a connection. Raises :class:`mtatwist.transports.failures.ConnectFailed` with the outcome to record."""

    def stop() -> None:
        """The server stops; all connections are closed."""


class IDelivery(Interface):
    """One connection to a next hop; it takes messages one after the other."""

    usable: bool = Attribute("True while another message may follow.")

    def deliver(message: Message, recipients: Sequence[Recipient]) -> Awaitable[list[Outcome]]:
        """Try ``message`` for ``recipients``: an outcome each, in their order. Never raises."""

    def close() -> None:
        """End the connection, politely if it can."""


class IEntry(Interface):
    """What a search of the directory found."""

    dn: str = Attribute("Its distinguished name.")
    attributes: Mapping[str, Sequence[str]] = Attribute(
        "The values of the attributes that were asked for, by their names in lower case; those it lacks are left out."
    )


class IDirectory(Interface):
    """The LDAP directory, whichever of its servers answers."""

    def search(filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Sequence[IEntry]]:
        """Up to ``limit`` entries below the base; more there are not looked at. Values in ``filter`` are escaped by
        the caller. Fires with DirectoryTrouble when no server could tell in time."""

    def bind(dn: str, password: str) -> Deferred[bool]:
        """Is this the entry\'s password, and may it log in? Fires with DirectoryTrouble when no server could tell."""


class DirectoryTrouble(Exception):
    """The directory is away, too slow or broken; the message says which server and why, and no secret."""


class AnswerTooLarge(DirectoryTrouble):
    """The directory is well, but what it has found is more than is read: to ask again is no use."""
