"""The queue's time runs on steadily, whatever happens to the machine's clock."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mtatwist.metrics.instruments import Instruments
from mtatwist.store.queue_time import LOOK_SECONDS, KeptTime, QueueTime

BEGIN = 1_800_000_000.0
DAY = 86400.0
HOUR = 3600.0


class Machine:
    """A monotonic clock, and one that can be set."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(5_000)
        self.set = BEGIN - 5_000
        self.kept: list[float] = []
        self.disk_works = True
        self.metrics = Instruments()
        self.time = QueueTime(wall=self.wall, clock=self.clock, keep=self._keep, metrics=self.metrics)

    def wall(self) -> float:
        return self.clock.seconds() + self.set

    def _keep(self, ahead: float) -> Deferred[Any]:
        if not self.disk_works:
            return fail(OSError("full"))
        self.kept.append(ahead)
        return succeed(None)

    def start(self, ahead: float = 0.0, newest: float | None = None, last_due: float | None = None) -> None:
        self.time.start(KeptTime(ahead, newest, last_due), 4 * HOUR)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([1.0] * round(seconds))


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("jump", [6 * DAY, -HOUR, -3 * DAY, 30 * 365 * DAY])
def test_a_jump_is_not_seen_at_all(machine: Machine, jump: float) -> None:
    machine.start()
    machine.pass_time(100)
    machine.set += jump
    assert machine.time.now() == pytest.approx(BEGIN + 100)
    for passed in range(101, 160):
        machine.pass_time(1)
        assert machine.time.now() == pytest.approx(BEGIN + passed)
    assert machine.metrics.clock_jumps.value == 1
    assert machine.kept == [pytest.approx(-jump)]


def test_what_is_shown_is_in_the_time_of_the_clock_as_it_is_now(machine: Machine) -> None:
    machine.start()
    came = machine.time.now()
    machine.set += 6 * DAY
    machine.pass_time(LOOK_SECONDS)
    assert machine.time.shown(came) == pytest.approx(BEGIN + 6 * DAY)
    assert machine.time.shown(machine.time.now()) == pytest.approx(machine.wall())


def test_drift_is_followed(machine: Machine) -> None:
    machine.start()
    for _ in range(600):
        machine.pass_time(1)
        machine.set += 0.01
    machine.pass_time(LOOK_SECONDS)
    assert machine.time.now() == pytest.approx(machine.wall())
    assert machine.metrics.clock_jumps.value == 0
    assert machine.kept == []


def test_a_restart_goes_on_in_the_same_time(machine: Machine) -> None:
    machine.start(ahead=-6 * DAY, newest=BEGIN - 6 * DAY - 60)
    assert machine.time.now() == pytest.approx(BEGIN - 6 * DAY)
    machine.pass_time(60)
    assert machine.kept == []


def test_time_while_we_were_not_running_has_passed(machine: Machine) -> None:
    """Nobody can know whether the clock was set or the machine was off."""
    machine.start(newest=BEGIN - 6 * DAY)
    assert machine.time.now() == pytest.approx(BEGIN)


def test_a_machine_that_lost_its_clock_goes_on_with_its_newest_message(machine: Machine) -> None:
    machine.set = -5_000.0
    machine.start(newest=BEGIN, last_due=BEGIN + HOUR)
    assert machine.time.now() == pytest.approx(BEGIN)
    assert machine.kept == [pytest.approx(BEGIN)]
    # NTP finds it again.
    machine.set = BEGIN - 5_000
    machine.pass_time(60)
    assert machine.time.now() == pytest.approx(BEGIN + 60)
    assert machine.kept[-1] == pytest.approx(0, abs=1)


def test_planned_attempts_bear_witness_to_the_time_too(machine: Machine) -> None:
    machine.set -= 3 * DAY
    machine.start(newest=BEGIN - 3 * DAY, last_due=BEGIN + HOUR)
    assert machine.time.now() == pytest.approx(BEGIN + HOUR - 4 * HOUR)


def test_with_an_empty_queue_it_begins_anew(machine: Machine) -> None:
    machine.start(ahead=-6 * DAY)
    assert machine.time.now() == pytest.approx(BEGIN)
    assert machine.kept == [0.0]


def test_what_could_not_be_kept_is_kept_later(machine: Machine) -> None:
    machine.start()
    machine.disk_works = False
    machine.set += DAY
    machine.pass_time(60)
    assert machine.kept == []
    machine.disk_works = True
    machine.pass_time(60)
    assert machine.kept == [pytest.approx(-DAY)]
    assert machine.metrics.clock_jumps.value == 1


def test_after_the_stop_nobody_looks(machine: Machine) -> None:
    machine.start()
    machine.time.stop()
    machine.time.stop()
    assert machine.clock.getDelayedCalls() == []
