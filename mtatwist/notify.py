"""Telling systemd how we are: sd_notify(3) and sd_watchdog_enabled(3), which are datagrams to a UNIX socket."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Supervisor:
    """Who has started us and waits for word. Without one, nothing of this does anything.

    That a word can't be sent is no reason to stop serving: systemd's own limits tell it soon enough.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        *,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``environment`` has ``NOTIFY_SOCKET``, a path or (with "@") an abstract name, and with ``WatchdogSec=``
        ``WATCHDOG_USEC``. ``monotonic`` is CLOCK_MONOTONIC, in seconds."""
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._interval = _watchdog(environment)
        self._clock = clock
        self._monotonic = monotonic
        self._timer: IDelayedCall | None = None
        self._stopping = False

    def ready(self) -> None:
        """Every port is bound and the spool is open. From now on the reactor's life is its own proof."""
        self._tell("READY=1", "STATUS=Taking mail")
        if self._interval and self._timer is None:
            self._alive()

    def reloading(self) -> None:
        """The configuration is being read; :meth:`reloaded` must follow, whatever came of it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}", "STATUS=Reloading")

    def reloaded(self) -> None:
        """That is over."""
        if not self._stopping:
            self._tell("READY=1", "STATUS=Taking mail")

    def stopping(self) -> None:
        """The end has begun; it may take as long as ``TimeoutStopSec=`` says."""
        self._stopping = True
        self._tell("STOPPING=1", "STATUS=Finishing what is under way")

    def stopped(self) -> None:
        """Nothing follows."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _alive(self) -> None:
        self._timer = self._clock.callLater(self._interval, self._alive)
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # OSError: nobody is there, or has not read for long. ValueError: the name is none.
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.connect(self._address)
            to.send("\n".join(lines).encode())


def _watchdog(environment: Mapping[str, Any]) -> float:
    """Half of the time after which systemd takes us for hung, in seconds; 0: it does not look, or not at us."""
    text = environment.get("WATCHDOG_USEC", "")
    ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(text) / 2_000_000 if ours and text.isdecimal() else 0.0
