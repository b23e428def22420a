"""How many connections: to one next hop, as it bears them, and to all of them together."""

from __future__ import annotations

import math
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

FIRST_CONNECTIONS = 2
"""Connections that a next hop is tried with; each delivery allows one more."""

GROWTH = 0.01
"""Connections more for each delivery, once the next hop has shown how many it bears."""


class Ramp:
    """How many connections one next hop is to have: few at first, more with success, fewer after trouble."""

    def __init__(self, most: int, first: int = FIRST_CONNECTIONS) -> None:
        """``most``: what the administrator allows."""
        self._most = most
        self._allowed = float(min(first, most))
        self._bears = math.inf

    @property
    def allowed(self) -> int:
        """How many there may be now."""
        return int(self._allowed)

    def succeeded(self) -> None:
        """A delivery went well: soon there are as many as there may be, unless the next hop has complained."""
        growth = 1.0 if self._allowed < self._bears else GROWTH
        self._allowed = min(self._allowed + growth, self._most)

    def troubled(self, connections: int) -> None:
        """The next hop wants no more than so many."""
        self._allowed = self._bears = float(min(max(1, connections), self._most))


class Taker(Protocol):
    """Who takes connections from the total: a next hop."""

    def granted(self) -> None:
        """A connection has been taken for you, who were in line."""

    def make_room(self) -> None:
        """Close a connection that has nothing to do."""


class Connections:
    """The total. As long as there are some left, nobody takes more than are left: so a next hop gets half of them at
    most, those that want many share, and there is one for everybody who has none."""

    def __init__(self, limit: int, clock: IReactorTime) -> None:
        self._limit = limit
        self._clock = clock
        self._taken = 0
        self._line: dict[Taker, None] = {}
        self._resting: dict[Taker, None] = {}
        self._serving = False

    def limit(self, limit: int) -> None:
        """So many there may be from now on; who has one keeps it."""
        self._limit = limit
        self._serve_soon()

    @property
    def wanted(self) -> bool:
        """Does anybody wait who has none, and for whom none is on its way?"""
        return len(self._line) > self._limit - self._taken

    def take(self, taker: Taker, has: int) -> bool:
        """Take one more for ``taker``, who ``has`` some. Who has none and gets none is put in line."""
        if has < self._limit - self._taken and not self._line:
            self._taken += 1
            return True
        if not has and taker not in self._line:
            self._line[taker] = None
            if self._resting:
                next(iter(self._resting)).make_room()
            self._serve_soon()
        return False

    def give(self) -> None:
        """One is closed."""
        self._taken -= 1
        self._serve_soon()

    def rests(self, taker: Taker, resting: bool) -> None:
        """Does ``taker`` have connections without work?"""
        if resting:
            self._resting[taker] = None
        else:
            self._resting.pop(taker, None)

    def leave(self, taker: Taker) -> None:
        """``taker`` wants none any more."""
        self._line.pop(taker, None)
        self._resting.pop(taker, None)

    def _serve_soon(self) -> None:
        """Not at once: who gives one may be in the middle of something."""
        if self._line and self._taken < self._limit and not self._serving:
            self._serving = True
            self._clock.callLater(0, self._serve)

    def _serve(self) -> None:
        self._serving = False
        for taker in list(self._line)[: max(0, self._limit - self._taken)]:
            if taker in self._line:
                del self._line[taker]
                self._taken += 1
                taker.granted()
