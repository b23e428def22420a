"""``twistd mta`` as a process of its own, under a configuration made for the test."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import apsw
from rigs.forked import Forked, can_fork
from rigs.processes import Child, wait_until

Config = dict[str, Any]

#: The spool's database below the data directory.
SPOOL = "spool.sqlite"

START_SECONDS = 30.0


def toml(config: Config) -> str:
    """The little of TOML that a configuration needs: JSON spells its values the same way."""
    text: list[str] = []
    for table, value in config.items():
        for item in value if isinstance(value, list) else [value]:
            text.append(f"[[{table}]]" if isinstance(value, list) else f"[{table}]")
            text.extend(f"{key} = {json.dumps(v)}" for key, v in item.items())
    return "\n".join(text) + "\n"


def relaying_to(port: int, **tables: Any) -> Config:
    """Relay all that comes from loopback to a next hop on loopback, trying again soon.

    A keyword argument that names a table adds keys to it; one that is a list replaces it.
    """
    config: Config = {
        "server": {"hostname": "mta.test", "data_dir": "data"},
        "listen": [{"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx", "tls": "none"}],
        "relay": {"networks": ["127.0.0.0/8"], "domains": [], "retry": "1s, 2s", "max_age": "1h"},
        "route": [
            {
                "domain": "*",
                "transport": "smtp",
                "next_hop": f"127.0.0.1:{port}",
                "tls": "none",
            }
        ],
        "limits": {"message_size": "25MiB", "connections_per_address": 1000},
        # Every server of the tests would take the room otherwise.
        "spool": {"ballast": "64KiB"},
        "log": {"format": "json"},
    }
    for table, value in tables.items():
        config[table] = {**config.get(table, {}), **value} if isinstance(value, dict) else value
    return config


def twistd(*options: str) -> list[str]:
    """The command that runs twistd on this Python."""
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *options]


def _environment() -> dict[str, str]:
    spec = importlib.util.find_spec("mtatwist")
    assert spec is not None and spec.origin is not None
    root = str(Path(spec.origin).parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


class StartFailed(Exception):
    """The process ended, or said nothing, before its start event."""


class Mta:
    """A data directory and a configuration, and the process that runs on them (one at a time)."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        *,
        command: Sequence[str] | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        forked: bool = False,
    ) -> None:
        """``forked``: from a process that has the libraries, where that makes no difference: see rigs.forked."""
        self.directory = directory
        self.environment = {**_environment(), **(environment or {})}
        self.config = directory / "mta.toml"
        self.data_dir = directory / "data"
        self.config.write_text(toml({**config, "server": self._server(config)}))
        self.command = [*(command or twistd()), "--nodaemon", "--pidfile=", *options]
        self._forked = forked
        self._starts = 0
        self.child: Child | None = None
        self.listening: list[dict[str, Any]] = []

    def _server(self, config: Config) -> dict[str, Any]:
        server = dict(config.get("server", {}))
        server["data_dir"] = str(self.data_dir)
        return server

    def spawn(self) -> Child:
        """Start the process and wait for nothing."""
        assert self.child is None or not self.child.running, "it runs already"
        self._starts += 1
        argv = [*self.command, "mta", "--config", str(self.config)]
        begun = len(twistd())
        fork = self._forked and argv[:begun] == twistd() and can_fork(self.environment)
        self.child = Child(
            argv[begun:] if fork else argv,
            self.directory,
            f"mta-{self._starts}",
            self.environment,
            begin=Forked if fork else None,
        )
        return self.child

    def start(self, seconds: float = START_SECONDS) -> Self:
        """Start the process and wait for its start event."""
        child = self.spawn()
        event = wait_until(lambda: self._started(child), seconds, lambda: f"no start: {self.log()}")
        self.listening = event["listen"]
        return self

    def _started(self, child: Child) -> dict[str, Any] | None:
        for event in self.events(child):
            if event.get("event") == "start":
                return event
        if not child.running:
            raise StartFailed(f"exit code {child.process.returncode}: {child.output()}")
        return None

    def events(self, child: Child | None = None) -> Iterator[dict[str, Any]]:
        """The events the (current) process has logged."""
        child = child or self.process
        for line in child.stdout.read_text("utf-8", "replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                yield json.loads(line)

    @property
    def process(self) -> Child:
        assert self.child is not None, "not started"
        return self.child

    def address(self, role: str = "mx", number: int = 0) -> tuple[str, int]:
        """Where it listens: host and port of the ``number``-th listener of this role."""
        found = [(str(x["host"]), int(x["port"])) for x in self.listening if x["role"] == role]
        return found[number]

    def queued(self) -> int:
        """How many messages are in the spool, as a reader of its database sees it."""
        path = self.data_dir / SPOOL
        with contextlib.closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as spool:
            spool.set_busy_timeout(5000)
            return int(next(spool.execute("SELECT count(*) FROM message"))[0])

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.process.kill()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM: its exit code."""
        return self.process.end(seconds)

    def ended_well(self, seconds: float = 30) -> bool:
        """Did (does) the process end after SIGTERM, in order? twistd ends by the signal that it got."""
        code = self.process.wait(seconds)
        stopped = any(event.get("event") == "stopped" for event in self.events())
        return code in (0, -signal.SIGTERM) and stopped

    def log(self) -> str:
        """All that its processes wrote, first to last."""
        parts = []
        for number in range(1, self._starts + 1):
            for end in ("out", "err"):
                parts.append((self.directory / f"mta-{number}.{end}").read_text("utf-8", "replace"))
        return "".join(parts)

    def complaints(self) -> list[str]:
        """What must never stand in a log: tracebacks, unhandled errors, leftovers of a Deferred."""
        pattern = re.compile(r"Traceback|Unhandled|CRITICAL|SyntaxWarning|DeprecationWarning")
        return [line for line in self.log().splitlines() if pattern.search(line)]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        if self.child is None or not self.child.running:
            return
        self.child.signal(signal.SIGTERM)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            if exc[0] is None:
                raise
