"""Fixtures for tests of mtactl and the control socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control.queue_lab import Lab, connected
from rigs.pump import Pump

from mtatwist.control import live
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.sqlite import SqliteSpool


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """An empty queue, and mtactl beside it."""
    pump = Pump()
    spool = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    made = Lab(spool, pump)
    monkeypatch.setattr(live, "Client", connected(made))
    yield made
    spool.stop()
