"""Postfix's load pair, smtp-source and smtp-sink, as processes of ours."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from rigs.client import Address
from rigs.processes import Child, free_port, listens, program, wait_until

_COUNTERS = re.compile(rb"mesg=(\d+)")


def smtp_source(
    address: Address,
    directory: Path,
    *,
    messages: int,
    size: int,
    sessions: int = 20,
    reuse: bool = True,
    seconds: float = 300,
) -> float:
    """Send ``messages`` of ``size`` bytes; how many seconds it took. Every one must be taken."""
    host, port = address
    argv = [
        program("smtp-source"),
        *("-d" if reuse else "",) * reuse,
        *("-s", str(sessions), "-m", str(messages), "-l", str(size)),
        *("-M", "client.test", "-f", "sender@client.test", "-t", "someone@sink.test"),
        f"inet:{host}:{port}",
    ]
    started = time.monotonic()
    with Child(argv, directory, "smtp-source") as child:
        code = child.wait(seconds)
        took = time.monotonic() - started
        if code != 0:
            raise AssertionError(f"smtp-source ended with {code}: {child.output()[-2000:]}")
    return took


class SmtpSink(Child):
    """smtp-sink on a port of its own; it counts and forgets."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(
            [program("smtp-sink"), *user, "-c", *options, f"inet:127.0.0.1:{self.port}", "1024"],
            directory,
            f"smtp-sink-{self.port}",
        )
        wait_until(lambda: listens(self.port), 10, "smtp-sink listens")

    def count(self) -> int:
        """How many messages it has taken."""
        with self.stdout.open("rb") as counters:
            counters.seek(max(0, self.stdout.stat().st_size - 200))
            found = _COUNTERS.findall(counters.read())
        return int(found[-1]) if found else 0

    def wait_for(self, count: int, seconds: float) -> None:
        wait_until(lambda: self.count() >= count, seconds, lambda: f"{self.count()} of {count} arrived")
