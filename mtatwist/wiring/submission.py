"""What holds for those who have logged in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.submission import Submission
from mtatwist.validators.usage import Usage
from mtatwist.validators.window import Limit
from mtatwist.values.numbers import show_rate


def make_limits(config: Config) -> list[Limit]:
    """As ``[submission] messages`` and ``recipients`` say; none without the validator that asks for them."""
    settings = config.submission
    if "rate" not in config.validators.order:
        return []
    return [
        Limit(what, rate.count, rate.seconds, show_rate(rate))
        for what, rates in (("messages", settings.messages), ("recipients", settings.recipients))
        for rate in rates
    ]


def make_usage(
    config: Config,
    reactor: Any,
    metrics: Instruments,
    *,
    submit: Callable[[Any, Any], Deferred[Any]],
    queue_time: Callable[[], float],
) -> Usage:
    """What accounts send, counted. ``submit`` is the spool's. To be started, and stopped."""
    return Usage(make_limits(config), now=queue_time, clock=reactor, submit=submit, metrics=metrics)


def make_submission(config: Config, usage: Usage) -> Submission:
    """As ``[submission]`` says."""
    return Submission(
        delimiter=config.relay.recipient_delimiter, received_user=config.submission.received_user, usage=usage
    )
