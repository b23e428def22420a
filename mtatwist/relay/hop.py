"""One next hop: its queue of work and its bounded, reused connections. What is slow here delays nobody elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.envelope import Deferral, Message, Outcome, Recipient
from mtatwist.smtp.reply import Reply
from mtatwist.transports.failures import ConnectFailed, Stale

if TYPE_CHECKING:
    from mtatwist.interfaces import IDelivery, ITransport
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

QUEUE_LIMIT = 2000
"""Pieces of work that may wait in memory for one next hop; more stay in the spool."""

IDLE_SECONDS = 5.0
"""How long a connection without work is kept for the next message."""

GROWTH = 0.01
"""Connections more that are tried for each delivery, after the next hop wanted fewer than we had."""


@dataclass(slots=True)
class Work:
    """A message for some of its recipients, all of which have the same next hop."""

    message: Message
    recipients: list[Recipient]


class Hop:
    """Hands work to at most ``connections`` connections; gives outcomes to ``settle``."""

    def __init__(
        self,
        transport: ITransport,
        next_hop: str,
        *,
        connections: int,
        clock: IReactorTime,
        metrics: Instruments,
        settle: Callable[[Work, Sequence[Outcome]], None],
        idle: Callable[[], object],
    ) -> None:
        """``idle`` is called when nothing is left here."""
        self._transport = transport
        self._next_hop = next_hop
        self._connections = connections
        self._allowed = float(connections)
        self._clock = clock
        self._metrics = metrics
        self._settle = settle
        self._idle = idle
        self._queue: deque[Work] = deque()
        self._workers = 0
        self._resting: list[Deferred[Work | None]] = []
        self._deliveries: set[IDelivery] = set()
        self._connecting: set[Deferred[IDelivery]] = set()
        self._stopping = False

    @property
    def full(self) -> bool:
        """Is there no room for more work?"""
        return len(self._queue) >= QUEUE_LIMIT

    def add(self, work: Work) -> None:
        """Deliver ``work`` as soon as a connection is free."""
        if self._resting:
            self._resting.pop().callback(work)
            return
        self._queue.append(work)
        if self._workers + 1 <= self._allowed:
            self._workers += 1
            Deferred.fromCoroutine(self._worker()).addErrback(self._crashed)

    def drain(self) -> list[Work]:
        """Stop: what has not begun is given back, connections without work are closed."""
        self._stopping = True
        waiting = list(self._queue)
        self._queue.clear()
        while self._resting:
            self._resting.pop().callback(None)
        return waiting

    def cut(self) -> None:
        """Close the connections, whatever they are doing."""
        for delivery in list(self._deliveries):
            delivery.close()
        for connecting in list(self._connecting):
            connecting.cancel()

    async def _worker(self) -> None:
        """One connection, for as long as there is work for it."""
        delivery: IDelivery | None = None
        try:
            while (work := await self._next(delivery)) is not None:
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
                    outcomes = [Deferral(Reply(451, "4.3.2", "Stopped while connecting"))] * len(work.recipients)
                except Exception:
                    self._metrics.relay_errors.value += 1
                    _log.failure("delivery_crashed", id=work.message.id, next_hop=self._next_hop)
                    outcomes = [Deferral(Reply(451, "4.3.0", "Local trouble"))] * len(work.recipients)
                self._metrics.delivery_seconds.observe(self._clock.seconds() - started)
                self._allowed = min(self._allowed + GROWTH, self._connections)
                self._settle(work, outcomes)
        finally:
            if delivery is not None:
                self._deliveries.discard(delivery)
                delivery.close()
            self._workers -= 1
            if not self._workers and not self._queue:
                self._idle()

    async def _next(self, delivery: IDelivery | None) -> Work | None:
        """The next piece of work; waits for it a while if there is a connection that is worth it."""
        if self._queue:
            return self._queue.popleft()
        if self._stopping or delivery is None or not delivery.usable:
            return None
        resting: Deferred[Work | None] = Deferred()
        self._resting.append(resting)
        timer = self._clock.callLater(IDLE_SECONDS, self._tired, resting)
        work = await resting
        if timer.active():
            timer.cancel()
        return work

    def _tired(self, resting: Deferred[Work | None]) -> None:
        self._resting.remove(resting)
        resting.callback(None)

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
        return delivery

    async def _connect(self) -> IDelivery:
        return await self._transport.connect(self._next_hop)

    def _unreachable(self, work: Work, outcome: Outcome) -> bool:
        """Nobody answers: what waits here would only find out the same, one time-out after the other.

        While others have a connection, it is just one too many: False, and one of them does the work.
        """
        self._metrics.connect_failures.value += 1
        _log.info("unreachable", next_hop=self._next_hop, reply=str(outcome.reply))
        if self._deliveries:
            self._allowed = float(len(self._deliveries))
            if self._resting:
                self._resting.pop().callback(work)
            else:
                self._queue.appendleft(work)
            return False
        waiting = [work, *self._queue]
        self._queue.clear()
        for one in waiting:
            self._settle(one, [outcome] * len(one.recipients))
        return True

    def _crashed(self, failure: Failure) -> None:
        self._metrics.relay_errors.value += 1
        _log.failure("worker_crashed", failure, next_hop=self._next_hop)
