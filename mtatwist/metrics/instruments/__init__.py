"""Every metric. Names, units and attributes are as OpenTelemetry's semantic conventions have them.

The instruments of one name add up to something that makes sense. The values of attributes are those of the tables, and
no others: nothing that a peer sends ever becomes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mtatwist.metrics.instruments.kinds import Counter, Histogram
from mtatwist.metrics.instruments.receiving import Receiving
from mtatwist.metrics.instruments.relaying import Relaying
from mtatwist.metrics.instruments.running import Running

_Instrument = Counter | Histogram


class Instruments(Receiving, Relaying, Running):
    """All metrics of one server."""

    def __init__(self) -> None:
        Receiving.__init__(self)
        Relaying.__init__(self)
        Running.__init__(self)

    def __iter__(self) -> Iterator[Counter | Histogram]:
        for one in vars(self).values():
            yield from _each(one)


def _each(one: _Instrument | Mapping[str, Iterable[_Instrument]]) -> Iterator[_Instrument]:
    """An instrument, or those of a table."""
    if isinstance(one, Counter | Histogram):
        yield one
        return
    for group in one.values():
        yield from group
