"""The servers under measurement, both with their queues below one directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from rigs.client import Address
from rigs.mta import Mta, relaying_to
from rigs.postfix import Postfix
from rigs.processes import wait_until

ACCEPT_ONLY = [sys.executable, str(Path(__file__).with_name("accept_only.py"))]


class Mtatwist:
    """A process for each measurement, so that none inherits a queue."""

    name = "mtatwist"

    def __init__(self, directory: Path, next_hop: int, options: Sequence[str] = ()) -> None:
        self._homes = (directory / f"mtatwist-{number}" for number in count())
        self._next_hop = next_hop
        self._options = options
        self._mta: Mta | None = None
        self._keeps = False

    def accepting(self) -> Address:
        return self._start(ACCEPT_ONLY)

    def relaying(self) -> Address:
        return self._start(None)

    def _start(self, command: Sequence[str] | None) -> Address:
        home = next(self._homes)
        home.mkdir()
        self._keeps = command is not None
        config = relaying_to(self._next_hop)
        self._mta = Mta(home, config, command=command, options=self._options).start()
        return self._mta.address()

    def settled(self) -> None:
        mta, self._mta = self._mta, None
        assert mta is not None
        if not self._keeps:
            wait_until(lambda: mta.queued() == 0, 60, "the queue is empty")
        mta.stop()
        complaints = mta.complaints()
        if complaints:
            raise AssertionError(complaints[0])

    def close(self) -> None:
        if self._mta is not None:
            self._mta.__exit__(None, None, None)


class Peer:
    """Postfix; it keeps its processes between measurements, which is to its advantage.

    What is on hold stays there to the end: the disk would still be busy with deletions in the next measurement.
    """

    name = "postfix"

    def __init__(self, postfix: Postfix) -> None:
        self._postfix = postfix

    def accepting(self) -> Address:
        return self._postfix.hold

    def relaying(self) -> Address:
        return self._postfix.relay

    def settled(self) -> None:
        wait_until(lambda: self._postfix.queued() == 0, 60, "Postfix has delivered all")
