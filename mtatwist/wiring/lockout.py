"""The lockout before the checker of passwords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mtatwist.auth.gate import Gate
from mtatwist.auth.lockout import Lockout
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments


def make_gate(
    config: Config,
    reactor: Any,
    metrics: Instruments,
    *,
    checker: Any,
    submit: Callable[[Any, Any], Deferred[Any]],
    queue_time: Callable[[], float],
) -> Gate:
    """As ``[auth.lockout]`` says. ``checker`` is the backend's; ``submit`` the spool's."""
    settings = config.auth.lockout
    lockout = Lockout(
        threshold=settings.threshold,
        window=settings.window,
        duration=settings.duration,
        address_threshold=settings.address_threshold,
    )
    return Gate(
        checker,
        lockout,
        submit=submit,
        clock=reactor,
        now=queue_time,
        forgotten_after=settings.window,
        metrics=metrics,
    )
