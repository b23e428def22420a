"""The metrics as a page of the manual: ``python -m mtatwist.metrics.reference > docs/metrics.rst``."""

from __future__ import annotations

import re
import sys
import textwrap

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Histogram
from mtatwist.metrics.text import kind, prometheus_name

_INTRODUCTION = """\
.. Generated from mtatwist/metrics/instruments by: python -m mtatwist.metrics.reference

Metrics
=======

Everything that the server counts. :doc:`monitoring` says how to get at it: pushed to a collector, where metrics have
the names on this page, or fetched by Prometheus, which has names of its own for them.

A counter only grows, and begins at nothing when the server starts. A gauge goes up and down. A histogram counts
observations by size; its name at Prometheus gets ``_bucket``, ``_sum`` and ``_count``.

Several series of one metric differ in its attributes: each has the values that are named here, and no others, whatever
anybody sends. At Prometheus they are labels, with underscores: ``mtatwist_outcome``, ``error_type``.
"""


def rst() -> str:
    """The page."""
    lines = [_INTRODUCTION]
    area = ""
    seen: dict[str, list[Counter | Histogram]] = {}
    for one in Instruments():
        seen.setdefault(one.name, []).append(one)
    for name in sorted(seen, key=lambda name: (not name.startswith("mtatwist."), name)):
        group = seen[name]
        first = group[0]
        of = ".".join(name.split(".")[: 2 if name.startswith("mtatwist.") else 1])
        if of != area:
            area = of
            title = f"``{area}``"
            lines += [title, "-" * len(title), ""]
        unit = f", in ``{first.unit}``" if first.unit else ""
        words = re.sub(r"([\\`*|_])", r"\\\1", first.description)
        text = f"{words} ({kind(first)}{unit}). At Prometheus ``{prometheus_name(first)}``."
        values: dict[str, list[str]] = {}
        for attribute, value in (pair for one in group for pair in one.attributes.items()):
            if value not in values.setdefault(attribute, []):
                values[attribute].append(value)
        named = "; ".join(f"``{attribute}``: {', '.join(every)}" for attribute, every in values.items())
        text += f" By {named}." if named else ""
        lines += [f"``{name}``", *textwrap.wrap(text, 116, initial_indent="    ", subsequent_indent="    "), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(rst())
