"""``twistd`` in a third of the time: each is forked from a process that has imported the libraries, not the server.

Most of a start is the import of libraries, and there are hundreds of starts. Whatever is of the server is imported,
configured and run in the child, by the same command; it is just not the first one to import Twisted.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rigs.processes import wait_until

_SOURCE = Path(__file__).with_name("fork_server.py")

_NOT_COMPARED = frozenset({"PYTEST_CURRENT_TEST"})


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _NOT_COMPARED}


class _Server:
    """The process that forks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = _lasting(environment)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SOURCE.read_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
        )
        atexit.register(self._end)

    def ask(self, **order: Any) -> Any:
        """Have it do something; its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended"
        return json.loads(answer)

    def _end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


@functools.cache
def _server(python_path: str) -> _Server:
    return _Server({**os.environ, "PYTHONPATH": python_path})


def measured() -> bool:
    """Is coverage being measured? Of children, too, then, and it is the environment that tells them."""
    return any(name.startswith("COVERAGE_") for name in os.environ)


def can_fork(environment: Mapping[str, str]) -> bool:
    """Would a process with this environment of its own be the same, forked? What an interpreter looks at when it starts
    would come too late."""
    if set(environment) != {"PYTHONPATH"} or measured():
        return False
    return _lasting({**os.environ, **environment}) == _server(environment["PYTHONPATH"]).environment


class Forked:
    """A twistd with these arguments: as much of subprocess.Popen as is used of it."""

    def __init__(
        self, argv: Sequence[str], *, directory: Path, environment: Mapping[str, str], stdout: Path, stderr: Path
    ) -> None:
        self.args = list(argv)
        self.returncode: int | None = None
        self._server = _server(environment["PYTHONPATH"])
        self._lock = threading.Lock()
        self.pid: int = self._server.ask(
            argv=self.args,
            directory=str(directory),
            environment={**os.environ, **environment},
            stdout=str(stdout.absolute()),
            stderr=str(stderr.absolute()),
        )

    def poll(self) -> int | None:
        """Its exit code (negative: the signal), None while it runs."""
        with self._lock:
            if self.returncode is None:
                self.returncode = self._server.ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The same, at its end; TimeoutExpired if that takes longer."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.poll() is not None, timeout, "it has ended")
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)
