"""The lockout with what it keeps in the store: read once, written after every change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mtatwist.auth.client import counted_network
from mtatwist.auth.credentials import AuthUnavailable
from mtatwist.auth.lockout import Lock, Lockout
from mtatwist.store import lockouts

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

TIDY_SECONDS = 30.0
"""Time between two looks for what the lockout may forget, while there is anything."""


class DurableLockout:
    """Brings ``lockout`` from the store and back."""

    def __init__(
        self,
        lockout: Lockout,
        *,
        submit: Callable[[Any, Any], Deferred[Any]],
        clock: IReactorTime,
        now: Callable[[], float],
        metrics: Instruments,
    ) -> None:
        """``submit`` has the store's writer do a job; ``now`` gives the queue's time."""
        self._lockout = lockout
        self._submit = submit
        self._clock = clock
        self._now = now
        self._metrics = metrics
        self._restored = False
        self._timer: IDelayedCall | None = None

    async def restore(self) -> None:
        """At the first login, begin with what an earlier run left. Raises AuthUnavailable."""
        if self._restored:
            return
        try:
            saved = await self._submit(lockouts.load, self._lockout.oldest(self._now()))
        except Exception as error:
            raise AuthUnavailable("the lockout can't be read") from error
        # Others may have waited for the same.
        if not self._restored:
            self._restored = True
            self._lockout.restore(saved, self._now())
            self._watch()

    async def save(self) -> None:
        """Fires when all that has changed is on stable storage. Raises AuthUnavailable: what is not there may be
        forgotten, and must not be said."""
        changes = self._lockout.take_changes()
        self._watch()
        try:
            await self._submit(lockouts.save, changes)
        except Exception as error:
            self._lockout.give_back(changes)
            raise AuthUnavailable("the lockout can't be kept") from error

    def save_soon(self) -> None:
        """The same, and nobody waits for it."""
        if not self._lockout.changed:
            return
        # The store has said what was wrong, and the changes are tried again with the next ones.
        Deferred.fromCoroutine(self.save()).addErrback(lambda failure: failure.trap(AuthUnavailable))

    async def locks(self, *, user: str, limit: int | None, after: Lock | None) -> Sequence[Lock]:
        """Those that have not ended: see Lockout.locks(). Raises AuthUnavailable."""
        await self.restore()
        return self._lockout.locks(self._now(), user=user, limit=limit, after=after)

    async def unlock(self, name: str, address: str) -> Sequence[Lock]:
        """End the locks of a counted name, of an address, or with both of that pair: the locks there were. Raises
        AuthUnavailable."""
        await self.restore()
        network = counted_network(address.partition("/")[0]) if address else ""
        ended = self._lockout.unlock(name, network, self._now())
        await self.save()
        return ended

    def _watch(self) -> None:
        self._metrics.lockout_active.value = self._lockout.active
        if self._timer is None and not self._lockout.empty:
            self._timer = self._clock.callLater(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """Forget what has ended, though nobody logs in."""
        self._timer = None
        try:
            self._lockout.sweep(self._now())
            self.save_soon()
        except Exception:
            _log.failure("lockout_tidy_failed")
        self._watch()
