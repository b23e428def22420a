"""The control socket of a real server: who may, what is bounded, and mail that does not notice."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client
from rigs.control import SOCKET, asked_by, commands, connect, ended, mtactl, refusal, told
from rigs.mta import Mta, StartFailed, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

from mtatwist.control.connection import BOX_BYTES, BOX_SECONDS
from mtatwist.control.server import OF_ONE_USER

NOBODY = pwd.getpwnam("nobody")
MakeServer = Callable[..., Mta]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as it:
        yield it


@pytest.fixture
def make_server(tmp_path: Path, sink: Sink) -> MakeServer:
    def make(*tokens: dict[str, str], **control: Any) -> Mta:
        config = relaying_to(sink.port, control=control, **{"control.token": list(tokens)})
        return Mta(tmp_path, config, forked=True)

    return make


def token(name: str, secret: str, role: str) -> dict[str, str]:
    return {"name": name, "role": role, "sha256": hashlib.sha256(secret.encode()).hexdigest()}


def send(mta: Mta, count: int = 1) -> None:
    """Mail, that must be taken."""
    with Client(mta.address()) as client:
        client.expect(250, "EHLO client.test")
        for _ in range(count):
            assert client.transaction("me@here.test", ["you@sink.test"], b"Subject: x\r\n\r\nx\r\n").code == 250


def test_ping(make_server: MakeServer) -> None:
    with make_server() as mta:
        (pong,) = told(mta, "system", "ping")
        assert pong["pid"] == mta.process.pid
        assert f"process {mta.process.pid}" in mtactl(mta, "system", "ping").stdout
        done = [(event["command"], event["uid"], event["user"], event["result"]) for event in commands(mta, 2)]
        assert done == [("Ping", os.getuid(), pwd.getpwuid(os.getuid()).pw_name, "ok")] * 2


def test_the_socket_is_where_and_whose_it_is_said_to_be(tmp_path: Path, sink: Sink) -> None:
    group = grp.getgrgid(NOBODY.pw_gid)
    for number, (control, mode, owner) in enumerate(
        [({}, 0o600, os.getgid()), ({"mode": "0660", "group": group.gr_name}, 0o660, group.gr_gid)]
    ):
        path = tmp_path / f"control{number}.sock"
        (tmp_path / str(number)).mkdir()
        mta = Mta(tmp_path / str(number), relaying_to(sink.port, control={"socket": str(path), **control}))
        with mta:
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, owner)
            assert stat.S_ISSOCK(found.st_mode)
        assert not path.exists()


def test_a_group_that_does_not_exist(make_server: MakeServer) -> None:
    with pytest.raises(StartFailed) as failed, make_server(mode="0660", group="no-such-group"):
        pass
    assert "exit code 78" in str(failed.value)
    reason = 'control.group: there is no group "no-such-group" on this machine: make it, or name another'
    assert reason in str(failed.value)


def test_a_dead_server_leaves_a_socket_that_the_next_one_takes(make_server: MakeServer) -> None:
    mta = make_server()
    mta.start()
    mta.process.process.kill()
    mta.process.process.wait(30)
    assert (mta.data_dir / SOCKET).is_socket()
    code, words = refusal(mta, "system", "ping")
    assert (code, "nobody listens there: the server is not running" in words) == (os.EX_UNAVAILABLE, True)
    with mta:
        told(mta, "system", "ping")


def test_a_live_socket_is_never_stolen(make_server: MakeServer, tmp_path: Path, sink: Sink) -> None:
    with make_server() as mta:
        (tmp_path / "second").mkdir()
        second = Mta(tmp_path / "second", relaying_to(sink.port, control={"socket": str(mta.data_dir / SOCKET)}))
        with pytest.raises(StartFailed) as failed, second:
            pass
        assert "exit code 71" in str(failed.value)
        assert "another process listens there: stop it, or name another path" in str(failed.value)
        assert told(mta, "system", "ping")[0]["pid"] == mta.process.pid


def test_no_server(tmp_path: Path) -> None:
    mta = Mta(tmp_path, relaying_to(1))
    code, words = refusal(mta, "system", "ping")
    assert code == os.EX_UNAVAILABLE
    assert "there is no control socket: is the server running?" in words
    done = mtactl(mta, "--json", "system", "ping")
    assert json.loads(done.stdout)["level"] == "error"
    assert done.returncode == os.EX_UNAVAILABLE


def test_what_is_no_socket(tmp_path: Path) -> None:
    mta = Mta(tmp_path, relaying_to(1))
    mta.data_dir.mkdir()
    (mta.data_dir / SOCKET).write_text("")
    code, words = refusal(mta, "system", "ping")
    assert (code, "that is no socket" in words) == (os.EX_USAGE, True)


def test_tokens(make_server: MakeServer) -> None:
    with make_server(token("ops", "s3cret", "admin"), token("eye", "look", "read")) as mta:
        code, words = refusal(mta, "system", "ping")
        assert (code, "the server wants a token (--token, or rather MTACTL_TOKEN" in words) == (os.EX_NOPERM, True)
        code, words = refusal(mta, "system", "ping", token="guess")
        assert (code, "the token is none of those configured" in words) == (os.EX_NOPERM, True)
        assert told(mta, "system", "ping", token="look")[0]["pid"] == mta.process.pid
        code, words = refusal(mta, "system", "drain", token="look")
        assert (code, "the token 'eye' has the role \"read\"" in words) == (os.EX_NOPERM, True)
        send(mta)
        results = [(event["command"], event["token"], event["result"]) for event in commands(mta, 4)]
        assert results == [
            ("Hello", "", "not_allowed"),
            ("Hello", "", "not_allowed"),
            ("Ping", "eye", "ok"),
            ("Drain", "eye", "not_allowed"),
        ]
        log = mta.log()
        assert not any(secret in log for secret in ("s3cret", "guess", 'look"'))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another")
def test_other_users(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server() as mta:
        for directory in [mta.data_dir, *mta.data_dir.parents]:
            if str(directory) != "/" and not directory.stat().st_mode & 1:
                directory.chmod(0o755)
        path = mta.data_dir / SOCKET
        assert "NoServer" in (words := asked_by(NOBODY.pw_uid, path))
        assert "permission denied: run this as root" in words
        # Somebody has been careless.
        path.chmod(0o666)
        assert asked_by(NOBODY.pw_uid, path) == (
            "NotAllowed: the user nobody may not use this socket: see control.group"
        )
        (event,) = commands(mta, 1)
        assert (event["uid"], event["user"], event["result"]) == (NOBODY.pw_uid, "nobody", "not_allowed")
        told(mta, "system", "ping")


def test_a_hundred_clients_at_once(make_server: MakeServer, sink: Sink) -> None:
    with make_server() as mta:
        clients = [connect(mta.data_dir / SOCKET) for _ in range(100)]
        # Those for whom there is no place are told at once, the others wait for nothing.
        turned_away = ended(clients[OF_ONE_USER:])
        assert turned_away == [True] * (100 - OF_ONE_USER)
        code, words = refusal(mta, "system", "ping")
        assert (code, "it has too many clients" in words) == (os.EX_TEMPFAIL, True)
        send(mta, 5)
        assert len(sink.wait_for(5)) == 5
        for client in clients:
            client.close()
        wait_until(lambda: mtactl(mta, "system", "ping").returncode == 0, 30, "there is a place again")


def test_a_hundred_commands_at_once(make_server: MakeServer) -> None:
    with make_server() as mta:
        codes: list[int] = []

        def ping() -> None:
            codes.append(mtactl(mta, "system", "ping").returncode)

        threads = [threading.Thread(target=lambda: [ping() for _ in range(5)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [0] * 20


def test_half_a_box_and_a_large_one(make_server: MakeServer, sink: Sink) -> None:
    with make_server() as mta:
        path = mta.data_dir / SOCKET
        half = [connect(path) for _ in range(10)]
        for client in half:
            client.sendall(b"\x00\x08_command\x00\x04Pi")
        large = connect(path)
        megabyte = b"".join(b"\x00\x02" + b"%02d" % number + b"\xff\xff" + b"x" * 65535 for number in range(16))
        assert len(megabyte) > 8 * BOX_BYTES
        with contextlib.suppress(OSError):
            large.sendall(megabyte)
        assert ended([large]) == [True]
        send(mta, 3)
        told(mta, "system", "ping")
        assert ended(half) == [True] * 10
        assert len(sink.wait_for(3)) == 3

        def reasons() -> list[str]:
            return [event["reason"] for event in mta.events() if event.get("event") == "control_client_refused"]

        wait_until(lambda: len(reasons()) >= 11, 10, lambda: f"all are told of: {reasons()}")
        assert sorted(reasons()) == ["a command is larger than any there is", *["nothing came for too long"] * 10]
        assert BOX_SECONDS < 30


def test_it_stops_with_clients(make_server: MakeServer) -> None:
    with make_server() as mta:
        client = connect(mta.data_dir / SOCKET)
        told(mta, "system", "ping")
        mta.stop()
        assert ended([client]) == [True]
        assert "Traceback" not in mta.log()
