"""What became of an attempt, written down: a new state for each recipient, and the DSNs that the sender gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mtatwist.envelope import Deferral, Delivered, Message, Outcome, Recipient, Settled, State
from mtatwist.log import EventLogger
from mtatwist.relay.notice import Kind, Notice, is_wanted, success
from mtatwist.smtp.reply import Reply
from mtatwist.store.trouble import StoreBroken

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ISpoolWriter
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.metrics.instruments.kinds import Counter
    from mtatwist.relay.report import Reporter
    from mtatwist.relay.retry import Schedule
    from mtatwist.relay.work import Work

_log = EventLogger()

T = TypeVar("T")

REWRITE_SECONDS = 5.0
"""How long to wait when the spool could not be written."""

REPORTS_LIMIT = 16
"""Attempts whose DSNs are being written at once: when a next hop's whole queue fails, they don't gather in memory."""

_Notices = dict[Kind, list[Notice]]


class Recorder:
    """Judges outcomes and has the spool remember them, in one transaction with the reports they cause."""

    def __init__(
        self,
        spool: ISpool,
        *,
        schedule: Schedule,
        reporter: Reporter,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: Instruments,
        running: Callable[[], bool],
    ) -> None:
        """``wall`` gives the queue's time; what can't be written is tried again while ``running``."""
        self._spool = spool
        self._schedule = schedule
        self._reporter = reporter
        self._turns = DeferredSemaphore(REPORTS_LIMIT)
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._running = running

    def use(self, schedule: Schedule, reporter: Reporter) -> None:
        """Judge by this schedule, and write such reports, from now on."""
        self._schedule = schedule
        self._reporter = reporter

    async def record(self, work: Work, outcomes: Sequence[Outcome]) -> tuple[Sequence[Message], float | None]:
        """Write down what became of each recipient; the DSNs about that go into the same transaction.

        Gives the DSNs, claimed and to be sent, and when the first of the recipients is due again, if any is.
        """
        message, now = work.message, self._wall()
        results: list[Settled] = []
        notices: _Notices = {}
        due: dict[int, float] = {}
        for recipient, outcome in zip(work.recipients, outcomes, strict=True):
            result, kind = self._judge(work, recipient, outcome, now, due)
            results.append(result)
            if kind is not None and self._is_to_be_told(message, recipient, kind):
                expired = kind is Kind.FAILED and isinstance(outcome, Deferral)
                notice = Notice(recipient, outcome.reply, outcome.host, now, expired)
                notices.setdefault(kind, []).append(notice)
            self._log_attempt(work, recipient, result)
        reports: Sequence[Message] = ()
        if notices:
            reports = await self._settle_and_tell(message, results, notices, now)
        else:
            await self.surely(lambda: self._spool.settle(results, []))
        return reports, min((r.next_attempt for r in results if r.state is State.DEFERRED), default=None)

    async def end(self, work: Work, told: bool, reason: str, by: str) -> Sequence[Message]:
        """By the word of ``by``, who looks after the queue, these have failed; with ``told`` the sender hears of it.

        Gives the DSNs, claimed and to be sent.
        """
        message, now = work.message, self._wall()
        reply = Reply(554, "5.0.0", reason or "Returned by the postmaster" if told else reason or "Dropped")
        results = [
            Settled(message.number, recipient.index, State.FAILED, reply, "", now) for recipient in work.recipients
        ]
        notices: _Notices = {}
        for recipient in work.recipients:
            _log.info(
                "bounced_by_admin" if told else "dropped",
                id=message.id,
                session=message.envelope.session,
                forward_path=recipient.address,
                reason=reason,
                by=by,
                attempts=recipient.attempts,
            )
            if told and self._is_to_be_told(message, recipient, Kind.FAILED):
                notices.setdefault(Kind.FAILED, []).append(Notice(recipient, reply, "", now))
        if notices:
            return await self._settle_and_tell(message, results, notices, now)
        await self.surely(lambda: self._spool.settle(results, []))
        return ()

    def _judge(
        self, work: Work, recipient: Recipient, outcome: Outcome, now: float, due: dict[int, float]
    ) -> tuple[Settled, Kind | None]:
        """A recipient's new state, and what there is to tell of it.

        A deferral becomes a failure once the message has been tried for long enough. What failed in one transaction is
        ``due`` together, by the number of attempts, so that it can be one transaction again.
        """
        kind: Kind | None = Kind.FAILED
        state, reply, next_attempt, warned = State.FAILED, outcome.reply, 0.0, False
        message, counts = work.message, self._metrics.relay[work.transport]
        received_at = message.envelope.received_at
        if isinstance(outcome, Delivered):
            counts.delivered.value += 1
            state, kind = State.DELIVERED, success(outcome.handed)
        elif not isinstance(outcome, Deferral):
            counts.failed.value += 1
        elif self._schedule.expired(received_at, now):
            counts.expired.value += 1
            reply = Reply(554, "5.4.7", f"Tried for too long; the last try said: {reply}")
        else:
            counts.deferred.value += 1
            state = State.DEFERRED
            warned = not recipient.warned and self._schedule.late(received_at, now)
            kind = Kind.DELAYED if warned else None
            if recipient.attempts not in due:
                due[recipient.attempts] = self._schedule.next_attempt(received_at, recipient.attempts + 1, now)
            next_attempt = due[recipient.attempts]
        result = Settled(
            message.number, recipient.index, state, reply, outcome.host, now, next_attempt, warned, outcome.tls
        )
        return result, kind

    def _is_to_be_told(self, message: Message, recipient: Recipient, kind: Kind) -> bool:
        """Does somebody want to hear of it? There is nobody to tell about a DSN (RFC 5321 §6.1)."""
        if message.envelope.reverse_path:
            return is_wanted(kind, recipient)
        if kind is Kind.FAILED:
            # The log is all there is.
            self._metrics.reports_dropped.value += 1
            _log.warn("undeliverable_report_dropped", id=message.id, forward_path=recipient.address)
        return False

    async def _settle_and_tell(
        self, message: Message, results: Sequence[Settled], notices: _Notices, now: float
    ) -> Sequence[Message]:
        """Write results and DSNs. These are put together first, and then offered until the spool has them: when it
        says that it could not write them it may be wrong, and must not be given others."""
        await self._turns.acquire()
        try:
            writers = await self.surely(lambda: self._write_reports(message, notices, now))
            # Not aborted when this server stops before: their rows may be there, and the next start knows.
            reports = await self.surely(lambda: self._spool.settle(results, writers))
        finally:
            self._turns.release()
        to = message.envelope.reverse_path
        for report, (kind, told) in zip(reports, notices.items(), strict=True):
            self._counter(kind).value += 1
            _log.info("report", id=report.id, kind=kind.value, about=message.id, forward_path=to, recipients=len(told))
        return reports

    async def _write_reports(self, message: Message, notices: _Notices, now: float) -> list[ISpoolWriter]:
        """A DSN for each kind of notice."""
        writers: list[ISpoolWriter] = []
        until = self._schedule.ends_at(message.envelope.received_at)
        try:
            for kind, told in notices.items():
                writers.append(await self._reporter.write(message, kind, told, now=now, until=until))
        except BaseException:
            for writer in writers:
                writer.abort()
            raise
        return writers

    def _counter(self, kind: Kind) -> Counter:
        if kind is Kind.FAILED:
            return self._metrics.reports_failed
        return self._metrics.reports_delayed if kind is Kind.DELAYED else self._metrics.reports_succeeded

    async def surely(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write until the spool takes it: what it says has already happened. When the server stops
        before, the claim is void after the restart, and the work is done again."""
        while True:
            try:
                return await write()
            except Exception as error:
                if not self._running():
                    raise
                self._metrics.relay_errors.value += 1
                if not isinstance(error, StoreBroken):
                    # That has been told once, and thousands of deliveries may wait for its end.
                    _log.failure("spool_write_failed")
                await deferLater(self._clock, REWRITE_SECONDS)

    @staticmethod
    def _log_attempt(work: Work, recipient: Recipient, result: Settled) -> None:
        message, envelope = work.message, work.message.envelope
        _log.info(
            result.state.name.lower(),
            id=message.id,
            session=envelope.session,
            reverse_path=envelope.reverse_path,
            forward_path=recipient.address,
            size=message.size,
            next_hop=work.next_hop,
            host=result.host,
            code=result.reply.code,
            enhanced=result.reply.enhanced,
            reply=result.reply.text,
            tls=result.tls,
            attempts=recipient.attempts + 1,
            delay=round(result.at - envelope.received_at, 3),
            retry_in=round(result.next_attempt - result.at) if result.state is State.DEFERRED else None,
        )
