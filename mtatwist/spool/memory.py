"""A spool that forgets everything: for tests, and as the second implementation that keeps the seam honest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mtatwist.envelope import OPEN_STATES, Envelope, Message, Recipient, Settled
from mtatwist.interfaces import ISpool, ISpoolWriter


@implementer(ISpoolWriter)
class MemoryWriter:
    """Collects a message in memory."""

    def __init__(self, spool: MemorySpool, number: int, envelope: Envelope) -> None:
        self.number = number
        self._spool = spool
        self._envelope = envelope
        self._parts: list[bytes] = []
        self._aborted = False

    def write(self, data: bytes) -> None:
        """See ISpoolWriter."""
        self._parts.append(data)

    def commit(self) -> Deferred[Message]:
        """See ISpoolWriter."""
        if self._aborted:
            return fail(RuntimeError("aborted"))
        return succeed(self._spool.keep(self.number, self._envelope, b"".join(self._parts)))

    def abort(self) -> None:
        """See ISpoolWriter."""
        self._aborted = True
        self._parts.clear()


@implementer(ISpool)
class MemorySpool:
    """``messages`` holds everything, by number, with all recipients; ``claims`` what is being worked on."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self.claims: set[tuple[int, int]] = set()
        self._numbers = count(1)

    def create(self, envelope: Envelope) -> MemoryWriter:
        """See ISpool."""
        return MemoryWriter(self, next(self._numbers), envelope)

    def keep(self, number: int, envelope: Envelope, body: bytes) -> Message:
        """Store a message, claimed."""
        for recipient in envelope.recipients:
            recipient.next_attempt = envelope.received_at
            self.claims.add((number, recipient.index))
        self.messages[number] = Message(number, envelope, len(body), body)
        return self._copy(number, envelope.recipients)

    def has_room(self, size: int) -> bool:
        """See ISpool."""
        return True

    def claim_due(self, now: float, limit: int) -> Deferred[list[Message]]:
        """See ISpool."""
        due = sorted((r for r in self._unclaimed() if r[1].next_attempt <= now), key=lambda r: r[1].next_attempt)
        found: dict[int, list[Recipient]] = {}
        for number, recipient in due[:limit]:
            self.claims.add((number, recipient.index))
            found.setdefault(number, []).append(recipient)
        return succeed([self._copy(number, recipients) for number, recipients in found.items()])

    def next_due(self) -> Deferred[float | None]:
        """See ISpool."""
        return succeed(min((recipient.next_attempt for _, recipient in self._unclaimed()), default=None))

    def settle(self, results: Sequence[Settled], reports: Sequence[Any]) -> Deferred[list[Message]]:
        """See ISpool."""
        for result in results:
            if (result.number, result.index) not in self.claims:
                continue
            self.claims.discard((result.number, result.index))
            recipients = self.messages[result.number].envelope.recipients
            recipient = next(r for r in recipients if r.index == result.index)
            recipient.state, recipient.next_attempt = result.state, result.next_attempt
            recipient.last_reply, recipient.last_host, recipient.last_at = result.reply, result.host, result.at
            recipient.attempts += 1
            if not any(r.state in OPEN_STATES for r in recipients):
                del self.messages[result.number]
        stored: list[Message] = []
        for report in reports:
            report.commit().addCallback(stored.append)
        return succeed(stored)

    def release(self, claims: Sequence[tuple[int, int, float]]) -> Deferred[None]:
        """See ISpool."""
        for number, index, next_attempt in claims:
            if (number, index) not in self.claims:
                continue
            self.claims.discard((number, index))
            for recipient in self.messages[number].envelope.recipients:
                if recipient.index == index:
                    recipient.next_attempt = next_attempt
        return succeed(None)

    def read(self, message: Message, offset: int, size: int) -> Deferred[bytes]:
        """See ISpool."""
        kept = self.messages.get(message.number)
        if kept is None or kept.body is None:
            return fail(LookupError(f"message {message.number} is not in the spool"))
        return succeed(kept.body[offset : offset + size])

    def _unclaimed(self) -> list[tuple[int, Recipient]]:
        return [
            (number, recipient)
            for number, message in self.messages.items()
            for recipient in message.envelope.recipients
            if recipient.state < 2 and (number, recipient.index) not in self.claims
        ]

    def _copy(self, number: int, recipients: list[Recipient]) -> Message:
        message = self.messages[number]
        envelope = dataclasses.replace(message.envelope, recipients=[dataclasses.replace(r) for r in recipients])
        return dataclasses.replace(message, envelope=envelope)
