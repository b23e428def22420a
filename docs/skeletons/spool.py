"""A spool to fill in. The comments say what the rest of the server relies on."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mtatwist.envelope import Envelope, Message, Settled
from mtatwist.interfaces import ISpool, ISpoolWriter


@implementer(ISpoolWriter)
class NewWriter:
    """One message on its way in."""

    def __init__(self, number: int, envelope: Envelope) -> None:
        # Numbers are never used again, not even after a crash: they are in Received headers and in logs.
        self.number = number
        self._envelope = envelope

    def write(self, data: bytes) -> Deferred[None] | None:
        """Large messages must not gather in memory: return a Deferred while you catch up."""
        raise NotImplementedError

    def commit(self) -> Deferred[Message]:
        """Fire when message and envelope are on stable storage, no sooner: the 250 follows. Until then, errback."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """What can be done of a report before the transaction of settle(), which after this may be repeated."""
        raise NotImplementedError

    def abort(self) -> None:
        """The peer went away, or the message was refused. May follow any write; must leave nothing behind."""
        raise NotImplementedError


@implementer(ISpool)
class NewSpool:
    """Claims are what keeps a message from being delivered twice: a recipient is claimed by one worker or by none."""

    def create(self, envelope: Envelope) -> NewWriter:
        """Called for each message; cheap until there is something to write. Recipients may still join."""
        raise NotImplementedError

    def has_room(self, size: int) -> bool:
        """Called for each MAIL, so answer from memory. Say no while there is still room to drain the queue."""
        raise NotImplementedError

    def due_domains(self, now: float, start: str, limit: int) -> Deferred[tuple[list[str], str | None]]:
        """How the queue goes round: a domain with many messages is asked about as often as one with a single one."""
        raise NotImplementedError

    def claim_due(self, now: float, shares: Sequence[tuple[str, int]]) -> Deferred[list[Message]]:
        """Claim, then return. What a crashed process had claimed must come back, without a wait if you can."""
        raise NotImplementedError

    def claim_late(self, received_by: float, after: int, unwarned: bool, limit: int) -> Deferred[list[Message]]:
        """The oldest messages come first, due or not: their senders are to be told."""
        raise NotImplementedError

    def next_due(self, after: float) -> Deferred[float | None]:
        """Its cost must not grow with the queue."""
        raise NotImplementedError

    def settle(self, results: Sequence[Settled], reports: Sequence[ISpoolWriter]) -> Deferred[list[Message]]:
        """One transaction: a DSN is stored exactly when the failure that it tells of is recorded.

        Pass over results whose claim is no longer ours.
        """
        raise NotImplementedError

    def release(self, claims: Sequence[tuple[int, int, float]]) -> Deferred[None]:
        """The attempt did not take place: it is not counted."""
        raise NotImplementedError

    def read(self, message: Message, offset: int, size: int) -> Deferred[bytes]:
        """Bodies are streams, and never paths: a spool may have no files here."""
        raise NotImplementedError
