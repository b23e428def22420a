"""The relay manager: gives messages to next hops, records what became of them, and looks for what is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mtatwist.envelope import Message, Outcome, Recipient
from mtatwist.log import EventLogger
from mtatwist.relay.hop import Hop, Work
from mtatwist.relay.record import Recorder
from mtatwist.relay.route import Route, choose

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool, ITransport
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.relay.retry import Schedule

_log = EventLogger()

CLAIM_LIMIT = 200
"""Recipients claimed from the spool at once."""

IN_FLIGHT_LIMIT = 4000
"""Recipients being worked on; new mail above it stays in the spool until there is room."""

MEMORY_LIMIT = 32 * 1024 * 1024
"""Octets of bodies that may wait in memory; above it they are read from the spool when their turn comes."""

RECIPIENTS_LIMIT = 100
"""Recipients a transaction with a next hop has (RFC 5321 §4.5.3.1.8: every server takes that many)."""

SCAN_SECONDS = 60.0
"""Longest time between two looks for due work: the bound on the harm of a missed wake-up or a clock that jumped."""

PARK_SECONDS = 5.0
"""How long work waits in the spool when its next hop has no room for it."""


class RelayManager(Service):
    """Wakes for new messages and for due ones; nothing that happens to one message stops the others."""

    def __init__(
        self,
        spool: ISpool,
        *,
        routes: Sequence[Route],
        transport: Callable[[Route], ITransport],
        schedule: Schedule,
        hostname: str,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: Instruments,
        grace: float = 10.0,
    ) -> None:
        """``wall`` gives seconds since the epoch; ``grace``: seconds that deliveries under way have when stopping."""
        self._spool = spool
        self._routes = tuple(routes)
        self._make_transport = transport
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._grace = grace
        self._recorder = Recorder(
            spool,
            schedule=schedule,
            hostname=hostname,
            clock=clock,
            wall=wall,
            metrics=metrics,
            running=lambda: bool(self.running),
        )
        self._transports: dict[Route, ITransport] = {}
        self._hops: dict[Route, Hop] = {}
        self._in_flight = 0
        self._in_memory = 0
        self._timer: IDelayedCall | None = None
        self._scanning = False
        self._scan_again = False
        self._empty: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin with what an earlier run left."""
        super().startService()
        self._scan()

    def stopService(self) -> Deferred[None]:
        """Begin nothing more; let deliveries finish within the grace time, then cut them."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [work for hop in list(self._hops.values()) for work in hop.drain()]
        for work in waiting:
            self._give_back(work, self._wall())
        if self._in_flight:
            self._empty = Deferred()
            late = self._clock.callLater(self._grace, self._cut)
            await self._empty
            if late.active():
                late.cancel()
        for transport in self._transports.values():
            transport.stop()

    def wake(self, message: Message) -> None:
        """A message has been made durable, claimed by us: try it now."""
        self._take(message)

    # From the spool to the hops.

    def _scan(self) -> None:
        """Look for due work, unless that is being done."""
        if self._scanning:
            self._scan_again = True
            return
        self._scanning = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        Deferred.fromCoroutine(self._scan_round()).addBoth(self._scanned)

    async def _scan_round(self) -> float:
        """Claim what is due, as far as there is room; gives the seconds until the next look."""
        while self.running and self._in_flight < IN_FLIGHT_LIMIT:
            claimed = await self._spool.claim_due(self._wall(), CLAIM_LIMIT)
            if not claimed:
                due = await self._spool.next_due()
                return SCAN_SECONDS if due is None else min(max(due - self._wall(), 0.05), SCAN_SECONDS)
            for message in claimed:
                self._take(message)
        return 1.0

    def _scanned(self, result: float | Failure) -> None:
        """A round ended, well or not: there is always another."""
        self._scanning = False
        if isinstance(result, Failure):
            delay = 1.0
            self._metrics.relay_errors.value += 1
            _log.failure("scan_failed", result)
        else:
            delay = result
        if not self.running:
            return
        if self._scan_again:
            self._scan_again = False
            delay = min(delay, 0.05)
        self._timer = self._clock.callLater(delay, self._scan)

    def _scan_by(self, at: float) -> None:
        """Something becomes due at ``at``: look then, if no look comes before."""
        if self._timer is not None and self._timer.active():
            delay = max(at - self._wall(), 0.05)
            if self._timer.getTime() > self._clock.seconds() + delay:
                self._timer.reset(delay)

    def _take(self, message: Message) -> None:
        """Give a claimed message to its next hops."""
        recipients = message.envelope.recipients
        self._in_flight += len(recipients)
        self._metrics.in_flight.value = self._in_flight
        groups: dict[Route, list[Recipient]] = {}
        for recipient in recipients:
            groups.setdefault(choose(self._routes, recipient.domain), []).append(recipient)
        for route, group in groups.items():
            for start in range(0, len(group), RECIPIENTS_LIMIT):
                self._give(route, Work(message, group[start : start + RECIPIENTS_LIMIT]))

    def _give(self, route: Route, work: Work) -> None:
        if not self.running or self._in_flight > IN_FLIGHT_LIMIT:
            self._give_back(work, self._wall())
            return
        hop = self._hop(route)
        if hop.full:
            self._give_back(work, self._wall() + PARK_SECONDS)
            return
        body = work.message.body
        if body is not None:
            if self._in_memory + len(body) > MEMORY_LIMIT:
                work.message = Message(work.message.number, work.message.envelope, work.message.size)
            else:
                self._in_memory += len(body)
        hop.add(work)

    def _hop(self, route: Route) -> Hop:
        hop = self._hops.get(route)
        if hop is None:
            transport = self._transports.get(route)
            if transport is None:
                transport = self._transports[route] = self._make_transport(route)
            hop = self._hops[route] = Hop(
                transport,
                route.next_hop or "",
                connections=route.connections,
                clock=self._clock,
                metrics=self._metrics,
                settle=self._delivered,
                idle=lambda: self._hops.pop(route, None),
            )
        return hop

    # From the hops to the spool.

    def _delivered(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        if work.message.body is not None:
            self._in_memory -= len(work.message.body)
        self._settle(work, outcomes)

    def _settle(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        done = Deferred.fromCoroutine(self._record(work, outcomes))
        done.addBoth(self._settled, work)

    async def _record(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        reports, due = await self._recorder.record(work, outcomes)
        for report in reports:
            self._take(report)
        if due is not None:
            self._scan_by(due)

    def _settled(self, result: Failure | None, work: Work) -> None:
        if result is not None:
            self._metrics.relay_errors.value += 1
            _log.failure("settle_failed", result, id=work.message.id)
        self._let_go(work)

    def _let_go(self, work: Work) -> None:
        self._in_flight -= len(work.recipients)
        self._metrics.in_flight.value = self._in_flight
        if not self._in_flight and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def _give_back(self, work: Work, due: float) -> None:
        """Leave work to a later claim."""
        claims = [(work.message.number, recipient.index, due) for recipient in work.recipients]
        released = Deferred.fromCoroutine(self._recorder.surely(lambda: self._spool.release(claims)))
        released.addBoth(self._settled, work)
        released.addCallback(lambda _: self._scan_by(due))

    def _cut(self) -> None:
        for hop in list(self._hops.values()):
            hop.cut()
