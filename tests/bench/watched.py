"""Does watching slow down mail? ``python -m tests.bench watched``: acceptance with metrics pushed each second, probes
each second and an event a message in the log, beside the same server with all three off. Without a peer to compare.

The collector takes the metrics, is not there, or never answers; runs alternate, and the medians are compared.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

from contestants import ACCEPT_ONLY
from measures import Measure
from rigs.client import Address
from rigs.collector import PATH, FakeCollector, Push
from rigs.loadpair import SmtpSink
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import keep_port

TARGET = 0.9
"""The least part of the speed of a server that nobody watches that we want."""

MEASURE = Measure("accept 5 kB, watched", 16000, 5120, True, False, TARGET)

COLLECTORS = ("takes all", "is down", "hangs")


class Server:
    """One that only stores. ``collector``: how the one behaves that it pushes metrics to; None: nobody watches it."""

    def __init__(self, directory: Path, collector: str | None) -> None:
        self.name = "not watched" if collector is None else f"watched, the collector {collector}"
        self._collector = collector
        self._homes = (directory / f"{self.name.replace(' ', '-').replace(',', '')}-{number}" for number in count())
        self._stack = contextlib.ExitStack()
        self._mta: Mta | None = None
        self._probes: Probes | None = None
        self._pushes: list[Push] = []

    def accepting(self) -> Address:
        home = next(self._homes)
        home.mkdir()
        mta = self._mta = Mta(home, self._config(self._collect()), command=ACCEPT_ONLY)
        self._stack.enter_context(mta)
        if self._collector is not None:
            self._probes = self._stack.enter_context(Probes(mta))
        return mta.address()

    def _collect(self) -> int:
        """The port to push to."""
        self._pushes = []
        if self._collector not in ("takes all", "hangs"):
            nobody = self._stack.enter_context(keep_port())
            return int(nobody.getsockname()[1])
        collector = self._stack.enter_context(FakeCollector())
        if self._collector == "hangs":
            collector.behave = collector.hang
        self._pushes = collector.pushes
        return collector.port

    def relaying(self) -> Address:
        return self.accepting()

    def _config(self, port: int) -> Config:
        if self._collector is None:
            return relaying_to(9, log={"level": "error"})
        watching: dict[str, Any] = {
            "metrics": {"endpoint": f"http://127.0.0.1:{port}{PATH}", "interval": "1s"},
            "health": {"endpoint": "tcp:0:interface=127.0.0.1"},
        }
        return relaying_to(9, **watching)

    def settled(self) -> None:
        """Nothing is measured that did not run."""
        mta, probes = self._mta, self._probes
        assert mta is not None
        logged = sum(event.get("event") == "accepted" for event in mta.events())
        if self._collector is None:
            assert not logged, "it writes its log"
        else:
            assert probes is not None and probes.answers.count(200) > 0, "no probe was answered"
            assert logged, "it writes no log"
        if self._collector in ("takes all", "hangs"):
            assert self._pushes, "nothing was pushed"
        elif self._collector is not None:
            assert any(event.get("event") == "metrics_push_failed" for event in mta.events()), "no push failed"
        self.close()
        if mta.complaints():
            raise AssertionError(mta.complaints()[0])

    def close(self) -> None:
        self._mta = None
        self._stack.close()


class Probes:
    """Somebody who asks each second whether the server is ready.

    :ivar answers: the codes that came.
    """

    def __init__(self, mta: Mta) -> None:
        (start,) = [event for event in mta.events() if event.get("event") == "start"]
        self._port = int(start["health"]["port"])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[int] = []

    def _run(self) -> None:
        while not self._over.is_set():
            asked = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
                connection.request("GET", "/health/ready")
                self.answers.append(connection.getresponse().status)
                connection.close()
            self._over.wait(max(0.0, 1 - (time.monotonic() - asked)))

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(20)


def compare(directory: Path, sink: SmtpSink, *, runs: int, factor: float) -> tuple[float, dict[str, float]]:
    """Messages accepted in a second: by a server that nobody watches, and by watched ones, by their collectors. Medians
    of runs that alternate."""
    measure = MEASURE.shortened(factor)
    servers = [Server(directory, collector) for collector in (None, *COLLECTORS)]
    rates: list[list[float]] = [[] for _ in servers]
    try:
        for _ in range(runs):
            for server, measured in zip(servers, rates, strict=True):
                measured.append(measure.run(server, sink, directory))
    finally:
        for server in servers:
            server.close()
    alone, *watched = (statistics.median(each) for each in rates)
    return alone, dict(zip(COLLECTORS, watched, strict=True))
