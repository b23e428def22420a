"""The metrics as a page of the manual: ``python -m mtatwist.metrics.reference > docs/metrics.rst``."""

from __future__ import annotations

import re
import sys
import textwrap

from mtatwist.metrics.instruments import Counter, Histogram, Instruments
from mtatwist.metrics.text import kind, prometheus_name

_INTRODUCTION = """\
.. Generated from mtatwist/metrics/instruments.py by: python -m mtatwist.metrics.reference

Metrics
=======

Everything that the server counts. :doc:`monitoring` says how to get at it: pushed to a collector, where metrics have
the names on this page, or fetched by Prometheus, which has names of its own for them.

A counter only grows, and begins at nothing when the server starts. A gauge goes up and down. A histogram counts
observations by size; its name at Prometheus gets ``_bucket``, ``_sum`` and ``_count``.
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
        if any(one.attributes for one in group):
            named = ", ".join(f"``{key}={value}``" for one in group for key, value in one.attributes.items())
            text += f" By {named}."
        lines += [f"``{name}``", *textwrap.wrap(text, 116, initial_indent="    ", subsequent_indent="    "), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(rst())
