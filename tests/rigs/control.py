"""mtactl as its users run it, and raw connections to the control socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rigs.mta import Mta, _environment
from rigs.processes import wait_until

#: In the data directory, unless the configuration says otherwise.
SOCKET = "control.sock"


def mtactl_command() -> list[str]:
    """The command that runs mtactl on this Python."""
    return [sys.executable, "-c", "from mtatwist.control.cli import main; main(prog_name='mtactl')"]


def mtactl(
    mta: Mta,
    *words: str,
    token: str | None = None,
    input: str = "",
    environment: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run it at this server."""
    variables = {**os.environ, **_environment(), **(environment or {})}
    if token is not None:
        variables["MTACTL_TOKEN"] = token
    return subprocess.run(
        [*mtactl_command(), "--socket", str(mta.data_dir / SOCKET), *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=variables,
        cwd="/",
    )


def told(mta: Mta, *words: str, **more: Any) -> list[dict[str, Any]]:
    """What it prints with --json; it must succeed."""
    done = mtactl(mta, "--json", *words, **more)
    assert done.returncode == 0, f"{words}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def refusal(mta: Mta, *words: str, **more: Any) -> tuple[int, str]:
    """Its exit code and what it says on standard error; it must fail, without a traceback."""
    done = mtactl(mta, *words, **more)
    assert done.returncode != 0, f"{words}: {done.stdout}"
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def connect(path: Path) -> socket.socket:
    """A client that says what the test likes."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(path))
    return client


def commands(mta: Mta, count: int) -> list[dict[str, Any]]:
    """What the log tells of the first so many commands, but those of a good Hello."""

    def found() -> list[dict[str, Any]]:
        events = [event for event in mta.events() if event.get("event") == "control"]
        return [event for event in events if not (event["command"] == "Hello" and event["result"] == "ok")]

    # They are written a moment later.
    wait_until(lambda: len(found()) >= count, 30, lambda: f"{count} commands are told of: {found()}")
    return found()


def ended(clients: Sequence[socket.socket]) -> list[bool]:
    """Of each of them, has the server hung up? It waits until that is so, or the client's time is over."""
    results = []
    for client in clients:
        try:
            results.append(client.recv(1) == b"")
        except ConnectionResetError:
            results.append(True)
    return results


_ANOTHER = """
import os, sys
from mtatwist.control.client import Client, NoServer
from mtatwist.control.commands import ControlError
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    with Client(sys.argv[1]) as client:
        print("welcome as", client.role)
except (NoServer, ControlError) as error:
    print(f"{type(error).__name__}: {error}")
"""


def asked_by(uid: int, path: Path) -> str:
    """What a process of another user is told that says Hello; only root can play that."""
    done = subprocess.run(
        [sys.executable, "-c", _ANOTHER, str(path), str(uid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **_environment()},
    )
    return done.stdout.strip()
