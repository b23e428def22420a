"""The data directory: ours alone, one process at a time, durable."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtatwist.store import datadir
from mtatwist.store.datadir import DataDir, DataDirError, replace_file

HOLD = """
import sys
from mtatwist.store.datadir import DataDir
DataDir(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_us_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        DataDir(tmp_path / "data").acquire()
    finally:
        os.umask(old)
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data" / "lock") == 0o600


def test_one_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    DataDir(tmp_path / "data").acquire()
    assert mode(tmp_path / "data") == 0o700


def test_every_new_directory_is_durable_in_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(datadir, "sync_directory", synced.append)
    DataDir(tmp_path / "a" / "b" / "data").acquire()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_second_process_is_told_which_one_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataDirError) as refused:
            DataDir(path).acquire()
        assert str(refused.value) == (
            f"server.data_dir {path} is in use by process {holder.pid}: stop it first, or give this one a data_dir of"
            " its own"
        )
        holder.kill()
        holder.wait()
    DataDir(path).acquire()
    assert (path / "lock").read_text() == f"{os.getpid()}\n"


def test_it_can_be_let_go_and_taken_again(tmp_path: Path) -> None:
    one, other = DataDir(tmp_path / "data"), DataDir(tmp_path / "data")
    one.acquire()
    with pytest.raises(DataDirError):
        other.acquire()
    one.release()
    other.acquire()
    one.release()


def test_what_can_not_be_a_directory_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirError, match=r"server\.data_dir .*/data: File exists; it must be a directory"):
        DataDir(tmp_path / "data").acquire()
    with pytest.raises(DataDirError, match="it must be a directory"):
        DataDir(tmp_path / "data" / "below").acquire()


def test_a_file_is_replaced_durably_and_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "users"
    steps: list[str] = []

    def noted(what: str, do: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            steps.append(what)
            do(*arguments)

        return call

    for what in ("fsync", "replace"):
        monkeypatch.setattr(os, what, noted(what, getattr(os, what)))
    monkeypatch.setattr(datadir, "sync_directory", noted("sync_directory", datadir.sync_directory))
    replace_file(path, b"one")
    assert (path.read_bytes(), mode(path)) == (b"one", 0o600)
    assert steps == ["fsync", "replace", "sync_directory", "fsync"]
    with path.open("rb") as reader:
        replace_file(path, b"two", mode=0o640)
        assert reader.read() == b"one"
    assert (path.read_bytes(), mode(path)) == (b"two", 0o640)


def test_a_new_file_belongs_to_whom_it_is_to_be_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, *to: given.append(to))
    ours = tmp_path.stat()
    replace_file(tmp_path / "users", b"", like=ours)
    assert given == []
    other = list(ours)
    other[stat.ST_UID], other[stat.ST_GID] = 4321, 1234
    replace_file(tmp_path / "users", b"", like=os.stat_result(other))
    assert given == [(4321, 1234)]


def test_what_a_crash_left_is_replaced_too(tmp_path: Path) -> None:
    left = tmp_path / ".users.new"
    left.write_bytes(b"half a li")
    left.chmod(0o644)
    replace_file(tmp_path / "users", b"one")
    assert [each.name for each in tmp_path.iterdir()] == ["users"]
    assert mode(tmp_path / "users") == 0o600


def test_a_file_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "users", b"one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "users", b"two")
    assert [each.name for each in tmp_path.iterdir()] == ["users"]
    assert (tmp_path / "users").read_bytes() == b"one"
