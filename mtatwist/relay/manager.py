"""The relay manager: gives messages to next hops, and records what became of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mtatwist.envelope import Message, Outcome, Recipient
from mtatwist.log import EventLogger
from mtatwist.relay.backlog import Backlog
from mtatwist.relay.destinations import Destinations
from mtatwist.relay.record import Recorder
from mtatwist.relay.route import Route
from mtatwist.relay.work import Destination, Work

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ITransport
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.relay.report import Reporter
    from mtatwist.relay.retry import Schedule
    from mtatwist.relay.standing import Standing

_log = EventLogger()

IN_FLIGHT_LIMIT = 2000
"""Recipients being worked on: so many of new mail, and as many of what had waited in the spool. Neither is in the way
of the other; new mail above it waits, too."""

MEMORY_LIMIT = 32 * 1024 * 1024
"""Octets of bodies that may wait in memory; above it they are read from the spool when their turn comes."""

RECIPIENTS_LIMIT = 100
"""Recipients a transaction with a next hop has (RFC 5321 §4.5.3.1.8: every server takes that many)."""


class RelayManager(Service):
    """Wakes for new messages and for due ones; nothing that happens to one message stops the others."""

    def __init__(
        self,
        spool: ISpool,
        *,
        routes: Sequence[Route],
        transport: Callable[[Route], ITransport],
        schedule: Schedule,
        reporter: Reporter,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: Instruments,
        connections: int,
        grace: float = 10.0,
    ) -> None:
        """``wall`` gives the queue's time; ``connections``: the most to all next hops together; ``grace``:
        seconds that deliveries under way have when stopping."""
        self._spool = spool
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._grace = grace
        self._recorder = Recorder(
            spool,
            schedule=schedule,
            reporter=reporter,
            clock=clock,
            wall=wall,
            metrics=metrics,
            running=lambda: bool(self.running),
        )
        self._destinations = Destinations(
            routes=tuple(routes),
            transport=transport,
            connections=connections,
            settler=self,
            clock=clock,
            metrics=metrics,
        )
        self._backlog = Backlog(
            spool,
            take=lambda message, late: self._take(message, waited=True, late=late),
            shares=self._destinations.shares,
            room=lambda: IN_FLIGHT_LIMIT - self._in_flight[True],
            ages=_ages(schedule),
            clock=clock,
            wall=wall,
            metrics=metrics,
        )
        self._in_flight = [0, 0]  # recipients of new mail, and of what had waited
        self._in_memory = 0
        self._empty: Deferred[None] | None = None

    def use(self, *, schedule: Schedule, reporter: Reporter, connections: int) -> None:
        """From now on these hold; see __init__(). When a recipient that waits is tried again has been decided."""
        self._recorder.use(schedule, reporter)
        self._backlog.use(_ages(schedule))
        self._destinations.limit(connections)

    def go(self, *, routes: Sequence[Route], transport: Callable[[Route], ITransport]) -> None:
        """From now on mail goes these ways; see Destinations.use()."""
        self._destinations.use(tuple(routes), transport)

    def startService(self) -> None:
        """Begin with what an earlier run left."""
        super().startService()
        self._backlog.start()

    def stopService(self) -> Deferred[None]:
        """Begin nothing more; let deliveries finish within the grace time, then cut them."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._backlog.stop()
        for work in self._destinations.drain():
            self.put_back(work)
        if any(self._in_flight):
            self._empty = Deferred()
            late = self._clock.callLater(self._grace, self._destinations.cut)
            await self._empty
            if late.active():
                late.cancel()
        self._destinations.stop()

    def wake(self, message: Message) -> None:
        """A message has been made durable, claimed by us: try it now."""
        self._take(message)

    def next_hop(self, domain: str) -> str:
        """What mail for ``domain`` (lower case) goes to: the smart host, socket or directory of its route, or the
        domain where exchanges are looked for. May be called in a thread."""
        return self._destinations.find(domain).name

    def standing(self, domain: str) -> Standing:
        """How it is with the way to ``domain`` (lower case) now."""
        return self._destinations.standing(domain)

    # For those who look after the queue: see relay.administration.

    def withdraw(self, wanted: Mapping[int, Container[int]]) -> list[Work]:
        """Take back what has not begun of these recipients, by the numbers of their messages and their indexes. It
        stays claimed, and counts as work: it has to be put back or let go."""
        return self._destinations.withdraw(wanted)

    def let_go(self, work: Work) -> None:
        """What was withdrawn is claimed no more, or by somebody else."""
        self._settled(None, work)

    def end(self, message: Message, told: bool, reason: str, by: str) -> Deferred[None]:
        """All recipients of a message that was claimed for this have failed: see Recorder.end(). Fires when that is
        written down, and with no error."""
        work = Work(message, message.envelope.recipients, waited=True)
        self._count(True, len(work.recipients))
        return Deferred.fromCoroutine(self._end(work, told, reason, by)).addBoth(self._settled, work)

    async def _end(self, work: Work, told: bool, reason: str, by: str) -> None:
        for report in await self._recorder.end(work, told, reason, by):
            self._take(report)

    def retry(self, domains: Iterable[str]) -> None:
        """Something is due now for these domains: leave where they lead to alone no longer."""
        self._destinations.retry(domains)

    # From the spool to the next hops.

    def _take(self, message: Message, waited: bool = False, late: bool = False) -> None:
        """Give a claimed message to its next hops: a new one, or one that has ``waited`` in the spool. With ``late``
        it is to be settled in any case."""
        recipients = message.envelope.recipients
        self._count(waited, len(recipients))
        groups: dict[Destination, list[Recipient]] = {}
        for recipient in recipients:
            groups.setdefault(self._destinations.find(recipient.domain), []).append(recipient)
        for to, group in groups.items():
            transport = to.route.destinations
            for start in range(0, len(group), RECIPIENTS_LIMIT):
                part = group[start : start + RECIPIENTS_LIMIT]
                self._give(to, Work(message, part, waited, transport=transport, next_hop=to.name), late)

    def _count(self, waited: bool, recipients: int) -> None:
        self._in_flight[waited] += recipients
        self._metrics.in_flight.value = sum(self._in_flight)

    def _give(self, to: Destination, work: Work, late: bool) -> None:
        free = IN_FLIGHT_LIMIT - self._in_flight[False]
        if not self.running or (free < 0 and not work.waited):
            self.put_back(work)
            return
        why = self._destinations.down(to)
        if why is not None:
            if late:
                self.settle(work, [why] * len(work.recipients))
            else:
                self.put_back(work)
            return
        body = work.message.body
        if body is not None:
            if self._in_memory + len(body) > MEMORY_LIMIT:
                work.message = Message(work.message.number, work.message.envelope, work.message.size)
            else:
                work.held = len(body)
                self._in_memory += work.held
        if not self._destinations.give(to, work, free):
            self.put_back(work)

    # From the next hops to the spool.

    def settle(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        """Write down what became of work, and send the reports about it."""
        done = Deferred.fromCoroutine(self._record(work, outcomes))
        done.addBoth(self._settled, work)

    def put_back(self, work: Work) -> None:
        """Leave work to a later claim; it is due when it was, and no attempt is counted."""
        now = self._wall()
        claims = [(work.message.number, r.index, r.next_attempt or now) for r in work.recipients]
        released = Deferred.fromCoroutine(self._recorder.surely(lambda: self._spool.release(claims)))
        released.addBoth(self._settled, work)
        released.addCallback(lambda _: self._destinations.left(work.recipients[0].domain))

    def look(self) -> None:
        """A next hop has room for work that had found none, or is there again."""
        self._backlog.look()

    def look_by(self, at: float) -> None:
        """A next hop may be tried again at ``at`` on the clock."""
        self._backlog.look_by(at)

    async def _record(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        reports, due = await self._recorder.record(work, outcomes)
        for report in reports:
            self._take(report)
        if due is not None:
            self._backlog.due_by(due)

    def _settled(self, result: Failure | None, work: Work) -> None:
        if isinstance(result, Failure):
            if self.running:
                self._metrics.relay_errors.value += 1
                _log.failure("settle_failed", result, id=work.message.id)
            else:
                # The claim is void after the restart, and the work is done again.
                _log.info("left_to_the_next_start", id=work.message.id, error=result.getErrorMessage())
        self._in_memory -= work.held
        self._count(work.waited, -len(work.recipients))
        if not any(self._in_flight) and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)
        self._backlog.room_again()


def _ages(schedule: Schedule) -> list[tuple[float, bool]]:
    """See Backlog."""
    return [(schedule.max_age, False), *([(schedule.warn_after, True)] if schedule.warn_after else [])]
