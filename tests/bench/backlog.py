"""Acceptance beside a large queue for a dead next hop, and beside an empty one."""

from __future__ import annotations

import shutil
import statistics
from itertools import count
from pathlib import Path

from measures import MEASURES
from rigs.backlog import fill
from rigs.client import Address
from rigs.loadpair import SmtpSink
from rigs.mta import Mta, relaying_to
from rigs.processes import free_port, wait_until

WAITING = 200_000

TARGET = 0.9
"""The least part of the speed beside an empty queue that we want."""


class Queueing:
    """A whole server, with a queue that nobody takes; new mail goes to the sink."""

    def __init__(self, directory: Path, sink: SmtpSink, waiting: int) -> None:
        self.name = f"{waiting} waiting"
        self._homes = (directory / f"{waiting}-{number}" for number in count())
        self._waiting = waiting
        self._config = relaying_to(
            sink.port,
            route=[
                {"domain": domain, "transport": "smtp", "next_hop": f"127.0.0.1:{port}", "tls": "none"}
                for domain, port in (("dead.test", free_port()), ("*", sink.port))
            ],
        )
        self._full = directory / f"full-{waiting}"
        fill(self._full, (f"{number}@dead.test" for number in range(waiting)))
        self._mta: Mta | None = None

    def accepting(self) -> Address:
        home = next(self._homes)
        home.mkdir()
        mta = self._mta = Mta(home, self._config)
        shutil.copytree(self._full, mta.data_dir)
        mta.start()
        # The next hop turns out to be dead, and what was in memory for it goes back: that is over soon.
        wait_until(
            lambda: any(event.get("event") == "unreachable" for event in mta.events()) or not self._waiting, 60, ""
        )
        return mta.address()

    def relaying(self) -> Address:
        return self.accepting()

    def settled(self) -> None:
        mta = self._mta
        assert mta is not None
        wait_until(lambda: mta.queued() == self._waiting, 60, lambda: f"{mta.queued()} are queued")
        self.close()
        shutil.rmtree(mta.data_dir)

    def close(self) -> None:
        mta, self._mta = self._mta, None
        if mta is not None:
            mta.__exit__(None, None, None)


def compare(directory: Path, sink: SmtpSink, *, runs: int, factor: float) -> tuple[float, float]:
    """Messages accepted in a second beside nothing and beside a backlog: the medians of runs that alternate."""
    measure = MEASURES["accept"].shortened(factor)
    contestants = [Queueing(directory, sink, waiting) for waiting in (0, max(1, int(WAITING * min(factor, 1.0))))]
    rates: list[list[float]] = [[], []]
    try:
        for _ in range(runs):
            for contestant, measured in zip(contestants, rates, strict=True):
                measured.append(measure.run(contestant, sink, directory))
    finally:
        for contestant in contestants:
            contestant.close()
    return statistics.median(rates[0]), statistics.median(rates[1])
