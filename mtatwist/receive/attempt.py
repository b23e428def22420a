"""One login that is being checked: it ends in time, whatever the checkers do."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mtatwist.auth.credentials import AuthUnavailable

LOGIN_SECONDS = 30.0
"""Time for one login: directories that fail over, and the delay after failures, are done long before."""


class Attempt:
    """``done`` fires once ``result`` is there: what the portal gave, or a Failure."""

    def __init__(self, pending: Deferred[Any], clock: IReactorTime) -> None:
        """``pending`` comes from Portal.login()."""
        self.done: Deferred[None] = Deferred()
        self.result: Any = None
        self._pending = pending
        self._timer = clock.callLater(LOGIN_SECONDS, self._late)
        pending.addBoth(self._came)

    def abandon(self) -> None:
        """Nobody wants the result any more."""
        if self.result is None:
            self._settle(Failure(AuthUnavailable("the session has ended")))
            self._pending.cancel()
        else:
            self._discard(self.result)

    def _late(self) -> None:
        self._settle(Failure(AuthUnavailable(f"no answer in {LOGIN_SECONDS:.0f} s")))
        self._pending.cancel()

    def _came(self, result: Any) -> None:
        if self.result is None:
            self._settle(result)
        else:
            self._discard(result)

    @staticmethod
    def _discard(result: Any) -> None:
        """The peer was told that it has failed, or is gone: an avatar that comes after all is sent away."""
        if not isinstance(result, Failure):
            _, _, logout = result
            with contextlib.suppress(Exception):
                logout()

    def _settle(self, result: Any) -> None:
        self.result = result
        if self._timer.active():
            self._timer.cancel()
        self.done.callback(None)
