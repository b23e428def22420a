"""What several instruments say together."""

from __future__ import annotations

from mtatwist.metrics.instruments import Instruments


def tried(metrics: Instruments, outcome: str) -> float:
    """Recipients with this outcome, wherever they went."""
    return sum(float(getattr(attempts, outcome).value) for attempts in metrics.relay.values())


def deliveries(metrics: Instruments) -> int:
    """Deliveries that were tried and timed, wherever they went."""
    return sum(attempts.seconds.count for attempts in metrics.relay.values())


def reports(metrics: Instruments) -> float:
    """DSNs of all kinds."""
    return metrics.reports_failed.value + metrics.reports_delayed.value + metrics.reports_succeeded.value


def crashes(metrics: Instruments) -> float:
    """Exceptions of all validators."""
    return sum(verdicts.crashed.value for verdicts in metrics.validators.values())
