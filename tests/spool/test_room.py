"""Room that runs short is told once, and once when it is back."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import room
from mtatwist.spool.ballast import Ballast
from mtatwist.spool.schema import WAL_LIMIT

MIB = 1 << 20


def test_it_is_told_once_whatever_sizes_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=0, f_frsize=MIB, f_favail=1000, f_files=1000)
    monkeypatch.setattr(room.os, "statvfs", lambda path: disk)
    clock: Any = Clock()
    made = room.Room(
        tmp_path,
        clock=clock,
        minimum_free=10 * MIB,
        ballast=Ballast(tmp_path / "ballast", 0, Instruments()),
        in_thread=lambda function: succeed(function()),
    )
    disk.f_bavail = WAL_LIMIT // MIB + 20
    made.start()

    def ask(free: int, size: int) -> bool:
        disk.f_bavail = free
        clock.advance(1)
        return made.enough_for(size)

    small, large = WAL_LIMIT // MIB + 1, WAL_LIMIT // MIB + 60
    with capturedLogs() as events:
        answers = [ask(large, 25 * MIB), ask(small, 25 * MIB), ask(small, 1000), ask(small, 25 * MIB)]
        answers += [ask(large, 1000), ask(large, 25 * MIB), ask(large, 25 * MIB)]
    assert answers == [True, False, True, False, True, True, True]
    assert [event["log_format"] for event in events] == ["room_short", "room_again"]
    assert events[0]["needed"] == WAL_LIMIT + 50 * MIB


def test_the_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    from rigs.pump import Pump

    from mtatwist.spool.sqlite import SqliteSpool

    pump: Any = Pump()
    spool = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())
    spool.start()
    modes = {name: os.stat(tmp_path / "data" / name).st_mode & 0o777 for name in os.listdir(tmp_path / "data")}
    spool.stop()
    assert {modes[name] for name in modes if name.startswith("spool.sqlite")} == {0o600}
