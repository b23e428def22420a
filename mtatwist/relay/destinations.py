"""Where mail goes: the next hops that have work now, those that are down, and how much more work each is given."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime

from mtatwist.envelope import Deferral, Outcome
from mtatwist.log import EventLogger
from mtatwist.relay.breaker import Breakers
from mtatwist.relay.hop import LOW_WATER, Hop
from mtatwist.relay.limits import FIRST_CONNECTIONS, Connections, Ramp
from mtatwist.relay.route import Route, choose, destination
from mtatwist.relay.standing import Standing
from mtatwist.relay.work import Destination, Work

if TYPE_CHECKING:
    from mtatwist.interfaces import ITransport
    from mtatwist.metrics.instruments import Instruments

_log = EventLogger()

QUEUE_LIMIT = 500
"""Recipients from the spool that one next hop has at once: enough until the next ones are there."""

KNOWN_DOMAINS = 10_000
"""Domains whose way is remembered."""


class Settler(Protocol):
    """Who writes down what became of work, and looks for more."""

    def settle(self, work: Work, outcomes: Sequence[Outcome]) -> None:
        """It was tried."""

    def put_back(self, work: Work) -> None:
        """It was not."""

    def look(self) -> None:
        """There is room, or a next hop is there again."""

    def look_by(self, at: float) -> None:
        """At ``at`` on the clock a next hop may be tried again."""


class Destinations:
    """Opens a hop for work, forgets it when it is idle, and leaves destinations alone that are down."""

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        transport: Callable[[Route], ITransport],
        connections: int,
        settler: Settler,
        clock: IReactorTime,
        metrics: Instruments,
    ) -> None:
        """``connections``: the most that may be open to all of them."""
        self._settler = settler
        self._clock = clock
        self._metrics = metrics
        self._total = Connections(connections, clock)
        self._breakers = Breakers(clock, metrics)
        self._transports: dict[Route, ITransport] = {}
        self._hops: dict[Destination, Hop] = {}
        # Hops that only end what they have begun, by ways of before; and what these need, or did until now.
        self._replaced: dict[Hop, ITransport] = {}
        self._unused: set[ITransport] = set()
        self._go_by(routes, transport)

    def _go_by(self, routes: Sequence[Route], transport: Callable[[Route], ITransport]) -> None:
        @lru_cache(KNOWN_DOMAINS)
        def find(domain: str) -> Destination:
            route = choose(routes, domain)
            return Destination(route, destination(route, domain))

        self._make_transport = transport
        self.find = find

    def use(self, routes: Sequence[Route], transport: Callable[[Route], ITransport]) -> None:
        """Go these ways from now on. What is being delivered ends as it began; what only waits is put back, to be taken
        again. What is known of destinations stays, as far as they are the same."""
        self._go_by(routes, transport)
        before, self._transports = self._transports, {}
        hops, self._hops = self._hops, {}
        self._unused |= set(before.values())
        self._replaced |= {hop: before[hop.destination.route] for hop in hops.values()}
        waiting = [work for hop in hops.values() for work in hop.drain()]
        for hop in hops.values():
            if not hop.busy:
                self._replaced.pop(hop, None)
        self._stop_unused()
        for work in waiting:
            self._settler.put_back(work)

    def _stop_unused(self) -> None:
        for transport in self._unused.difference(self._replaced.values()):
            self._unused.discard(transport)
            transport.stop()

    def limit(self, connections: int) -> None:
        """The most that may be open to all destinations from now on."""
        self._total.limit(connections)

    def down(self, to: Destination) -> Deferral | None:
        """Why nothing can be sent there now; None: it can."""
        known = self._breakers.get(to)
        if known is None or (to not in self._hops and self._clock.seconds() >= known.until):
            return None
        return known.outcome

    def standing(self, domain: str) -> Standing:
        """How it is with the way to ``domain`` (lower case)."""
        to = self.find(domain)
        known = self._breakers.get(to)
        full = to in self._hops and self._hops[to].load >= QUEUE_LIMIT
        if known is None:
            return Standing(to.route, to.name, full)
        left_alone = max(0.0, known.until - self._clock.seconds())
        return Standing(to.route, to.name, full, known.failures, left_alone, known.outcome)

    def give(self, to: Destination, work: Work, free: int) -> bool:
        """Have ``work`` delivered; False: it is new, and there is no room for it. ``free``: recipients of new mail for
        whom there is room in all. Nobody has more than that: those that are slow share, and there is always some for
        the others.
        """
        hop = self._hops.get(to)
        if hop is None:
            hop = self._open(to)
        elif hop.load > free and not work.waited:
            hop.wanted = True
            return False
        hop.add(work)
        return True

    def left(self, domain: str) -> None:
        """Something for ``domain`` waits in the spool again: see that it is found when it can be sent."""
        to = self.find(domain)
        hop = self._hops.get(to)
        if self._may_try(to):
            if hop is not None and hop.waiting > LOW_WATER:
                hop.wanted = True
            else:
                self._settler.look()

    def shares(self, domains: Sequence[str], limit: int, free: int) -> Sequence[tuple[str, int]]:
        """Of which of these domains to claim how many recipients, of ``limit`` in all. ``free``: for so many there is
        room; as with new mail, nobody has more than that."""
        up = [(domain, to) for domain in domains if self._may_try(to := self.find(domain))]
        # One share is left for those that become due later.
        share = max(1, limit // (len(up) + 1))
        room: dict[Destination, int] = {}
        shares: list[tuple[str, int]] = []
        for domain, to in up[:limit]:
            left = room.get(to)
            if left is None:
                left = self._room(to, free)
            if left > 0:
                shares.append((domain, min(share, left)))
            room[to] = left - share
        return shares

    def withdraw(self, wanted: Mapping[int, Container[int]]) -> list[Work]:
        """Give back what has not begun of these recipients, by the numbers of their messages and their indexes."""
        return [work for hop in list(self._hops.values()) for work in hop.withdraw(wanted)]

    def retry(self, domains: Iterable[str]) -> None:
        """Leave where these domains lead to alone no longer."""
        for to in {self.find(domain) for domain in domains}:
            self._breakers.end_pause(to)
        self._settler.look()

    def drain(self) -> list[Work]:
        """Begin nothing more; gives what had not begun."""
        return [work for hop in list(self._hops.values()) for work in hop.drain()]

    def cut(self) -> None:
        """End what is under way."""
        for hop in [*self._hops.values(), *self._replaced]:
            hop.cut()

    def stop(self) -> None:
        """All connections are closed."""
        for transport in {*self._transports.values(), *self._unused}:
            transport.stop()

    def _may_try(self, to: Destination) -> bool:
        known = self._breakers.get(to)
        if known is None:
            return True
        if to in self._hops:
            # It is being tried; what comes of that is told.
            return False
        if self._clock.seconds() >= known.until:
            return True
        self._settler.look_by(known.until)
        return False

    def _room(self, to: Destination, free: int) -> int:
        hop = self._hops.get(to)
        if hop is None:
            return min(QUEUE_LIMIT, free) if self._breakers.get(to) is None else 1
        room = min(QUEUE_LIMIT, free) - hop.load
        if room <= 0:
            hop.wanted = True
        return room

    def _open(self, to: Destination) -> Hop:
        transport = self._transports.get(to.route)
        if transport is None:
            transport = self._transports[to.route] = self._make_transport(to.route)
        first = FIRST_CONNECTIONS if self._breakers.get(to) is None else 1
        hop = self._hops[to] = Hop(
            transport,
            to,
            ramp=Ramp(to.route.connections, first),
            total=self._total,
            clock=self._clock,
            metrics=self._metrics,
            owner=self,
        )
        return hop

    # What hops tell (HopOwner).

    def settled(self, hop: Hop, work: Work, outcomes: Sequence[Outcome]) -> None:
        """It was tried."""
        self._settler.settle(work, outcomes)

    def put_back(self, hop: Hop, work: Work) -> None:
        """It was not tried."""
        self._settler.put_back(work)

    def unreachable(self, hop: Hop, work: Work, outcome: Outcome, waiting: Sequence[Work]) -> None:
        """Nobody answers: what waits is no worse for it, unless there will never be anybody."""
        if isinstance(outcome, Deferral):
            down = self._breakers.failed(hop.destination, outcome)
            self._settler.look_by(down.until)
            for one in waiting:
                self._settler.put_back(one)
            waiting = ()
        for one in (work, *waiting):
            self._settler.settle(one, [outcome] * len(one.recipients))

    def reached(self, hop: Hop) -> None:
        """What waits for a destination that was down can be tried."""
        if self._breakers.reached(hop.destination):
            _log.info("reached_again", next_hop=hop.destination.name)
            self._settler.look()

    def hungry(self, hop: Hop) -> None:
        """There is room for what had found none."""
        self._settler.look()

    def idle(self, hop: Hop) -> None:
        """Forget it."""
        if self._hops.get(hop.destination) is hop:
            del self._hops[hop.destination]
        if self._replaced.pop(hop, None) is not None:
            self._stop_unused()
