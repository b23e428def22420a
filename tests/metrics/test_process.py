"""The process's own numbers are those that the kernel has."""

from __future__ import annotations

import os
import time

from twisted.internet.task import Clock

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.process import LAG_SECONDS, ProcessWatch


def test_what_the_kernel_says() -> None:
    metrics, clock = Instruments(), Clock()
    watch = ProcessWatch(clock, metrics)
    clock.advance(7)
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    before = len(os.listdir("/proc/self/fd")) - 1
    watch.read()
    assert metrics.descriptors.value == before
    assert 0 < metrics.cpu_user.value <= sum(os.times()[:2])
    assert metrics.memory.value > 1 << 20
    assert metrics.threads.value >= 1
    assert metrics.uptime.value == 7


def test_a_descriptor_more_is_seen() -> None:
    metrics = Instruments()
    watch = ProcessWatch(Clock(), metrics)
    watch.read()
    before = metrics.descriptors.value
    with open(os.devnull):
        watch.read()
        assert metrics.descriptors.value == before + 1


def test_a_busy_reactor_is_late() -> None:
    metrics, clock = Instruments(), Clock()
    watch = ProcessWatch(clock, metrics)
    watch.startService()
    clock.advance(LAG_SECONDS)
    assert (metrics.reactor_lag.count, metrics.reactor_lag.sum) == (1, 0)
    clock.advance(LAG_SECONDS + 0.3)
    assert metrics.reactor_lag.count == 2
    assert abs(metrics.reactor_lag.sum - 0.3) < 1e-9
    watch.stopService()
    assert clock.getDelayedCalls() == []
