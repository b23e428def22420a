"""The kinds of instruments. Plain integers on the hot path; nobody reads them until they are pushed.

Instruments of one name differ in their attributes, and are one metric. Units are those of UCUM: "s", "By", and
"{message}" for what is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from types import MappingProxyType

CLASS = "mtatwist.reply.class"
ERROR = "error.type"
OUTCOME = "mtatwist.outcome"
REASON = "mtatwist.reason"
STATE = "mtatwist.state"
VERSION = "tls.protocol.version"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
"""Bounds of durations."""

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


def key_of(name: str, attributes: Mapping[str, str]) -> str:
    """What tells an instrument from all others: ``name{attribute=value}``."""
    words = ",".join(f"{attribute}={value}" for attribute, value in attributes.items())
    return f"{name}{{{words}}}" if words else name


class Counter:
    """A number that only grows."""

    __slots__ = ("attributes", "description", "name", "unit", "value")

    def __init__(
        self, name: str, description: str, unit: str = "", attributes: Mapping[str, str] = NO_ATTRIBUTES
    ) -> None:
        self.name = name
        self.description = description
        self.unit = unit
        self.attributes = attributes
        self.value: float = 0

    @property
    def key(self) -> str:
        """See key_of()."""
        return key_of(self.name, self.attributes)


class Gauge(Counter):
    """A number that goes up and down, and whose sum over several servers says nothing: an age, a time."""

    __slots__ = ()


class UpDownCounter(Gauge):
    """How many there are now: those of several servers can be added up."""

    __slots__ = ()


class Histogram:
    """Counts of observations by upper bound; ``counts`` has one more entry, for what exceeds them all."""

    __slots__ = ("attributes", "bounds", "counts", "description", "name", "sum", "unit")

    def __init__(
        self,
        name: str,
        description: str,
        bounds: tuple[float, ...],
        unit: str = "",
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
    ) -> None:
        self.name = name
        self.description = description
        self.unit = unit
        self.attributes = attributes
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    @property
    def key(self) -> str:
        """See key_of()."""
        return key_of(self.name, self.attributes)


def counters(name: str, description: str, unit: str, attribute: str, *values: str) -> tuple[Counter, ...]:
    """A counter of one metric for each of these values of ``attribute``."""
    return tuple(Counter(name, description, unit, {attribute: value}) for value in values)
