"""The lockout before the checker of passwords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mtatwist.auth.gate import Gate
from mtatwist.auth.lockout import Lockout
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments


def make_thresholds(config: Config) -> dict[str, Any]:
    """What the lockout takes of the configuration."""
    return {
        name: getattr(config.auth.lockout, name) for name in ("threshold", "window", "duration", "address_threshold")
    }


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
    return Gate(
        checker,
        Lockout(**make_thresholds(config)),
        submit=submit,
        clock=reactor,
        now=queue_time,
        forgotten_after=settings.window,
        metrics=metrics,
    )
