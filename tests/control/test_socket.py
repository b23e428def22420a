"""The file of the control socket: its mode, and whose it may be."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from mtatwist.control.socket import ControlSocket, SocketError


class Reactor:
    """Watches nothing."""

    def __init__(self) -> None:
        self.reading: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.reading.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.reading.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """(IReactorFDSet)"""

    def callLater(self, seconds: float, function: Any, *arguments: Any) -> None:
        function(*arguments)


@contextlib.contextmanager
def bound(path: Path, mode: int = 0o600, group: int | None = None) -> Iterator[ControlSocket]:
    service = ControlSocket(Reactor(), str(path), Factory(), mode=mode, group=group)
    service.startService()
    try:
        yield service
    finally:
        service.stopService()


def refusal(path: Path) -> str:
    with pytest.raises(SocketError) as refused:
        ControlSocket(Reactor(), str(path), Factory(), mode=0o600, group=None).startService()
    return str(refused.value).replace(f"{path} ", "").replace(f"{path}: ", "")


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_mode_and_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for mode, group in ((0o600, None), (0o660, 4242)):
            with bound(tmp_path / "s", mode, group):
                found = os.stat(tmp_path / "s")
                assert stat.S_IMODE(found.st_mode) == mode
                assert group is None or found.st_gid == group
                assert connects(tmp_path / "s")
            assert not (tmp_path / "s").exists()
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_a_stale_one_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with bound(path):
        assert connects(path)


def test_a_live_one_is_never_stolen(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path):
        assert refusal(path) == "another process listens there: stop it, or name another path"
        assert connects(path)


def test_a_full_one_is_live(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(socket.socket(socket.AF_UNIX))
        live.bind(str(path))
        live.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        assert "another process listens there" in refusal(path)
        assert path.is_socket()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    assert refusal(path) == "is there and no socket: move it away, or name another path"
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "no socket" in refusal(path)


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing" / "s") == "can't be bound: No such file or directory"
    assert refusal(tmp_path / ("x" * 120)).endswith("can't be bound: AF_UNIX path too long")


def test_what_others_did_to_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path):
        path.unlink()
    with bound(path):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_a_group_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root, and a member, can give it away; where it has the group already, there is nothing to give."""

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    service = ControlSocket(Reactor(), str(tmp_path / "s"), Factory(), mode=0o660, group=os.getgid() + 4242)
    with pytest.raises(SocketError, match="a member of it") as refused:
        service.startService()
    assert (refused.value.key, refused.value.code) == ("control.group", os.EX_CONFIG)
    assert not (tmp_path / "s").exists()
    with bound(tmp_path / "s", 0o660, os.getgid()):
        assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o660
