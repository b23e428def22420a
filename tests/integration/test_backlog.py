"""A large queue for next hops that are dead: nobody else notices it, and it costs next to nothing to have."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import apsw
import pytest
from rigs.backlog import fill
from rigs.client import Client
from rigs.mta import SPOOL, Config, Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

#: The most a server may use, whatever waits.
MEMORY = 150 * 1024 * 1024


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a next hop that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


def config(sink: Sink, silent: int) -> Config:
    """One destination lives, one refuses, one hangs."""
    return relaying_to(
        sink.port,
        route=[
            {"domain": domain, "transport": "smtp", "next_hop": f"127.0.0.1:{port}", "tls": "none"}
            for domain, port in (("dead.test", free_port()), ("silent.test", silent), ("*", sink.port))
        ],
    )


def seconds_to_start(mta: Mta) -> float:
    began = time.monotonic()
    mta.start()
    return time.monotonic() - began


def seconds_to_deliver(mta: Mta, sink: Sink, count: int) -> list[float]:
    """How long new messages to a destination that lives take, one after the other."""
    took = []
    with Client(mta.address()) as client:
        client.ehlo()
        for number in range(count):
            began = time.monotonic()
            before = len(sink.arrivals)
            assert (
                client.transaction("me@here.test", [f"new{number}@live.test"], b"Subject: x\r\n\r\nx\r\n").code == 250
            )
            sink.wait_for(before + 1)
            took.append(time.monotonic() - began)
    return took


def ask(data_dir: Path, question: str) -> int:
    with contextlib.closing(apsw.Connection(str(data_dir / SPOOL), flags=apsw.SQLITE_OPEN_READONLY)) as spool:
        spool.set_busy_timeout(5000)
        return int(next(spool.execute(question))[0])


@pytest.mark.campaign
@pytest.mark.parametrize("many", [False, True], ids=["one domain", "many domains"])
@pytest.mark.fresh_start
def test_a_backlog_is_in_nobodys_way(
    make_mta: MakeMta, sink: Sink, silent: int, long_campaign: bool, many: bool
) -> None:
    count = 200_000 if long_campaign else 20_000
    empty = make_mta(config(sink, silent))
    start_empty = seconds_to_start(empty)
    alone = sorted(seconds_to_deliver(empty, sink, 20))
    empty.stop()

    settings = config(sink, silent)
    if many:
        # All of them behind one smart host: to find what can be sent, the search has to pass all of their names.
        settings["route"][0]["domain"] = "*.dead.test"
    mta = make_mta(settings)
    dead = (f"{n}@d{n}.dead.test" if many else f"{n}@dead.test" for n in range(count - 1000))
    # Some for the one that hangs, and one for the one that lives, which came last.
    addresses = chain(dead, (f"{n}@silent.test" for n in range(1000)), ["waiting@zz.live.test"])
    waiting = fill(mta.data_dir, addresses)
    before = len(sink.arrivals)
    start_full = seconds_to_start(mta)
    sink.wait_for(before + 1, 30)
    assert sink.arrivals[-1].forward_paths == ("waiting@zz.live.test",)
    beside = sorted(seconds_to_deliver(mta, sink, 20))
    peak = mta.process.peak_memory()
    touched = ask(mta.data_dir, "SELECT count(*) FROM recipient WHERE attempts>0 OR claimed_by<>0")
    print(
        f"{waiting} waiting: start {start_full:.2f} s (empty {start_empty:.2f} s), a new message in"
        f" {beside[10] * 1e3:.1f} ms, at most {beside[-1] * 1e3:.1f} ms (empty {alone[10] * 1e3:.1f} ms),"
        f" peak memory {peak / 2**20:.0f} MiB, {touched} rows touched"
    )
    # The sink has its message before our record of that is on the disk.
    wait_until(lambda: mta.queued() == waiting - 1, 10, lambda: f"{mta.queued()} are queued")
    assert peak < MEMORY
    # What was in memory when the next hop turned out to be dead, and the attempts since.
    assert touched < 3000
    assert mta.stop() in (0, -15)
    assert ask(mta.data_dir, "SELECT count(*) FROM recipient WHERE claimed_by<>0") == 0
