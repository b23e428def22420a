"""SIGHUP, by which a server is told to read again what has changed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service


class Hangup(Service):
    """Calls ``reload`` in the reactor's thread for each SIGHUP, which would end the process otherwise."""

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._before: Any = signal.SIG_DFL

    def startService(self) -> None:
        """From now on."""
        super().startService()
        self._before = signal.signal(signal.SIGHUP, self._told)

    def stopService(self) -> None:
        """Never die of it while the last transactions end."""
        super().stopService()
        signal.signal(signal.SIGHUP, signal.SIG_IGN if self._before == signal.SIG_DFL else self._before)

    def _told(self, number: int, frame: object) -> None:
        # Whatever is under way in this thread goes on first.
        self._reactor.callFromThread(self._reload)
