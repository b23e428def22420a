"""What the process itself takes: processor time, memory, descriptors, threads, and how late the reactor is."""

from __future__ import annotations

import os
import resource
import threading
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

LAG_SECONDS = 1.0
"""Time between two looks at how late a timer fires."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessWatch(Service):
    """Measures the reactor's lag while it runs; :meth:`read` reads the rest when somebody wants to know."""

    def __init__(self, clock: IReactorTime, metrics: Instruments) -> None:
        """``clock`` must be monotonic."""
        self._clock = clock
        self._metrics = metrics
        self._began = clock.seconds()
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._look_again()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def read(self) -> None:
        """Bring the instruments up to date: a few system calls, none of which waits for a disk."""
        metrics = self._metrics
        usage = resource.getrusage(resource.RUSAGE_SELF)
        metrics.cpu_user.value = usage.ru_utime
        metrics.cpu_system.value = usage.ru_stime
        metrics.threads.value = threading.active_count()
        metrics.uptime.value = self._clock.seconds() - self._began
        try:
            with open("/proc/self/statm", "rb") as statm:
                metrics.memory.value = int(statm.read().split()[1]) * _PAGE
            # One of them is that of the listing.
            metrics.descriptors.value = len(os.listdir("/proc/self/fd")) - 1
        except OSError:
            # No descriptor is left, or /proc is not there: what was read last stands.
            return

    def _look_again(self) -> None:
        self._timer = self._clock.callLater(LAG_SECONDS, self._look, self._clock.seconds() + LAG_SECONDS)

    def _look(self, due: float) -> None:
        self._metrics.reactor_lag.observe(max(0.0, self._clock.seconds() - due))
        self._look_again()
