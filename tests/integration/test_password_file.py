"""Users of a password file, with the real server: mtactl adds them, the next login knows them."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from passlib import hash as passlib
from rigs import certificates
from rigs.client import Client, Reply
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import need_root, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]


def submission(port: int, directory: Path, **auth: Any) -> Config:
    """A server for users, that relays to ``port``."""
    made = certificates.make(directory)
    return relaying_to(
        port,
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "starttls"}],
        tls={"certificate": str(made.certificate), "private_key": str(made.key)},
        relay={"networks": [], "domains": ["example.org"]},
        auth=auth,
    )


def mtactl(mta: Mta, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtatwist.control.cli", *arguments, "--config", str(mta.config)]
    return subprocess.run(command, input=password, text=True, capture_output=True, timeout=60)


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


def connect(mta: Mta) -> Client:
    """A session with TLS."""
    client = Client(mta.address("submission"))
    client.ehlo()
    client.starttls(ssl.create_default_context(cafile=mta.directory.parent / "authority.pem"))
    client.ehlo()
    return client


def login(mta: Mta, name: str, password: str) -> Reply:
    with connect(mta) as client:
        return client.command(plain(name, password))


def test_users_come_and_go_without_a_restart(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    mta = make_mta(submission(sink.port, tmp_path, file="people"))
    assert mtactl(mta, "users", "add", "Alice", password="sesame").returncode == 74, "there is no such directory yet"
    with mta:
        assert login(mta, "alice", "sesame").code == 535
        added = mtactl(mta, "users", "add", "Alice", password="sesame")
        assert added.returncode == 0, added.stderr
        assert (mta.data_dir / "people").read_text().startswith("alice:$argon2id$")
        wait_until(lambda: login(mta, "alice", "sesame").code == 235, 10, "the server sees her")
        assert login(mta, "ALICE", "sesame").code == 235
        assert login(mta, "alice", "wrong").code == 535
        with connect(mta) as client:
            client.expect(235, plain("alice", "sesame"))
            assert client.command("MAIL FROM:<bob@example.org>").code == 553
            content = b"From: alice@example.org\r\nSubject: hi\r\n\r\nhi\r\n"
            assert client.transaction("alice@example.org", ["you@sink.test"], content).code == 250
        assert sink.wait_for(1)[0].forward_paths == ("you@sink.test",)
        assert mtactl(mta, "users", "passwd", "alice", password="other").returncode == 0
        wait_until(lambda: login(mta, "alice", "other").code == 235, 10, "the password is another one")
        assert login(mta, "alice", "sesame").code == 535
        listed = mtactl(mta, "--json", "users", "list")
        assert json.loads(listed.stdout)["addresses"] == ["alice@example.org"]
        assert mtactl(mta, "users", "remove", "alice").returncode == 0
        wait_until(lambda: login(mta, "alice", "other").code == 535, 10, "she is gone")


def test_a_file_that_breaks_while_it_is_used(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    with make_mta(submission(sink.port, tmp_path)) as mta:
        mtactl(mta, "users", "add", "alice", password="sesame")
        file = mta.data_dir / "users"
        wait_until(lambda: login(mta, "alice", "sesame").code == 235, 10, "the server sees her")
        good = file.read_text()
        file.write_text(f"{good}bob\n")

        def broken() -> list[dict[str, Any]]:
            assert login(mta, "alice", "sesame").code == 235
            return [event for event in mta.events() if event["event"] == "users_file_broken"]

        (event,) = wait_until(broken, 10, "the trouble is logged")
        assert (event["level"], event["file"], event["users"]) == ("error", str(file), 1)
        assert event["reason"] == f"{file}:2: write name:hash or name:hash:address,address"
        file.write_text("")
        wait_until(lambda: login(mta, "alice", "sesame").code == 535, 10, "she is gone")


def test_a_broken_file_exits_78_naming_the_line(make_mta: MakeMta, tmp_path: Path) -> None:
    mta = make_mta(submission(2525, tmp_path))
    mta.data_dir.mkdir()
    (mta.data_dir / "users").write_text("# ours\nalice\nbob\n")
    assert mta.spawn().wait(30) == 78
    said = mta.process.stderr.read_text()
    for line in (2, 3):
        assert f"{mta.config}: auth.file: {mta.data_dir}/users:{line}: write name:hash" in said


def test_root_keeps_the_users_of_a_server_that_is_somebody_else(make_mta: MakeMta, tmp_path: Path) -> None:
    need_root("it becomes somebody else")
    nobody = pwd.getpwnam("nobody")
    mta = make_mta(submission(1, tmp_path), options=(f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}"))
    # Temporary directories of tests are root's alone.
    home = Path(tempfile.mkdtemp(prefix="mtatwist-"))
    try:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        mta.config.write_text(mta.config.read_text().replace(str(mta.data_dir), str(home)))
        assert mtactl(mta, "users", "add", "alice", password="sesame").returncode == 0
        with mta:
            assert login(mta, "alice", "sesame").code == 235
            assert mtactl(mta, "users", "add", "bob", password="sesame").returncode == 0
            wait_until(lambda: login(mta, "bob", "sesame").code == 235, 10, "the server sees him")
        assert (home / "users").stat().st_uid == nobody.pw_uid
        os.chown(home / "users", 0, 0)
        assert mta.spawn().wait(30) == 78
        assert "make it readable for the user that the server runs as" in mta.process.stderr.read_text()
    finally:
        shutil.rmtree(home)


def test_many_logins_at_once_hold_up_nobody_who_sends(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """Hashes are checked beside the reactor: while 40 wait for theirs, a session that is logged in sends."""
    # So dear that the last of them is not checked before that, however slow the rest is.
    dear = passlib.pbkdf2_sha512.using(rounds=500_000).hash("sesame")
    with make_mta(submission(sink.port, tmp_path)) as mta:
        (mta.data_dir / "users").write_text(f"bob:{dear}\n")
        assert mtactl(mta, "users", "add", "alice", password="sesame").returncode == 0
        wait_until(lambda: login(mta, "alice", "sesame").code == 235, 10, "the server sees her")
        with connect(mta) as alice:
            alice.expect(235, plain("alice", "sesame"))
            crowd = [connect(mta) for _ in range(40)]
            for each in crowd:
                each.send(plain("bob", "sesame").encode() + b"\r\n")
            content = b"From: alice@example.org\r\nSubject: hi\r\n\r\nhi\r\n"
            for _ in range(5):
                assert alice.transaction("alice@example.org", ["you@sink.test"], content).code == 250
            crowd[-1].socket.settimeout(0.001)
            with pytest.raises(TimeoutError):
                crowd[-1].reply()
            for each in crowd:
                each.socket.settimeout(60)
                # Ten seconds are the limit for a login.
                assert each.reply().code in (235, 454)
                each.close()
