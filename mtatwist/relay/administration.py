"""What somebody who looks after the queue does to it, beside the deliveries that go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.python.failure import Failure

from mtatwist.log import EventLogger
from mtatwist.spool.changes import FIRST, STATES, Answer, Found, Key, Request
from mtatwist.spool.views import LAST

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.relay.manager import RelayManager
    from mtatwist.relay.work import Work
    from mtatwist.spool.selection import Selection

_log = EventLogger()

T = TypeVar("T")

ACTIONS = tuple(STATES)
"""What can be done."""

CALL_SECONDS = 15.0
"""How long one call works before it gives a cursor."""

BATCH = 500
"""Recipients changed in one transaction: mail waits for it."""

ENDED = 200
"""The same, of those that are bounced or dropped: each may need a DSN."""

COUNTED = 20_000
"""Recipients counted at once, where nothing is changed."""

ROUNDS = 3
"""How often it is tried to get at recipients that were claimed in between."""

LONGEST_REASON = 500
"""Characters of a reason."""


class Changed(NamedTuple):
    """How many messages and recipients it was (or would be); ``active``: how many more were left, as they are being
    delivered right now. ``cursor``: hand it in as ``after`` to go on; None: that was all."""

    messages: int
    recipients: int
    active: int
    cursor: str | None


class Stopped(Exception):
    """The server stops: nothing more is changed."""


class Queue(Protocol):
    """What is asked of the spool."""

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

    def change(self, request: Request) -> Deferred[Answer]:
        """Do it to those of them that are still what was meant, and that nobody works on."""


@dataclass
class _Progress:
    """How far a change has come. ``last``: the last message that was counted."""

    after: Key
    last: int
    messages: int = 0
    recipients: int = 0
    active: int = 0

    @classmethod
    def from_cursor(cls, cursor: str | None) -> _Progress:
        if cursor is None:
            return cls(FIRST, 0)
        try:
            number, index, last = (int(part, 16) for part in cursor.split("."))
            if max(number, index, last) > LAST:
                raise ValueError
        except ValueError:
            raise ValueError(f'after: "{cursor[:60]}" is no cursor; take one that an answer has given') from None
        return cls((number, index), last)

    @property
    def cursor(self) -> str:
        number, index = self.after
        return f"{number:X}.{index:X}.{self.last:X}"

    def count(self, keys: list[Key]) -> None:
        self.recipients += len(keys)
        for number, _ in sorted(keys):
            # A message may be in two batches.
            if number != self.last:
                self.messages += 1
                self.last = number


class Administration:
    """Holds, releases, retries, bounces and drops recipients, in bounded steps, and never one that is on its way.

    What waits in memory for a connection is taken back first. A recipient belongs to one only: to the spool, to the
    next hop's queue, or to this; and the spool changes none that belongs to another.
    """

    def __init__(self, spool: Queue, manager: RelayManager, *, clock: IReactorTime, wall: Callable[[], float]) -> None:
        """``wall`` gives the queue's time."""
        self._spool = spool
        self._manager = manager
        self._clock = clock
        self._wall = wall
        self._turn = DeferredLock()

    async def change(
        self,
        action: str,
        selection: Selection,
        *,
        reason: str = "",
        by: str = "",
        after: str | None = None,
        dry_run: bool = False,
    ) -> Changed:
        """Do one of ACTIONS to those that are meant. ``reason``: stands in the DSN of a bounce, and in the log; there
        stands, too, ``by`` whose word it is done.

        ``hold``: not tried, nor returned for its age, until it is released; ``release``: those held are due now;
        ``retry``: those that wait are due now, and a destination that is left alone after trouble is tried at once;
        ``bounce``: failed, and the sender is told as for any failure; ``drop``: gone, and nobody is told.

        With ``dry_run`` it is only counted; what waits in memory for a connection counts as active then, though it
        could be changed. Once begun, a step is done to its end, even if nobody waits for it any more.

        Raises ValueError for what makes no sense, Stopped when the server stops, and what the spool raises.
        """
        if action not in STATES:
            raise ValueError(f'action: there is no "{action}"; it is one of {", ".join(ACTIONS)}')
        if len(reason) > LONGEST_REASON or not reason.isprintable():
            raise ValueError(f"reason: give one line of text, of {LONGEST_REASON} characters at most")
        progress = _Progress.from_cursor(after)
        began = self._clock.seconds()
        cursor: str | None = progress.cursor
        try:
            while cursor is not None:
                if dry_run:
                    step = self._count(action, selection, progress)
                else:
                    step = self._step(action, selection, reason, by, progress)
                more = await _to_its_end(self._alone(step))
                cursor = progress.cursor if more else None
                if self._clock.seconds() - began >= CALL_SECONDS:
                    break
        finally:
            # What was broken off may have changed something that is not counted.
            if not dry_run and (progress.recipients or cursor is not None):
                _log.info(
                    "queue_changed",
                    action=action,
                    selection=selection.given(),
                    reason=reason,
                    by=by,
                    messages=progress.messages,
                    recipients=progress.recipients,
                    active=progress.active,
                    finished=cursor is None,
                )
        return Changed(progress.messages, progress.recipients, progress.active, cursor)

    async def _alone(self, step: Coroutine[Any, Any, bool]) -> bool:
        """One step at a time, whoever asks."""
        await self._turn.acquire()
        try:
            if not self._manager.running:
                step.close()
                raise Stopped("the server is stopping")
            return await step
        finally:
            self._turn.release()

    async def _find(self, action: str, selection: Selection, progress: _Progress, limit: int) -> Found:
        return await self._spool.find(action, selection, self._wall(), progress.after, limit, self._manager.next_hop)

    async def _count(self, action: str, selection: Selection, progress: _Progress) -> bool:
        """Look at some; True: there may be more."""
        found = await self._find(action, selection, progress, COUNTED)
        progress.count([key for key in found.keys if key not in found.claimed])
        progress.active += len(found.claimed)
        return _go_on(progress, found)

    async def _step(self, action: str, selection: Selection, reason: str, by: str, progress: _Progress) -> bool:
        """Change some; True: there may be more."""
        found = await self._find(action, selection, progress, ENDED if action in ("bounce", "drop") else BATCH)
        done: list[Key] = []
        left = found.keys
        # What is claimed and yet due now is on its way.
        for _ in range(1 if action == "retry" else ROUNDS):
            if left:
                answer = await self._change(action, selection, reason, by, left)
                done += answer.done
                left = answer.busy
        if done and action in ("release", "retry"):
            self._manager.retry(found.domains)
        progress.count(done)
        progress.active += len(left)
        return _go_on(progress, found)

    async def _change(self, action: str, selection: Selection, reason: str, by: str, keys: list[Key]) -> Answer:
        wanted: dict[int, set[int]] = {}
        for number, index in keys:
            wanted.setdefault(number, set()).add(index)
        withdrawn = [] if action == "retry" else self._manager.withdraw(wanted)
        ours = frozenset((work.message.number, recipient.index) for work in withdrawn for recipient in work.recipients)
        try:
            answer = await self._spool.change(Request(action, selection, keys, ours, self._wall()))
        except BaseException:
            for work in withdrawn:
                self._manager.put_back(work)
            raise
        # Before what was withdrawn is let go: a server that stops waits for as long as there is something left.
        ended = [self._manager.end(message, action == "bounce", reason, by) for message in answer.messages]
        done = set(answer.done)
        for work in withdrawn:
            self._return(work, done)
        await gatherResults(ended)
        return answer

    def _return(self, work: Work, done: set[Key]) -> None:
        """What was changed is no longer in memory; the rest waits for another claim."""
        changed = [recipient for recipient in work.recipients if (work.message.number, recipient.index) in done]
        unchanged = [recipient for recipient in work.recipients if (work.message.number, recipient.index) not in done]
        if unchanged:
            self._manager.put_back(dataclasses.replace(work, recipients=unchanged))
        if changed:
            held = 0 if unchanged else work.held
            self._manager.let_go(dataclasses.replace(work, recipients=changed, held=held))


def _go_on(progress: _Progress, found: Found) -> bool:
    if found.following is None:
        return False
    progress.after = found.following
    return True


def _to_its_end(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Wait for it; who is cancelled while waiting cancels nothing else."""
    waiter: Deferred[T] = Deferred()

    def done(result: T | Failure) -> None:
        if not waiter.called:
            waiter.callback(result)
        elif isinstance(result, Failure):
            _log.failure("queue_change_failed", result)

    Deferred.fromCoroutine(coroutine).addBoth(done)
    return waiter
