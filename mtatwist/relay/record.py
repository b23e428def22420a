"""What became of an attempt, written down: a new state for each recipient, and the DSN about those that failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mtatwist.envelope import Deferral, Delivered, Message, Outcome, Recipient, Settled, State
from mtatwist.log import EventLogger
from mtatwist.relay.dsn import Failed, failure_report, report_envelope
from mtatwist.smtp.header import MAX_HEADER
from mtatwist.smtp.reply import Reply

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ISpoolWriter
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.relay.hop import Work
    from mtatwist.relay.retry import Schedule

_log = EventLogger()

T = TypeVar("T")

REWRITE_SECONDS = 5.0
"""How long to wait when the spool could not be written."""


class Recorder:
    """Judges outcomes and has the spool remember them, in one transaction with the reports they cause."""

    def __init__(
        self,
        spool: ISpool,
        *,
        schedule: Schedule,
        hostname: str,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: Instruments,
        running: Callable[[], bool],
    ) -> None:
        """``wall`` gives seconds since the epoch; what can't be written is tried again while ``running``."""
        self._spool = spool
        self._schedule = schedule
        self._hostname = hostname
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._running = running

    async def record(self, work: Work, outcomes: Sequence[Outcome]) -> tuple[Sequence[Message], float | None]:
        """Write down what became of each recipient; a failure's DSN goes into the same transaction.

        Gives the reports, claimed and to be sent, and when the first of the recipients is due again, if any is.
        """
        message, now = work.message, self._wall()
        results: list[Settled] = []
        failures: list[Failed] = []
        for recipient, outcome in zip(work.recipients, outcomes, strict=True):
            result = self._judge(message, recipient, outcome, now)
            results.append(result)
            if result.state is State.FAILED:
                failures.append(Failed(recipient, result.reply, result.host, now))
            self._log_attempt(message, recipient, result)
        if failures and not message.envelope.reverse_path:
            # Nobody to tell (RFC 5321 §6.1): the log is all there is.
            _log.warn("undeliverable_report_dropped", id=message.id)
            failures.clear()
        reports = await self.surely(lambda: self._write(message, results, failures, now))
        self._metrics.reports.value += len(reports)
        return reports, min((r.next_attempt for r in results if r.state is State.DEFERRED), default=None)

    def _judge(self, message: Message, recipient: Recipient, outcome: Outcome, now: float) -> Settled:
        """A recipient's new state. A deferral becomes a failure once the message has been tried for long enough."""
        state, reply, next_attempt = State.FAILED, outcome.reply, 0.0
        received_at = message.envelope.received_at
        if isinstance(outcome, Delivered):
            self._metrics.delivered.value += 1
            state = State.DELIVERED
        elif not isinstance(outcome, Deferral):
            self._metrics.failed.value += 1
        elif self._schedule.expired(received_at, now):
            self._metrics.failed.value += 1
            self._metrics.expired.value += 1
            reply = Reply(554, "5.4.7", f"Tried for too long; the last try said: {reply}")
        else:
            self._metrics.deferred.value += 1
            state = State.DEFERRED
            next_attempt = self._schedule.next_attempt(received_at, recipient.attempts + 1, now)
        return Settled(message.number, recipient.index, state, reply, outcome.host, now, next_attempt)

    async def _write(
        self, message: Message, results: Sequence[Settled], failures: Sequence[Failed], now: float
    ) -> Sequence[Message]:
        """One try; the DSN is made anew for each, since a writer writes only once."""
        reports = [await self._report(message, failures, now)] if failures else []
        try:
            return await self._spool.settle(results, reports)
        except Exception:
            for report in reports:
                report.abort()
            raise

    async def _report(self, message: Message, failures: Sequence[Failed], now: float) -> ISpoolWriter:
        try:
            original = await self._spool.read(message, 0, MAX_HEADER)
        except Exception:
            # Better to be told without the header than not at all.
            self._metrics.relay_errors.value += 1
            _log.failure("spool_unreadable", id=message.id)
            original = b""
        writer = self._spool.create(report_envelope(message, original, now))
        boundary = f"{writer.number:X}.{token_hex(8)}"
        writer.write(failure_report(message, failures, original, hostname=self._hostname, boundary=boundary, now=now))
        return writer

    async def surely(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write until the spool takes it: what it says has already happened. When the server stops
        before, the claim is void after the restart, and the work is done again."""
        while True:
            try:
                return await write()
            except Exception:
                if not self._running():
                    raise
                self._metrics.relay_errors.value += 1
                _log.failure("spool_write_failed")
                await deferLater(self._clock, REWRITE_SECONDS)

    @staticmethod
    def _log_attempt(message: Message, recipient: Recipient, result: Settled) -> None:
        _log.info(
            result.state.name.lower(),
            id=message.id,
            session=message.envelope.session,
            forward_path=recipient.address,
            host=result.host,
            code=result.reply.code,
            enhanced=result.reply.enhanced,
            reply=result.reply.text,
            attempts=recipient.attempts + 1,
            delay=round(result.at - message.envelope.received_at, 3),
        )
