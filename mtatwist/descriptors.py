"""The process's file descriptors: how they are shared out, and what is said when there are none left."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

KEPT = 48
"""Descriptors for what is always there: the database and its readers, the threads that write bodies, the log, the
reactor, lookups, administration, and connections that are being turned away."""

SAY_SECONDS = 10.0
"""The log says it no more often than this: whoever exhausts descriptors must not fill the disk, too."""


class Shares(NamedTuple):
    """The most there may be at the same time: sessions, and connections to next hops."""

    sessions: int
    deliveries: int


def share_out(sessions: int, deliveries: int, listeners: int) -> Shares:
    """Raise the soft limit as far as is needed and the hard one lets us, and share what there is.

    A session takes two: its connection, and the file of a large message. Where there is little, the next hops get a
    fifth: mail that comes in must be able to leave.
    """
    wanted = 2 * sessions + deliveries + KEPT + listeners
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    there_are = shares(wanted if soft == resource.RLIM_INFINITY else soft, sessions, deliveries, listeners)
    if there_are != (sessions, deliveries):
        _log.info(
            "descriptors_limit",
            limit=soft,
            wanted=wanted,
            sessions=there_are.sessions,
            sessions_configured=sessions,
            deliveries=there_are.deliveries,
            deliveries_configured=deliveries,
        )
    return there_are


def shares(limit: int, sessions: int, deliveries: int, listeners: int) -> Shares:
    """What becomes of ``limit`` descriptors."""
    there_are = max(0, limit - KEPT - listeners)
    deliveries = max(1, min(deliveries, there_are // 5))
    return Shares(max(1, min(sessions, (there_are - deliveries) // 2)), deliveries)


@implementer(ILogObserver)
class Exhaustion:
    """Hears from Twisted that it had to close a connection it had no descriptor for, and counts it.

    Twisted keeps one descriptor in reserve, and with that accepts and closes whoever waits: nothing spins.
    """

    def __init__(self, clock: IReactorTime, metrics: Instruments) -> None:
        self._clock = clock
        self._metrics = metrics
        self._said_at = -SAY_SECONDS

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") != "twisted.internet.tcp.Port":
            return
        said = event.get("log_format") or ""
        if said.startswith("EMFILE recovery: Closed") or event.get("acceptError") in ("EMFILE", "ENFILE"):
            self._metrics.descriptors_exhausted.value += 1
            now = self._clock.seconds()
            if now - self._said_at >= SAY_SECONDS:
                self._said_at = now
                _log.warn("descriptors_exhausted", limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
