"""Words to systemd: the datagrams of sd_notify(3), played with sockets of our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mtatwist.notify import Supervisor


class Systemd:
    """Its end of the socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name.replace("@", "\0"))
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The lines of each datagram since the last look."""
        datagrams = []
        while True:
            try:
                datagrams.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return datagrams


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    # The name of a socket is short; pytest's directories may be deep.
    monkeypatch.chdir(tmp_path)
    name = "notify" if request.param == "path" else f"@mtatwist-test-{os.getpid()}"
    it = Systemd(name)
    yield it
    it.socket.close()


def supervisor(systemd: Systemd, **environment: str) -> tuple[Supervisor, Clock]:
    clock = Clock()
    return Supervisor({"NOTIFY_SOCKET": systemd.name, **environment}, clock=clock, monotonic=lambda: 12.5), clock


def test_a_life(systemd: Systemd) -> None:
    ours, _ = supervisor(systemd)
    assert systemd.heard() == []
    ours.ready()
    assert [lines[0] for lines in systemd.heard()] == ["READY=1"]
    ours.reloading()
    assert systemd.heard() == [["RELOADING=1", "MONOTONIC_USEC=12500000", "STATUS=Reloading"]]
    ours.reloaded()
    assert systemd.heard() == [["READY=1", "STATUS=Taking mail"]]
    ours.stopping()
    # A reload that had been under way.
    ours.reloaded()
    assert [lines[0] for lines in systemd.heard()] == ["STOPPING=1"]


def test_the_watchdog_hears_of_us_twice_in_its_time(systemd: Systemd) -> None:
    ours, clock = supervisor(systemd, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    clock.advance(60)
    assert systemd.heard() == []
    ours.ready()
    ours.ready()
    systemd.heard()
    for _ in range(3):
        clock.advance(15)
        assert systemd.heard() == [["WATCHDOG=1"]]
    ours.stopping()
    systemd.heard()
    clock.advance(15)
    assert systemd.heard() == [["WATCHDOG=1"]]
    ours.stopped()
    clock.advance(60)
    assert systemd.heard() == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}],
)
def test_a_watchdog_that_is_not_ours_hears_nothing(systemd: Systemd, environment: dict[str, str]) -> None:
    ours, clock = supervisor(systemd, **environment)
    ours.ready()
    assert len(systemd.heard()) == 1
    assert clock.getDelayedCalls() == []


def test_one_who_does_not_read_does_not_stop_us(systemd: Systemd) -> None:
    ours, _ = supervisor(systemd)
    for _ in range(2000):
        ours.reloaded()
    assert systemd.heard()


@pytest.mark.parametrize("name", ["", "nowhere", "/nowhere/at/all", "@", "x" * 300, "a\0b"])
def test_nobody_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Supervisor({"NOTIFY_SOCKET": name}, clock=Clock())
    ours.ready()
    ours.stopping()
    ours.stopped()
