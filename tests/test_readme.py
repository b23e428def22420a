"""README.rst tells no lies: what it shows is taken out of it and run, in a copy of the checkout.

A block to run is marked by a comment before it, ``.. runs: name``.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rigs.processes import program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text("utf-8")

BLOCK = re.compile(r"^\.\. runs: (\S+)\n\n\.\. code-block:: \w+\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
BLOCKS = {name: textwrap.dedent(text).strip() + "\n" for name, text in BLOCK.findall(README)}

#: What a checkout does not have right after it was cloned.
LITTER = shutil.ignore_patterns(
    ".git", ".*cache", ".tox", ".venv*", "venv", "__pycache__", "build", "*.egg-info", "mtatwist-data", "dropin.cache"
)

#: The README says python3, and this is the one to try.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")},
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}

SERVER = ("127.0.0.1", 2525)
SMART_HOST = "smart.example.net:25"


def answers(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(seconds: float, true: Callable[[], bool], otherwise: str) -> None:
    """Look every 0.1 s until it is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def sh(directory: Path, command: str) -> str:
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@contextmanager
def running(directory: Path, command: str, address: tuple[str, int], seconds: float) -> Iterator[None]:
    """``command`` in the background, once it answers at ``address``; at the end it is stopped as Ctrl-C would."""
    until(120, lambda: not answers(address), f"another program sits at {address}")
    log = directory / f"log.{address[1]}"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Who runs the tests in the background has it ignored, and that would be inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        until(
            seconds,
            lambda: answers(address) or process.poll() is not None,
            f"{command} did not answer at {address}",
        )
        assert process.poll() is None, f"{command}\n{log.read_text()}"
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"{command} did not stop:\n{log.read_text()}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("readme") / "mtatwist"
    shutil.copytree(ROOT, directory, ignore=LITTER)
    return directory


@pytest.fixture(scope="module")
def installed(checkout: Path) -> Iterator[Path]:
    """The checkout with the README's one command run in it, and still running."""
    with running(checkout, BLOCKS["install"], SERVER, 240):
        yield checkout


def test_every_marked_block_is_found() -> None:
    assert len(BLOCKS) == README.count(".. runs: ") == 8


def test_running_is_one_command() -> None:
    assert BLOCKS["install"].count("\n") == 1


def test_testing_is_one_command_and_what_ci_runs() -> None:
    (command,) = BLOCKS["tests"].splitlines()
    assert os.access(ROOT / command, os.X_OK)
    assert f"exec {command}" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"``((?:mtatwist|conf|docs|tests)/[\w./]*|[A-Z]+\.rst)``", README)
    assert len(named) > 12
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_tour_shows_the_message(installed: Path) -> None:
    send, show = BLOCKS["tour"].splitlines()
    sh(installed, send)
    until(10, lambda: any(installed.glob("mtatwist-data/maildir/anybody/new/*")), "no message came")
    shown = sh(installed, show)
    assert "Subject: Hello" in shown
    assert "It works." in shown


def test_the_dialogue_ends_well(installed: Path) -> None:
    lines = sh(installed, BLOCKS["swaks"]).splitlines()
    dot = next(number for number, line in enumerate(lines) if line.strip() == "-> .")
    assert lines[dot + 1].lstrip().startswith("<-  250 2.")


def test_a_user_is_added_and_sends(installed: Path) -> None:
    said = sh(installed, BLOCKS["submission"])
    assert "<~  235 2.7.0" in said
    lines = said.splitlines()
    dot = next(number for number, line in enumerate(lines) if line.strip() == "~> .")
    assert lines[dot + 1].startswith("<~  250 2.")


def test_the_example_configuration_is_right(installed: Path) -> None:
    sh(installed, BLOCKS["check"])


def test_the_smart_host_gets_the_message(installed: Path, tmp_path: Path) -> None:
    (installed / "relay.toml").write_text(BLOCKS["relay.toml"])
    sh(installed, BLOCKS["check"].replace("conf/mtatwist.toml", "relay.toml"))

    smart_host = f"127.0.0.1:{free_port()}"
    assert SMART_HOST in BLOCKS["relay.toml"]
    (installed / "relay.toml").write_text(BLOCKS["relay.toml"].replace(SMART_HOST, smart_host))
    dump = tmp_path / "dump"
    # It refuses to be root unless told to, and only root may tell.
    user = ["-u", getpass.getuser()] if os.geteuid() == 0 else []
    sink = subprocess.Popen([program("smtp-sink"), *user, "-D", str(dump), smart_host, "10"])
    try:
        with running(installed, BLOCKS["relay"], ("127.0.0.1", 2526), 30):
            sh(installed, BLOCKS["swaks"].replace("2525", "2526").replace("anybody@localhost", "you@example.com"))
            until(
                15,
                lambda: dump.exists() and "you@example.com" in dump.read_text(),
                "the smart host got nothing",
            )
    finally:
        sink.terminate()
        sink.wait(10)
