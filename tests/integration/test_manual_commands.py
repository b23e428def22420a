"""What the manual tells administrators to type is run: with other paths, and systemctl played by the rig.

A block is marked by a comment before it, ``.. runs: name``, as in README.rst.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.content import HEAD
from rigs.mta import Mta, relaying_to
from rigs.processes import need, need_root, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

ROOT = Path(__file__).resolve().parents[2]
RUNS = re.compile(r"^\.\. runs: (\S+)\n\n\.\. code-block:: \w+\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.rst").read_text("utf-8")


def marked(name: str) -> str:
    """The commands under this mark in the pages about running the server."""
    found = [text for each in ("install", "operations") for mark, text in RUNS.findall(page(each)) if mark == name]
    assert len(found) == 1
    return textwrap.dedent(found[0])


def script(directory: Path, name: str, content: str) -> None:
    """A program of this name, that comes before all others."""
    (directory / "bin").mkdir(exist_ok=True)
    path = directory / "bin" / name
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)


def sh(directory: Path, commands: str) -> str:
    environment = {**os.environ, "PATH": os.pathsep.join((str(directory / "bin"), os.environ["PATH"]))}
    done = subprocess.run(
        ["sh", "-exc", commands],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def mtactl(directory: Path) -> None:
    script(directory, "mtactl", f'PYTHONPATH="{ROOT}" exec {sys.executable} -m mtatwist.control.cli "$@"')


def test_installing(tmp_path: Path) -> None:
    """Into a directory that is taken for the root; how pip installs is shown by tests/test_packaging.py."""
    need_root("it makes a user and gives files away")
    need("useradd", "systemd-analyze")
    root = tmp_path / "root"
    for name in ("etc/systemd/system", "opt/mtatwist/bin", "usr/local/bin", "var/lib"):
        (root / name).mkdir(parents=True)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (root / "etc" / name).touch()
    (text,) = [textwrap.dedent(text) for kind, text in BLOCK.findall(page("install")) if "[control]" in text]
    (tmp_path / "mtatwist.toml").write_text(text.replace("/etc/", f"{root}/etc/"))
    made = certificates.make(tmp_path, "mx.example.org")
    made.certificate.rename(tmp_path / "mx.pem")
    made.key.rename(tmp_path / "mx.key")
    (tmp_path / "recipients").write_text("alice@example.org\n")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    mtactl(tmp_path)
    (tmp_path / "bin" / "mtactl").rename(root / "opt/mtatwist/bin/mtactl")
    script(tmp_path, "systemctl", f'[ "$1" = daemon-reload ] || exec /usr/bin/systemctl --root={root} "$1" "$3"')
    commands = re.sub(r"(?<![\w./])/(?=(?:opt|etc|usr|var)/)", f"{root}/", marked("install"))
    commands = commands.replace("useradd ", f"useradd --prefix {root} ")
    commands = re.sub(r"^python3 -m venv .*\n.*pip install .*\n", "", commands, flags=re.MULTILINE)
    # The group is one of that directory only.
    group = rf"sed -n 's/^mtatwist:[^:]*:\([0-9]*\):.*/\1/p' {root}/etc/group"
    commands = commands.replace("--group=mtatwist", f"--group=$({group})")
    sh(tmp_path, commands)
    assert re.search(r"^mtatwist:", (root / "etc/passwd").read_text(), re.MULTILINE)
    for name in ("mtatwist.toml", "mx.pem", "mx.key"):
        assert stat.S_IMODE((root / "etc/mtatwist" / name).stat().st_mode) == 0o640
    assert (root / "etc/systemd/system/multi-user.target.wants/mtatwist.service").is_symlink()
    assert "version" in sh(tmp_path, f"{root}/usr/local/bin/mtactl --version")


def systemctl(directory: Path, mta: Mta) -> None:
    """It stops this server and waits for the end, as systemctl does; to start it again is for the test to do."""
    pid = mta.process.pid
    script(directory, "systemctl", f'[ "$1" = start ] || {{ kill {pid}; tail --pid={pid} -f /dev/null; }}')


@pytest.fixture
def queue(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> Mta:
    """A server that runs, with two messages that wait, and programs for the manual's commands."""
    sink.policy = lambda stage, what: "451 4.2.1 not yet"
    mta = make_mta(relaying_to(sink.port, relay={"retry": "1s"})).start()
    with Client(mta.address()) as client:
        client.ehlo()
        for content in (HEAD + b"small\r\n", HEAD + b"large\r\n" * 100_000):
            assert client.transaction("a@client.test", ["b@sink.test"], content).code == 250
    mtactl(tmp_path)
    systemctl(tmp_path, mta)
    return mta


def as_here(commands: str, mta: Mta, tmp_path: Path) -> str:
    """With the test's paths, and its user."""
    (tmp_path / "backup").mkdir(exist_ok=True)
    for theirs, ours in (
        ("/srv/backup", tmp_path / "backup"),
        ("/var/lib/mtatwist", mta.data_dir),
        ("/etc/mtatwist/mtatwist.toml", mta.config),
        ("=mtatwist", f"={os.geteuid()}"),
    ):
        commands = commands.replace(theirs, str(ours))
    return commands


def test_backup_and_restore(queue: Mta, sink: Sink, tmp_path: Path) -> None:
    """What is brought back is delivered, and nothing else than that."""
    mailbox(queue, "from-the-backup")
    done = wait_for_end(queue, lambda: sh(tmp_path, as_here(marked("backup"), queue, tmp_path)))
    assert "systemctl start" in done
    shutil.rmtree(queue.data_dir)
    # The disk is lost: the next start begins with nothing, and somebody notices.
    queue.start()
    assert queue.queued() == 0
    mailbox(queue, "newer")
    systemctl(tmp_path, queue)
    done = wait_for_end(queue, lambda: sh(tmp_path, as_here(marked("restore"), queue, tmp_path)))
    assert "ok: 2 messages" in done
    assert queue.queued() == 2
    assert os.listdir(Path(queue.data_dir, "maildir/you/new")) == ["from-the-backup"]
    sh(tmp_path, as_here(marked("keep-maildirs"), queue, tmp_path))
    assert os.listdir(Path(queue.data_dir, "maildir/you/new")) == ["newer"]
    sink.policy = lambda stage, what: None
    with queue:
        sizes = sorted(arrival.size for arrival in sink.wait_for(2))
        wait_until(lambda: queue.queued() == 0, 30, "the queue is empty")
    assert sizes[0] < 10_000 < 700_000 < sizes[1]


def mailbox(mta: Mta, name: str) -> None:
    """A message in a Maildir in the data directory."""
    place = Path(mta.data_dir, "maildir/you/new")
    place.mkdir(parents=True)
    (place / name).write_text("Subject: test\n\n")


def wait_for_end(mta: Mta, stop: Callable[[], str]) -> str:
    """Its parent has to notice that the process has ended, or nobody else does."""
    reaper = Thread(target=mta.process.wait, args=(60,))
    reaper.start()
    try:
        return stop()
    finally:
        reaper.join()


def test_what_prometheus_and_probes_fetch(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    need("curl")
    (commands,) = [textwrap.dedent(text) for kind, text in BLOCK.findall(page("howto-monitoring")) if kind == "sh"]
    with make_mta(relaying_to(sink.port, health={"endpoint": "tcp:0:interface=127.0.0.1"})) as mta:
        (start,) = [event for event in mta.events() if event["event"] == "start"]
        said = sh(tmp_path, commands.replace("127.0.0.1:8080", f"127.0.0.1:{start['health']['port']}"))
    assert '"ready": true' in said or '"ready":true' in said
    assert "mtatwist_" in said
