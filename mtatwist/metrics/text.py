"""The instruments as Prometheus reads them: its text format, version 0.0.4.

Names are made as OpenTelemetry's compatibility specification says: dots become underscores, the unit and, for counters,
"total" are appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNITS = {"s": "seconds", "By": "bytes", "d": "days"}


def prometheus_name(one: Counter | Histogram) -> str:
    """What Prometheus calls the metric of this instrument."""
    name = re.sub(r"[^a-zA-Z0-9_]+", "_", one.name)
    unit = _UNITS.get(one.unit, "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return name if isinstance(one, Gauge | Histogram) else f"{name}_total"


def kind(one: Counter | Histogram) -> str:
    """What Prometheus calls its type."""
    if isinstance(one, Histogram):
        return "histogram"
    return "gauge" if isinstance(one, Gauge) else "counter"


def render(instruments: Iterable[Counter | Histogram]) -> bytes:
    """All of them; those that share a name stand together."""
    metrics: dict[str, list[Counter | Histogram]] = {}
    for one in instruments:
        metrics.setdefault(prometheus_name(one), []).append(one)
    return "".join(line for name, group in metrics.items() for line in _metric(name, group)).encode()


def _metric(name: str, group: list[Counter | Histogram]) -> Iterator[str]:
    first = group[0]
    words = first.description.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {words}\n# TYPE {name} {kind(first)}\n"
    for one in group:
        if not isinstance(one, Histogram):
            yield f"{name}{_labels(one.attributes)} {_number(one.value)}\n"
            continue
        below = 0
        for bound, count in zip((*one.bounds, float("inf")), one.counts, strict=True):
            below += count
            yield f"{name}_bucket{_labels({**one.attributes, 'le': _number(bound)})} {below}\n"
        yield f"{name}_sum{_labels(one.attributes)} {_number(one.sum)}\n"
        yield f"{name}_count{_labels(one.attributes)} {below}\n"


def _labels(attributes: Mapping[str, str]) -> str:
    pairs = ",".join(f'{re.sub(r"[^a-zA-Z0-9_]", "_", name)}="{_escaped(value)}"' for name, value in attributes.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(value) if isinstance(value, int) else repr(value)
