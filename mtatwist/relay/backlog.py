"""Looking for what is due in the spool: round the domains, so that many messages for one never hide another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mtatwist.envelope import Message
from mtatwist.log import EventLogger
from mtatwist.store.trouble import StoreBroken, trouble_of

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool
    from mtatwist.metrics.instruments import Instruments

_log = EventLogger()

DOMAINS_LIMIT = 1000
"""Domains visited at once."""

CLAIM_LIMIT = 200
"""Recipients claimed at once."""

LATE_LIMIT = 100
"""Recipients claimed at once because of their age."""

LATE_SECONDS = 30.0
"""How often messages are looked for that have become late, or too old."""

SCAN_SECONDS = 60.0
"""Longest time between two looks: the bound on the harm of a missed wake-up or a clock that jumped."""

PAUSE_SECONDS = 0.02
"""Shortest time between two looks."""

REST = 3.0
"""How many times as long as a fruitless visit took to wait before the next: of many domains few may be due."""

FIRST_CLAIMS = 100
"""Recipients claimed in the first second after the start; the total doubles with each second."""

RAMP_SECONDS = 20.0
"""When that ends."""


class Backlog:
    """Claims due work in bounded batches, domain after domain, as far as there is room for it."""

    def __init__(
        self,
        spool: ISpool,
        *,
        take: Callable[[Message, bool], None],
        shares: Callable[[Sequence[str], int, int], Sequence[tuple[str, int]]],
        room: Callable[[], int],
        ages: Sequence[tuple[float, bool]],
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: Instruments,
    ) -> None:
        """``take`` gets each claimed message, and whether it was claimed for its age; ``shares`` says how many
        recipients to claim of which of these domains, of so many in all, when there is room for so many; ``room`` for
        how many that is.

        ``ages``: seconds after which a message is claimed, due or not, so that its sender can be told; with True
        only if the sender has not been told yet.
        """
        self._spool = spool
        self._take = take
        self._shares = shares
        self._room = room
        self._ages = ages
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._running = False
        self._looking = False
        self._timer: IDelayedCall | None = None
        self._next = 0.0  # on the clock; while looking, when to look again
        self._again = False
        self._short = False
        self._start = ""  # the domain that is the next one's turn
        self._started = 0.0
        self._claimed = 0
        self._late_at = 0.0
        self._after = [0] * len(ages)

    def start(self) -> None:
        """Begin, slowly: after an outage of ours, the first to be due are everybody's."""
        self._running = True
        self._started = self._late_at = self._clock.seconds()
        self._look()

    def stop(self) -> None:
        """Begin no other look. One that is under way may still give what it has claimed to ``take``."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def use(self, ages: Sequence[tuple[float, bool]]) -> None:
        """Look for messages of these ages from now on."""
        self._ages = ages
        self._after = [0] * len(ages)

    def look(self) -> None:
        """There may be something now that was not to be had before."""
        self._again = True
        self.look_by(self._clock.seconds())

    def look_by(self, at: float) -> None:
        """Look at ``at`` on the clock, if not before."""
        if self._looking:
            self._next = min(self._next, at)
        elif self._timer is not None:
            delay = max(at - self._clock.seconds(), PAUSE_SECONDS)
            if self._timer.getTime() > self._clock.seconds() + delay:
                self._timer.reset(delay)

    def due_by(self, due: float) -> None:
        """Something becomes due at ``due``, in the queue's time."""
        self.look_by(self._clock.seconds() + due - self._wall())

    def room_again(self) -> None:
        """Some work is done: was the look ended early for want of room?"""
        if self._short and self._room() >= CLAIM_LIMIT:
            self._short = False
            self.look()

    def _look(self) -> None:
        self._timer = None
        self._looking = True
        self._next = self._clock.seconds() + SCAN_SECONDS
        Deferred.fromCoroutine(self._round()).addBoth(self._looked)

    def _looked(self, result: Failure | None) -> None:
        """A look ended, well or not: there is always another."""
        self._looking = False
        now = self._clock.seconds()
        if isinstance(result, Failure):
            self._metrics.relay_errors.value += 1
            error = result.value
            if not isinstance(error, StoreBroken) and (error is None or trouble_of(error) is None):
                # Trouble with the disk is told by the spool.
                _log.failure("scan_failed", result)
            self._next = now + 1.0
        if self._running:
            self._timer = self._clock.callLater(max(self._next - now, PAUSE_SECONDS), self._look)

    async def _round(self) -> None:
        if self._clock.seconds() >= self._late_at:
            await self._claim_late()
        more = True
        while more and self._running:
            self._again = False
            now = self._wall()
            more = await self._pass(now) or self._again
        due = await self._spool.next_due(now)
        if due is not None:
            self.due_by(due)

    async def _pass(self, now: float) -> bool:
        """From the domain whose turn it is to the last one; True when another pass may find more."""
        start, self._start = self._start, ""
        more = bool(start)
        following: str | None = start
        while following is not None and self._running:
            if self._allowed() <= 0:
                self._start = following
                return False
            began = self._clock.seconds()
            domains, following = await self._spool.due_domains(now, following, DOMAINS_LIMIT)
            fruitful = False
            for first in range(0, len(domains), CLAIM_LIMIT):
                room = self._allowed()
                if room <= 0:
                    self._start = domains[first]
                    return False
                shares = self._shares(domains[first : first + CLAIM_LIMIT], min(room, CLAIM_LIMIT), self._room())
                if shares:
                    fruitful = await self._claim(now, shares) or fruitful
            more = more or fruitful
            took = self._clock.seconds() - began
            if following is not None and not fruitful and took:
                await deferLater(self._clock, REST * took)
        return more

    async def _claim(self, now: float, shares: Sequence[tuple[str, int]]) -> bool:
        messages = await self._spool.claim_due(now, shares)
        for message in messages:
            self._claimed += len(message.envelope.recipients)
            self._take(message, False)
        if not messages:
            # It was due, and yet was not there to be claimed: whatever the reason, it will not wait for a minute.
            self.look_by(self._clock.seconds() + 1.0)
        return bool(messages)

    def _allowed(self) -> int:
        """How many recipients may be claimed now; if none, it is seen to that there is another look."""
        room = self._room()
        if room <= 0:
            self._short = True
            self.look_by(self._clock.seconds() + 1.0)
            return 0
        since = self._clock.seconds() - self._started
        if since < RAMP_SECONDS:
            room = min(room, int(FIRST_CLAIMS * 2**since) - self._claimed)
            if room <= 0:
                self.look_by(self._clock.seconds() + 0.5)
        return room

    async def _claim_late(self) -> None:
        """Whatever their destination is like, senders are told when their mail is late, and when it is too old."""
        self._late_at = self._clock.seconds() + LATE_SECONDS
        after = self._after
        for which, (age, unwarned) in enumerate(self._ages):
            if self._allowed() <= 0:
                return
            late = await self._spool.claim_late(self._wall() - age, after[which], unwarned, LATE_LIMIT)
            # To the end, and again from the beginning; who has been looked at for a warning needs no second look.
            if late:
                after[which] = late[-1].number
                self._late_at = self._clock.seconds() + 1.0
                self.look_by(self._late_at)
            elif not unwarned:
                after[which] = 0
            for message in late:
                self._take(message, True)
