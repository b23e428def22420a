"""What is measured: each is a load, and how to know that it is done."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rigs.client import Address
from rigs.loadpair import SmtpSink, smtp_source


class Contestant(Protocol):
    """A server under measurement: one that only stores, and one that passes on."""

    name: str

    def accepting(self) -> Address:
        """Ready to take mail and keep it, with an empty queue."""

    def relaying(self) -> Address:
        """Ready to take mail and pass it on to the sink."""

    def settled(self) -> None:
        """Wait until nothing is under way, and throw away what was kept."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A load of ``messages`` of ``size`` bytes; ``target`` is the ratio to the peer that we want."""

    title: str
    messages: int
    size: int
    reuse: bool
    end_to_end: bool
    target: float

    def run(self, contestant: Contestant, sink: SmtpSink, directory: Path) -> float:
        """Messages in a second, until the last is acknowledged, or with ``end_to_end`` at the sink."""
        address = contestant.relaying() if self.end_to_end else contestant.accepting()
        self._load(address, directory, max(20, self.messages // 20), sink)
        # What earlier runs left to the disk is not to be paid in this one.
        os.sync()
        seconds = self._load(address, directory, self.messages, sink)
        contestant.settled()
        return self.messages / seconds

    def _load(self, address: Address, directory: Path, messages: int, sink: SmtpSink) -> float:
        before = sink.count()
        started = time.monotonic()
        smtp_source(address, directory, messages=messages, size=self.size, reuse=self.reuse)
        if self.end_to_end:
            sink.wait_for(before + messages, 300)
        return time.monotonic() - started

    def shortened(self, factor: float) -> Measure:
        messages = max(20, int(self.messages * factor))
        return Measure(self.title, messages, self.size, self.reuse, self.end_to_end, self.target)


MEASURES = {
    "accept": Measure("accept 5 kB, 20 reused sessions", 8000, 5120, True, False, 2.0),
    "accept-new": Measure("accept 5 kB, a session a message", 6000, 5120, False, False, 2.0),
    "accept-1mb": Measure("accept 1 MB, 20 reused sessions", 300, 1_000_000, True, False, 1.0),
    "relay": Measure("end to end 5 kB", 6000, 5120, True, True, 1.5),
    "relay-1mb": Measure("end to end 1 MB", 200, 1_000_000, True, True, 1.0),
}
