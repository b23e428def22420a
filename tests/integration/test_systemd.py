"""The units of systemd, and what the server does under it: played where systemd itself does not run."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.content import HEAD
from rigs.mta import SPOOL, Config, Mta, relaying_to, twistd
from rigs.processes import free_port, need, wait_until
from rigs.sink import Sink
from rigs.supervisor import Supervisor

from mtatwist.auth import hashes

MakeMta = Callable[..., Mta]

pytestmark = pytest.mark.fresh_start

CONF = Path(__file__).resolve().parents[2] / "conf"


# --- The units ----------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Both units, as they would be installed; the programs are others, as ours are not in /opt here."""
    need("systemd-analyze")
    found = []
    for unit in (CONF / "mtatwist.service", CONF / "mtatwist.socket"):
        text = re.sub(r"/opt/mtatwist/bin/\w+", shutil.which("true") or "", unit.read_text())
        found.append(tmp_path / unit.name)
        found[-1].write_text(text)
    return found


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_systemd_understands_the_units(units: list[Path]) -> None:
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_little_is_left_to_who_breaks_in(units: list[Path]) -> None:
    """systemd counts what a service may do, from 0 to 10: 2 is what a server on low ports can't do without."""
    done = analyze("security", "--offline=true", "--threshold=20", units[0])
    assert done.returncode == 0, done.stdout[-500:]


# --- Its word about itself ----------------------------------------------------------------------------------------


def test_it_says_when_it_takes_mail_that_it_lives_and_when_it_ends(make_mta: MakeMta, sink: Sink) -> None:
    with Supervisor("life") as systemd:
        mta = make_mta(relaying_to(sink.port), environment={**systemd.environment, "WATCHDOG_USEC": "200000"})
        mta.spawn()
        assert "STATUS=Taking mail" in systemd.hear("READY=1", 60)
        # Now, and not only soon, clients and the spool find what they need.
        assert (mta.data_dir / SPOOL).exists()
        mta.listening = wait_until(
            lambda: next((e["listen"] for e in mta.events() if e["event"] == "start"), None), 30, "start"
        )
        with Client(mta.address()) as client:
            assert client.greeting.code == 220
        for _ in range(3):
            systemd.hear("WATCHDOG=1")
        for _ in range(2):
            before = time.monotonic()
            mta.process.signal(signal.SIGHUP)
            (moment,) = (line for line in systemd.hear("RELOADING=1") if line.startswith("MONOTONIC_USEC="))
            assert before <= int(moment.partition("=")[2]) / 1e6 <= time.monotonic()
            systemd.hear("READY=1")
            # Of the second nothing comes, and systemd has to hear of its end too.
            mta.config.write_text("[server]\nhost = 1\n")
        mta.process.signal(signal.SIGTERM)
        systemd.hear("STOPPING=1")
        assert mta.ended_well()
        assert not {"READY=1", "RELOADING=1"} & set(systemd.heard())


def test_a_start_that_fails_is_never_ready(make_mta: MakeMta) -> None:
    with Supervisor("failure") as systemd, socket.create_server(("127.0.0.1", 0)) as taken:
        listen = [{"endpoint": f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"}]
        mta = make_mta(relaying_to(25, listen=listen), environment=systemd.environment)
        assert mta.spawn().wait(60) == 71
        assert systemd.heard() == []


# --- Its ports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["index", "name"])
def test_ports_that_systemd_has_bound(make_mta: MakeMta, sink: Sink, by: str, tmp_path: Path) -> None:
    """systemd's own tool binds three ports, and starts the server when the first client comes."""
    need("systemd-socket-activate")
    ports = [free_port() for _ in range(3)]
    names = ["smtp", "submissions", "submission"]
    endpoints = [f"systemd:domain=INET:{by}={names[i] if by == 'name' else i}" for i in range(3)]
    listen = [
        {"endpoint": endpoints[0], "role": "mx", "tls": "none"},
        {"endpoint": endpoints[1], "role": "submission", "tls": "implicit"},
        {"endpoint": endpoints[2], "role": "submission", "tls": "starttls"},
    ]
    made = certificates.make(tmp_path)
    config = relaying_to(
        sink.port, listen=listen, tls={"certificate": str(made.certificate), "private_key": str(made.key)}
    )
    binder = [
        "systemd-socket-activate",
        *(f"--listen=127.0.0.1:{port}" for port in ports),
        f"--fdname={':'.join(names)}",
    ]
    mta = make_mta(config, command=[*binder, *(f"--setenv={name}" for name in ("PYTHONPATH", "PATH")), *twistd()])
    mta.spawn()
    wait_until(lambda: "Listening on" in mta.log() and mta.log().count("Listening on") == 3, 30, mta.log)
    trust = ssl.create_default_context(cafile=made.authority)
    # The one who comes first waits for the start; nobody is refused.
    with Client(("127.0.0.1", ports[0]), timeout=60) as client:
        client.ehlo()
        assert client.transaction("a@client.test", ["b@sink.test"], HEAD).code == 250
    with Client(("127.0.0.1", ports[1]), context=trust) as client:
        assert "AUTH" in client.ehlo().text
    with Client(("127.0.0.1", ports[2])) as client:
        client.ehlo()
        client.starttls(trust)
        assert "AUTH" in client.ehlo().text
    sink.wait_for(1)


# --- What the unit forbids ----------------------------------------------------------------------------------------


def everything(port: int, directory: Path) -> Config:
    """A server that does what most do: TLS on both sides, users with passwords, probes."""
    made = certificates.make(directory)
    config = relaying_to(
        port,
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "starttls"}],
        tls={"certificate": str(made.certificate), "private_key": str(made.key)},
        relay={"networks": [], "domains": ["example.org"]},
        auth={"backend": "file", "file": str(directory / "users")},
        health={"endpoint": "tcp:0:interface=127.0.0.1"},
    )
    (directory / "users").write_text(f"alice:{hashes.make('secret')}:alice@example.org\n")
    (directory / "users").chmod(0o600)
    return config


def submit(mta: Mta, sink: Sink, directory: Path) -> None:
    """A user sends a small and a large message, and they arrive."""
    with Client(mta.address("submission")) as client:
        client.ehlo()
        client.starttls(ssl.create_default_context(cafile=directory / "authority.pem"))
        client.ehlo()
        client.expect(235, "AUTH PLAIN " + base64.b64encode(b"\0alice\0secret").decode())
        for content in (HEAD + b"hello\r\n", HEAD + b"x" * 70 * 10000):
            assert client.transaction("alice@example.org", ["b@sink.test"], content).code == 250
    sink.wait_for(2)
    wait_until(lambda: mta.queued() == 0, 20, "the queue is empty")


@pytest.fixture
def allowed(units: list[Path]) -> Iterator[set[str]]:
    """The system calls that the unit's filters allow."""
    groups = {
        match[1]: set(re.findall(r"^    ([\w@-]+)$", match[2], re.MULTILINE))
        for match in re.finditer(r"^(@[\w-]+)\n((?: {4}.*\n|\n)*)", analyze("syscall-filter").stdout, re.MULTILINE)
    }

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return set().union(*(calls(each) for each in groups[name]))

    found: set[str] = set()
    for filters in re.findall(r"^SystemCallFilter=(.*)$", units[0].read_text(), re.MULTILINE):
        named = set().union(*(calls(each) for each in filters.lstrip("~").split()))
        found = found - named if filters.startswith("~") else found | named
    yield found


def test_no_system_call_is_missed(make_mta: MakeMta, sink: Sink, tmp_path: Path, allowed: set[str]) -> None:
    """SystemCallFilter=: from the start to the end it asks for nothing that the unit forbids."""
    need("strace")
    assert "read" in allowed and "reboot" not in allowed
    counts = tmp_path / "calls"
    command = ["strace", "-D", "-f", "-c", "-U", "name", "-o", str(counts), *twistd()]
    mta = make_mta(everything(sink.port, tmp_path), command=command)
    mta.start(120)
    submit(mta, sink, tmp_path)
    mta.stop(60)
    wait_until(lambda: counts.exists() and counts.read_text(), 30, "strace has ended")
    # Its first line and its last are about all of them; fchown is what SQLite does for root only.
    used = set(re.findall(r"^\s*([a-z]\w*)$", counts.read_text(), re.MULTILINE)) - {"syscall", "total", "fchown"}
    assert {"fdatasync", "sendto"} & used
    assert not used - allowed
