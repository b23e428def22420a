"""How long mtactl takes to look at a large queue: from its start to its end, and of that the server's answer."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from rigs.backlog import fill
from rigs.control import SOCKET, mtactl
from rigs.mta import Mta, relaying_to

from mtatwist.control.client import Client
from mtatwist.control.commands import QueueList, QueueShape, QueueStats

WAITING = 200_000

LIMIT = 1.0
"""Seconds that a verb may take."""

VERBS = {
    "queue list, first page": (["queue", "list", "--limit", "100"], QueueList),
    "queue stats": (["queue", "stats"], QueueStats),
    "queue shape": (["queue", "shape"], QueueShape),
}

BOUNDED = ("queue list, first page", "queue stats")
"""Those for which the limit is meant."""


def measure(directory: Path, *, runs: int, factor: float) -> dict[str, tuple[float, float]]:
    """For each verb the medians, in seconds: mtactl, and the answer alone."""
    home = directory / "looks"
    home.mkdir()
    mta = Mta(home, relaying_to(9))
    fill(mta.data_dir, (f"user{n}@domain{n % 500}.test" for n in range(max(1, int(WAITING * min(factor, 1.0))))))
    medians = {}
    with mta:
        for name, (words, command) in VERBS.items():
            whole, answers = [], []
            for _ in range(runs):
                began = time.perf_counter()
                done = mtactl(mta, *words)
                whole.append(time.perf_counter() - began)
                assert done.returncode == 0, done.stderr
                with Client(str(mta.data_dir / SOCKET)) as client:
                    began = time.perf_counter()
                    client.ask(command)
                    answers.append(time.perf_counter() - began)
            medians[name] = statistics.median(whole), statistics.median(answers)
    return medians
