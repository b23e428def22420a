"""Child processes that end with their test, and waiting for a condition instead of for a time."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from rigs.forked import Forked

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], seconds: float, what: str | Callable[[], str]) -> T:
    """The first true value of ``condition``; TimeoutError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return value


_kept: list[socket.socket] = []


def keep_port(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A port that nobody listens on, and that nobody is given, not even as a client, until the socket is closed.

    Connections to it are refused; a server that asks for it by its number may listen there, again and again: all that
    set SO_REUSEADDR may.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, port))
    return keeper


def free_port() -> int:
    """A loopback port that nobody listens on, for a server that cannot choose its own; it is kept as long as we run."""
    _kept.append(keep_port())
    port: int = _kept[-1].getsockname()[1]
    return port


def listens(port: int) -> bool:
    """Does somebody accept connections on this loopback port?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lacking(what: str) -> NoReturn:
    """Skip the test that calls this, saying what it needs; under CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(*programs: str) -> None:
    """Skip the test that calls this where a program is not installed; under CI that is a failure."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    for program in programs:
        if shutil.which(program, path=path) is None:
            lacking(f"needs {program}, which is not installed")


def need_perl(module: str) -> None:
    """Skip the test that calls this where a Perl module is not installed; under CI that is a failure."""
    need("perl")
    if subprocess.run(["perl", f"-M{module}", "-e1"], capture_output=True, check=False).returncode != 0:
        lacking(f"needs {module} for Perl, which is not installed")


def need_root(why: str) -> None:
    """Skip the test that calls this unless it runs as root; under CI that is a failure."""
    if os.geteuid() != 0:
        lacking(f"needs root: {why}")


def program(name: str) -> str:
    """Where a program is; those in sbin are found whoever asks."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path) or name


class Child:
    """A child process with its output in files; leaving the ``with`` ends it."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
        begin: Callable[..., Forked] | None = None,
    ) -> None:
        """``begin``: instead of subprocess.Popen."""
        self.stdout = directory / f"{name}.out"
        self.stderr = directory / f"{name}.err"
        self.process: subprocess.Popen[bytes] | Forked
        if begin is not None:
            self.stdout.touch()
            self.stderr.touch()
            self.process = begin(
                argv, directory=directory, environment=environment, stdout=self.stdout, stderr=self.stderr
            )
            return
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """All it has written so far."""
        return self.stdout.read_text("utf-8", "replace") + self.stderr.read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        if self.running:
            self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code (negative: the signal)."""
        deadline = time.monotonic() + seconds
        if self.process.poll() is None:
            # Popen.wait() looks only every now and then: in a measurement that would count.
            ended = os.pidfd_open(self.pid)
            select.select([ended], [], [], seconds)
            os.close(ended)
        # One that is traced has ended before it can be waited for.
        return self.process.wait(max(deadline - time.monotonic(), 0))

    def kill(self) -> None:
        """SIGKILL, and be sure that it is gone."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def end(self, seconds: float = 20) -> int:
        """SIGTERM; SIGKILL if that does not help in ``seconds``."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def status(self, field: str) -> str:
        """A line of /proc/PID/status."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == field:
                return value.strip()
        raise KeyError(field)

    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """The memory it has resident now, in bytes."""
        return int(self.status("VmRSS").split()[0]) * 1024

    def peak_memory(self) -> int:
        """The most memory it ever had resident, in bytes."""
        return int(self.status("VmHWM").split()[0]) * 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.running:
            self.kill()
