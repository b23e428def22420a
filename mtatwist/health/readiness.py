"""Whether the server is ready for mail, and if not, why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

PATIENCE = 2.0
"""Seconds that a check may take before whoever asks is told that it takes too long."""

TOO_SLOW = f"no answer within {PATIENCE:g} s"

FRESH = 5.0
"""Seconds that what a check has found is good for: however often they are asked for, checks cost the same."""


class Phase(Enum):
    """Where the server stands between its start and its end. The value is the reason for not being ready."""

    STARTING = "starting"
    RUNNING = ""
    DRAINING = "draining"
    STOPPING = "stopping"


class NotReady(Exception):
    """A check says no; the message says why, and is fit for everybody to read."""


class Readiness:
    """Asks the checks, at once and each of them one question at a time."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object] | None]], *, clock: IReactorTime) -> None:
        """A check raises NotReady, at once or later; what it says else is not listened to."""
        self._checks = {name: _Check(name, check, clock) for name, check in checks.items()}
        self.phase = Phase.STARTING

    async def reasons(self) -> dict[str, str]:
        """What stands in the way, by the name of the check; nothing: the server is ready."""
        if self.phase in (Phase.STARTING, Phase.STOPPING):
            # There is nothing yet, or no more, that could be asked.
            return {"server": self.phase.value}
        found = {"server": self.phase.value}
        # All begin before the first is waited for.
        asked = {name: check.ask() for name, check in self._checks.items()}
        for name, answer in asked.items():
            found[name] = await answer
        return {name: reason for name, reason in found.items() if reason}


class _Check:
    """One check with its last answer. While it has not answered, it is not asked again."""

    def __init__(self, name: str, check: Callable[[], Awaitable[object] | None], clock: IReactorTime) -> None:
        self._name = name
        self._check = check
        self._clock = clock
        self._asking: Deferred[str] | None = None
        self._waiting: list[Deferred[str]] = []
        self._reason = ""
        self._asked_at = -FRESH

    def ask(self) -> Deferred[str]:
        """Why not; "" when all is well. Fires within PATIENCE."""
        age = self._clock.seconds() - self._asked_at
        if self._asking is None:
            if age < FRESH:
                return succeed(self._reason)
            self._asked_at = self._clock.seconds()
            self._asking = asking = Deferred.fromCoroutine(self._ask())
            asking.addCallback(self._answered)
            if asking.called:
                return succeed(self._reason)
        elif age >= PATIENCE:
            # Whoever asks now need not wait to hear that.
            return succeed(TOO_SLOW)
        answer: Deferred[str] = Deferred()
        self._waiting.append(answer)
        answer.addTimeout(PATIENCE, self._clock)
        return answer.addErrback(self._too_slow, answer)

    def _answered(self, reason: str) -> str:
        self._asking = None
        self._reason = reason
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(reason)
        return reason

    def _too_slow(self, failure: Failure, answer: Deferred[str]) -> str:
        failure.trap(TimeoutError)
        self._waiting.remove(answer)
        return TOO_SLOW

    async def _ask(self) -> str:
        try:
            answer: Any = self._check()
            if answer is not None:
                await answer
        except NotReady as error:
            return str(error)
        except Exception as error:
            # What such a message holds nobody knows: it is for the log.
            if not self._reason:
                _log.warn("check_failed", check=self._name, error=str(error), kind=type(error).__name__)
            return f"failed: {type(error).__name__}"
        return ""
