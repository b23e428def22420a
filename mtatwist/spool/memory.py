"""A spool that forgets everything: for tests, and as the second implementation that keeps the seam honest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mtatwist.envelope import OPEN_STATES, Envelope, Message, Recipient, Settled, State
from mtatwist.interfaces import ISpool, ISpoolWriter
from mtatwist.spool.changes import STATES, Answer, Found, Key, Request
from mtatwist.spool.selection import Selection


@implementer(ISpoolWriter)
class MemoryWriter:
    """Collects a message in memory."""

    def __init__(self, spool: MemorySpool, number: int, envelope: Envelope) -> None:
        self.number = number
        self._spool = spool
        self._envelope = envelope
        self._parts: list[bytes] = []
        self._aborted = False
        self._stored: Message | None = None

    def write(self, data: bytes) -> None:
        """See ISpoolWriter."""
        self._parts.append(data)

    def commit(self) -> Deferred[Message]:
        """See ISpoolWriter."""
        if self._aborted:
            return fail(RuntimeError("aborted"))
        if self._stored is None:
            self._stored = self._spool.keep(self.number, self._envelope, b"".join(self._parts))
        return succeed(self._stored)

    async def prepare(self) -> None:
        """See ISpoolWriter."""
        if self._aborted:
            raise RuntimeError("aborted")

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

    def due_domains(self, now: float, start: str, limit: int) -> Deferred[tuple[list[str], str | None]]:
        """See ISpool."""
        waiting = self._unclaimed()
        visited = sorted({recipient.domain for _, recipient in waiting if recipient.domain >= start})[:limit]
        ready = {recipient.domain for _, recipient in waiting if recipient.next_attempt <= now}
        following = visited[-1] + "\0" if len(visited) == limit else None
        return succeed(([domain for domain in visited if domain in ready], following))

    def claim_due(self, now: float, shares: Sequence[tuple[str, int]]) -> Deferred[list[Message]]:
        """See ISpool."""
        ready = sorted((r for r in self._unclaimed() if r[1].next_attempt <= now), key=lambda r: r[1].next_attempt)
        chosen: set[tuple[int, str]] = set()
        for domain, share in shares:
            chosen.update([(number, domain) for number, recipient in ready if recipient.domain == domain][:share])
        return succeed(self._claim([r for r in ready if (r[0], r[1].domain) in chosen]))

    def claim_late(self, received_by: float, after: int, unwarned: bool, limit: int) -> Deferred[list[Message]]:
        """See ISpool."""
        late = sorted(
            (
                (number, recipient)
                for number, recipient in self._unclaimed()
                if number > after
                and self.messages[number].envelope.received_at <= received_by
                and not (unwarned and recipient.warned)
            ),
            key=lambda r: r[0],
        )
        chosen = {number for number, _ in late[:limit]}
        return succeed(self._claim([r for r in late if r[0] in chosen]))

    def next_due(self, after: float) -> Deferred[float | None]:
        """See ISpool."""
        times = (recipient.next_attempt for _, recipient in self._unclaimed())
        return succeed(min((due for due in times if due > after), default=None))

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
            recipient.warned = recipient.warned or result.warned
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

    def find(
        self,
        action: str,
        selection: Selection,
        now: float,
        after: Key,
        limit: int,
        next_hop: Callable[[str], str],
    ) -> Deferred[Found]:
        """See spool.changes.find()."""
        meant = [
            (key, recipient)
            for key, message, recipient in self._all()
            if key > after
            and recipient.state in STATES[action]
            and selection.matches(message, recipient, now, next_hop)
        ][:limit]
        keys = [key for key, _ in meant]
        domains = {recipient.domain for _, recipient in meant}
        return succeed(Found(keys, domains, self.claims.intersection(keys), keys[-1] if len(keys) == limit else None))

    def change(self, request: Request) -> Deferred[Answer]:
        """See SqliteSpool."""
        again = Selection(state=request.selection.state, code=request.selection.code)
        asked, action, now = set(request.keys), request.action, request.now
        done: list[tuple[Key, Recipient]] = []
        busy = []
        for key, message, recipient in self._all():
            if key not in asked or recipient.state not in STATES[action]:
                continue
            if not again.matches(message, recipient, now, str):
                continue
            if key in self.claims and key not in request.withdrawn:
                busy.append(key)
                continue
            done.append((key, recipient))
            self.claims.discard(key)
            if action == "hold":
                recipient.state = State.HELD
            elif action == "release":
                recipient.state = State.DEFERRED if recipient.attempts else State.PENDING
            if action in ("release", "retry"):
                recipient.next_attempt = now
        ending = action in ("bounce", "drop")
        messages = self._claim([(number, recipient) for (number, _), recipient in done]) if ending else []
        return succeed(Answer([key for key, _ in done], busy, messages))

    def read(self, message: Message, offset: int, size: int) -> Deferred[bytes]:
        """See ISpool."""
        kept = self.messages.get(message.number)
        if kept is None or kept.body is None:
            return fail(LookupError(f"message {message.number} is not in the spool"))
        return succeed(kept.body[offset : offset + size])

    def _all(self) -> list[tuple[Key, Message, Recipient]]:
        return sorted(
            (
                ((number, recipient.index), message, recipient)
                for number, message in self.messages.items()
                for recipient in message.envelope.recipients
            ),
            key=lambda one: one[0],
        )

    def _unclaimed(self) -> list[tuple[int, Recipient]]:
        return [
            (number, recipient)
            for number, message in self.messages.items()
            for recipient in message.envelope.recipients
            if recipient.state < 2 and (number, recipient.index) not in self.claims
        ]

    def _claim(self, work: list[tuple[int, Recipient]]) -> list[Message]:
        found: dict[int, list[Recipient]] = {}
        for number, recipient in work:
            self.claims.add((number, recipient.index))
            found.setdefault(number, []).append(recipient)
        return [self._copy(number, recipients) for number, recipients in sorted(found.items())]

    def _copy(self, number: int, recipients: list[Recipient]) -> Message:
        message = self.messages[number]
        envelope = dataclasses.replace(message.envelope, recipients=[dataclasses.replace(r) for r in recipients])
        return dataclasses.replace(message, envelope=envelope)
