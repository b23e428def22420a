"""What the database keeps of the lockout, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.pump import Pump

from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.lockouts import KEY_BYTES, Changes, Kept, Known, Oldest, Saved, load, save

LOCKED = Kept("alice", "", 50.0, 200.0, [])
COUNTED = Kept("bob", "192.0.2.1", 120.0, 0.0, [110.0, 120.0], {"ab12": 120.0})
OLD = Kept("", "192.0.2.1", 50.0, 0.0, [50.0])
KNOWN = Known("alice", "2001:db8::/64", 90.0)


class Runs:
    """A spool that is stopped and started between what is done."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def save(self, *changes: Changes) -> None:
        self._do(save, changes)

    def load(self, kept: float = 0.0, known: float = 0.0) -> Saved:
        (saved,) = self._do(load, [Oldest(kept, known)])
        assert isinstance(saved, Saved)
        return saved

    def _do(self, job: object, payloads: object) -> list[object]:
        pump = Pump()
        spool = SqliteSpool(self._data_dir, reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
        spool.start()
        try:
            return [pump.wait(spool.submit(job, each)) for each in payloads]  # type: ignore[arg-type,attr-defined]
        finally:
            spool.stop()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "data")


def test_what_was_kept_is_there_in_the_order_of_its_changes(runs: Runs) -> None:
    runs.save(Changes([COUNTED, LOCKED], [], [KNOWN], []))
    saved = runs.load()
    assert saved.kept == [LOCKED, COUNTED]
    assert saved.known == [KNOWN]


def test_the_key_is_made_once_and_is_nobody_else_s(runs: Runs, tmp_path: Path) -> None:
    key = runs.load().key
    assert len(key) == KEY_BYTES
    assert runs.load().key == key
    assert Runs(tmp_path / "other").load().key != key


def test_the_last_change_counts(runs: Runs) -> None:
    changed = COUNTED._replace(failures=[120.0])
    runs.save(Changes([LOCKED, COUNTED], [], [KNOWN]), Changes([changed], [("alice", "")], [], [KNOWN[:2]]))
    saved = runs.load()
    assert saved.kept == [changed]
    assert saved.known == []


def test_what_means_nothing_any_more_is_deleted_at_start(runs: Runs) -> None:
    runs.save(Changes([LOCKED, COUNTED, OLD], [], [KNOWN]))
    assert runs.load(kept=100.0, known=90.0).kept == [LOCKED, COUNTED]
    assert runs.load(known=91.0).known == []
    assert runs.load().kept == [LOCKED, COUNTED]
    assert runs.load().known == []
