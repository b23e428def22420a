"""One next hop: its queue of work and its bounded, reused connections. What is slow here delays nobody elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.envelope import Deferral, Outcome
from mtatwist.relay.work import Destination, Work, part
from mtatwist.smtp.reply import Reply
from mtatwist.transports.failures import ConnectFailed, Stale

if TYPE_CHECKING:
    from mtatwist.interfaces import IDelivery, ITransport
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.relay.limits import Connections, Ramp

_log = Logger()

IDLE_SECONDS = 5.0
"""How long a connection without work is kept for the next message."""

LOW_WATER = 200
"""Recipients that still wait when more work is asked for, if there was some that had found no room."""

TURN = 20
"""Messages over one connection before another next hop gets it that has none."""


class HopOwner(Protocol):
    """Who is told what becomes of a next hop and its work. Every piece of work comes back by one of the first three."""

    def settled(self, hop: Hop, work: Work, outcomes: Sequence[Outcome]) -> None:
        """It was tried."""

    def put_back(self, hop: Hop, work: Work) -> None:
        """It was not, or was cut off by us."""

    def unreachable(self, hop: Hop, work: Work, outcome: Outcome, waiting: Sequence[Work]) -> None:
        """``work`` found out that nobody answers; the others would only find out the same."""

    def reached(self, hop: Hop) -> None:
        """There is a new connection."""

    def hungry(self, hop: Hop) -> None:
        """There is room for more work."""

    def idle(self, hop: Hop) -> None:
        """Nothing is left here."""


class Hop:
    """Hands work to as many connections as the next hop bears and the total allows."""

    def __init__(
        self,
        transport: ITransport,
        destination: Destination,
        *,
        ramp: Ramp,
        total: Connections,
        clock: IReactorTime,
        metrics: Instruments,
        owner: HopOwner,
    ) -> None:
        self.destination = destination
        self.load = 0  # recipients, waiting or being tried
        self.waiting = 0
        self.wanted = False  # somebody had more work than there was room
        self._transport = transport
        self._ramp = ramp
        self._total = total
        self._clock = clock
        self._metrics = metrics
        self._seconds = metrics.relay[destination.route.destinations].seconds
        self._owner = owner
        self._queue: deque[Work] = deque()
        self._workers = 0
        self._resting: list[Deferred[Work | None]] = []
        self._deliveries: set[IDelivery] = set()
        self._connecting: set[Deferred[IDelivery]] = set()
        self._stopping = False
        self._cut = False

    @property
    def busy(self) -> bool:
        """Is there a connection, or about to be one? When the last of them ends, the owner is told that it is idle."""
        return bool(self._workers)

    def add(self, work: Work) -> None:
        """Deliver ``work`` as soon as a connection is free."""
        self.load += len(work.recipients)
        if self._resting:
            self._rested(self._resting[-1], work)
            return
        self._queue.append(work)
        self.waiting += len(work.recipients)
        self._grow()

    def granted(self) -> None:
        """(Taker) A connection of the total is ours."""
        self._begin()

    def make_room(self) -> None:
        """(Taker) Somebody has none: close one that rests."""
        if self._resting:
            self._rested(self._resting[0], None)

    def drain(self) -> list[Work]:
        """Stop: what has not begun is given back, connections without work are closed."""
        self._stopping = True
        self._total.leave(self)
        waiting = self._empty()
        for resting in list(self._resting):
            self._rested(resting, None)
        return waiting

    def withdraw(self, wanted: Mapping[int, Container[int]]) -> list[Work]:
        """Give back what has not begun of these recipients, by the numbers of their messages and their indexes."""
        withdrawn, left = part(self._queue, wanted)
        self._queue = deque(left)
        recipients = sum(len(work.recipients) for work in withdrawn)
        self.load -= recipients
        self.waiting -= recipients
        if withdrawn and not self._queue and not self._workers:
            self._total.leave(self)
            self._owner.idle(self)
        self._ask_for_more()
        return withdrawn

    def cut(self) -> None:
        """Close the connections, whatever they are doing; what they were trying has not been tried."""
        self._cut = True
        for delivery in list(self._deliveries):
            delivery.close()
        for connecting in list(self._connecting):
            connecting.cancel()

    def _grow(self) -> None:
        """One connection more, if there is work for it, and it is allowed."""
        if self._queue and self._workers < self._ramp.allowed and self._total.take(self, self._workers):
            self._begin()

    def _begin(self) -> None:
        self._workers += 1
        self._metrics.connections_used.value += 1
        Deferred.fromCoroutine(self._worker()).addErrback(self._crashed)

    async def _worker(self) -> None:
        """One connection, for as long as there is work for it."""
        delivery: IDelivery | None = None
        turns = 0
        try:
            while (work := await self._next(delivery, turns)) is not None:
                turns += 1
                started = self._clock.seconds()
                try:
                    if delivery is None or not delivery.usable:
                        delivery = await self._reconnect(delivery)
                    try:
                        outcomes = await delivery.deliver(work.message, work.recipients)
                    except Stale:
                        # It had been closed while it had no work: that says nothing about this message.
                        delivery = await self._reconnect(delivery)
                        outcomes = await delivery.deliver(work.message, work.recipients)
                    if len(outcomes) != len(work.recipients):
                        raise ValueError(f"{len(outcomes)} outcomes for {len(work.recipients)} recipients")
                except ConnectFailed as failed:
                    if self._unreachable(work, failed.outcome):
                        continue
                    return
                except CancelledError:
                    self.load -= len(work.recipients)
                    self._owner.put_back(self, work)
                    continue
                except Exception:
                    self._metrics.relay_errors.value += 1
                    _log.failure("delivery_crashed", id=work.message.id, next_hop=self.destination.name)
                    outcomes = [Deferral(Reply(451, "4.3.0", "Local trouble"))] * len(work.recipients)
                self._seconds.observe(self._clock.seconds() - started)
                self._tried(work, outcomes)
        finally:
            self._end(delivery)

    async def _next(self, delivery: IDelivery | None, turns: int) -> Work | None:
        """The next piece of work; waits for it a while if there is a connection that is worth it."""
        if self._total.wanted and (self._workers > 1 or turns >= TURN):
            return None
        if self._queue:
            work = self._queue.popleft()
            self.waiting -= len(work.recipients)
            return work
        if self._stopping or delivery is None or not delivery.usable or self._total.wanted:
            return None
        resting: Deferred[Work | None] = Deferred()
        self._resting.append(resting)
        self._count_idle(1)
        self._total.rests(self, True)
        timer = self._clock.callLater(IDLE_SECONDS, self._rested, resting, None)
        more = await resting
        if timer.active():
            timer.cancel()
        return more

    def _rested(self, resting: Deferred[Work | None], work: Work | None) -> None:
        self._resting.remove(resting)
        self._count_idle(-1)
        if not self._resting:
            self._total.rests(self, False)
        resting.callback(work)

    def _count_idle(self, more: int) -> None:
        self._metrics.connections_idle.value += more
        self._metrics.connections_used.value -= more

    async def _reconnect(self, old: IDelivery | None) -> IDelivery:
        if old is not None:
            self._deliveries.discard(old)
            old.close()
        self._metrics.connections.value += 1
        connecting = Deferred.fromCoroutine(self._connect())
        self._connecting.add(connecting)
        try:
            delivery = await connecting
        finally:
            self._connecting.discard(connecting)
        self._deliveries.add(delivery)
        self._owner.reached(self)
        return delivery

    async def _connect(self) -> IDelivery:
        return await self._transport.connect(self.destination.name)

    def _tried(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        self.load -= len(work.recipients)
        self._ask_for_more()
        if any(outcome.reply.code == 421 for outcome in outcomes):
            self._ramp.troubled(self._workers - 1)
        else:
            self._ramp.succeeded()
        if not self._cut:
            self._owner.settled(self, work, outcomes)
        else:
            # It was us who ended it: only what had been decided by then counts.
            pairs = list(zip(work.recipients, outcomes, strict=True))
            undecided = [recipient for recipient, outcome in pairs if isinstance(outcome, Deferral)]
            decided = [(recipient, outcome) for recipient, outcome in pairs if not isinstance(outcome, Deferral)]
            if undecided:
                self._owner.put_back(self, replace(work, recipients=undecided, held=0))
            if decided:
                recipients, results = zip(*decided, strict=True)
                self._owner.settled(self, replace(work, recipients=list(recipients), held=0), results)
        self._grow()

    def _ask_for_more(self) -> None:
        if self.wanted and self.waiting <= LOW_WATER:
            self.wanted = False
            self._owner.hungry(self)

    def _unreachable(self, work: Work, outcome: Outcome) -> bool:
        """Nobody answers, or it was us who hung up. While others have a connection, it is just one too many: False,
        and one of them does the work. Else nothing that waits here has a chance, and the owner is told."""
        if self._cut:
            self.load -= len(work.recipients)
            self._owner.put_back(self, work)
            return True
        self._metrics.connect_failures.value += 1
        _log.info("unreachable", next_hop=self.destination.name, reply=str(outcome.reply))
        if self._deliveries:
            self._ramp.troubled(len(self._deliveries))
            if self._resting:
                self._rested(self._resting[-1], work)
            else:
                self._queue.appendleft(work)
                self.waiting += len(work.recipients)
            return False
        waiting = self._empty()
        self.load -= len(work.recipients)
        self._owner.unreachable(self, work, outcome, waiting)
        return True

    def _empty(self) -> list[Work]:
        waiting = list(self._queue)
        self._queue.clear()
        self.load -= self.waiting
        self.waiting = 0
        return waiting

    def _end(self, delivery: IDelivery | None) -> None:
        """A connection is closed, or was never had; what waits may need another."""
        if delivery is not None:
            self._deliveries.discard(delivery)
            delivery.close()
        self._workers -= 1
        self._metrics.connections_used.value -= 1
        self._total.give()
        if not self._workers:
            if self._queue:
                self._grow()
            else:
                self._total.leave(self)
                self._owner.idle(self)

    def _crashed(self, failure: Failure) -> None:
        self._metrics.relay_errors.value += 1
        _log.failure("worker_crashed", failure, next_hop=self.destination.name)
