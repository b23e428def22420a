"""mtactl spool: what it says of a spool, what it saves, and what it makes of a damaged one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rigs import damage
from rigs.damage import PAGE, Kept
from rigs.messages import body

from mtatwist.control.cli import main
from mtatwist.envelope import queue_id
from mtatwist.spool import check, schema


def mtactl(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, [str(each) for each in arguments])


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Kept]]:
    path = tmp_path_factory.mktemp("made") / "data"
    return path, damage.make(path, 200)


@pytest.fixture
def spool(made: tuple[Path, dict[int, Kept]], tmp_path: Path) -> tuple[Path, dict[int, Kept]]:
    """A copy, to do harm to."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data", made[1]


def content(data_dir: Path) -> dict[str, bytes]:
    """Every file but the lock and SQLite's index of the log."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file() and path.name != "lock" and not path.name.endswith("-shm")
    }


def harm(data_dir: Path) -> None:
    """A page in the middle is gone, with whatever it led to."""
    damage.overwrite(data_dir, damage.pages(data_dir) // 2, b"\xff" * PAGE)


# verify


def test_a_whole_spool_is_verified(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, kept = spool
    before = content(data_dir)
    result = mtactl("spool", "verify", "--data-dir", data_dir)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{data_dir}: ok: {len(kept)} messages, ")
    assert content(data_dir) == before
    (told,) = objects(mtactl("--json", "spool", "verify", "--data-dir", data_dir))
    assert (told["level"], told["messages"], told["unused_files"]) == ("ok", len(kept), 0)
    assert told["pending"] + told["deferred"] == sum(len(one.recipients) for one in kept.values())


def test_a_spool_after_a_crash_is_verified_with_its_log(tmp_path: Path) -> None:
    kept = damage.make_crashed(tmp_path / "data", 100)
    before = content(tmp_path / "data")
    (told,) = objects(mtactl("spool", "verify", "--json", "--data-dir", tmp_path / "data"))
    assert told["messages"] == len(kept)
    assert content(tmp_path / "data") == before


def test_a_configuration_names_the_directory(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    file = tmp_path / "mta.toml"
    file.write_text('[server]\ndata_dir = "data"\n[[listen]]\nendpoint = "tcp:25"\n')
    assert mtactl("spool", "verify", "--config", file).exit_code == 0
    file.write_text("nonsense")
    assert mtactl("spool", "verify", "--config", file).exit_code == 78
    assert mtactl("spool", "verify").exit_code == 2
    assert mtactl("spool", "verify", "--config", file, "--data-dir", tmp_path).exit_code == 2


def test_damaged_pages_are_told(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    harm(data_dir)
    before = content(data_dir)
    result = mtactl("spool", "verify", "--data-dir", data_dir)
    assert result.exit_code == 65
    assert len(result.stdout.splitlines()) >= 2
    assert "mtactl spool recover" in result.stdout.splitlines()[-1]
    told = objects(mtactl("spool", "verify", "--json", "--data-dir", data_dir))
    assert {one["level"] for one in told} == {"problem", "damaged"}
    assert content(data_dir) == before


def test_what_does_not_hang_together_is_told(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, kept = spool
    alone, unaddressed, shorter, *_ = kept
    large, cut, *_ = (number for number, one in kept.items() if one.size > 256 * 1024)
    connection = schema.connect(data_dir / "spool.sqlite")
    connection.execute("DELETE FROM message WHERE number=?", (alone,))
    connection.execute("DELETE FROM recipient WHERE number=?", (unaddressed,))
    connection.execute("UPDATE message SET size=size+1 WHERE number=?", (shorter,))
    connection.close()
    (data_dir / "bodies" / queue_id(large)).unlink()
    os.truncate(data_dir / "bodies" / queue_id(cut), 10)
    (data_dir / "bodies" / queue_id(1 << 41)).write_bytes(b"in nobody's way")
    told = mtactl("spool", "verify", "--data-dir", data_dir)
    assert told.exit_code == 65
    for number, words in (
        (alone, "its envelope and body are lost"),
        (unaddressed, "its recipients are lost; it is from <me@example.com>"),
        (shorter, f"its body has {kept[shorter].size} octets instead of {kept[shorter].size + 1}"),
        (large, "its body's file is missing"),
        (cut, f"its body's file has 10 octets instead of {kept[cut].size}"),
    ):
        assert f"message {queue_id(number)}: {words}" in told.stdout
    assert len(told.stdout.splitlines()) == 6, "and nothing else"


def test_body_files_that_nobody_needs_are_no_damage(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    (data_dir / "bodies" / queue_id(1 << 41)).write_bytes(b"")
    result = mtactl("spool", "verify", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert "1 body files that no message needs" in result.stdout


@pytest.mark.parametrize("verb", [("verify",), ("recover",), ("export", "to")])
def test_a_running_server_is_named(spool: tuple[Path, dict[int, Kept]], verb: tuple[str, ...]) -> None:
    data_dir, _ = spool
    hold = "import sys; from mtatwist.store.datadir import DataDir; DataDir(sys.argv[1]).acquire()"
    hold += "; print(1, flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", hold, str(data_dir)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, env=environment, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        result = mtactl("spool", *verb, "--data-dir", data_dir)
        assert result.exit_code == 75
        assert f"in use by process {server.pid}" in result.stderr
        server.kill()


@pytest.mark.parametrize("verb", [("verify",), ("recover",), ("export", "to")])
def test_where_there_is_no_spool_none_is_made(tmp_path: Path, verb: tuple[str, ...]) -> None:
    result = mtactl("spool", *verb, "--data-dir", tmp_path / "data")
    assert result.exit_code == 66
    assert not (tmp_path / "data").exists()


def test_a_newer_spool_is_left_alone(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    connection = schema.connect(data_dir / "spool.sqlite")
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()
    result = mtactl("spool", "recover", "--data-dir", data_dir)
    assert result.exit_code == 78
    assert f"schema version {schema.VERSION + 1}" in result.output


# export


def exported(to: Path) -> set[int]:
    """The messages whose bytes are there; each must be whole."""
    found = set()
    for path in to.glob("*.eml"):
        number = int(path.stem, 16)
        facts = json.loads(path.with_suffix(".json").read_text())
        assert path.read_bytes() == body(facts["size"], number)
        found.add(number)
    return found


def test_everything_is_exported_octet_for_octet(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    before = content(data_dir)
    result = mtactl("spool", "export", tmp_path / "to", "--data-dir", data_dir)
    assert result.exit_code == 0, result.output
    assert exported(tmp_path / "to") == set(kept)
    assert len(os.listdir(tmp_path / "to")) == 2 * len(kept)
    for number, one in kept.items():
        facts = json.loads((tmp_path / "to" / f"{queue_id(number)}.json").read_text())
        assert facts["id"] == queue_id(number)
        assert facts["reverse_path"] == "me@example.com"
        assert tuple(recipient["address"] for recipient in facts["recipients"]) == one.recipients
        assert facts["recipients"][0]["state"] == "deferred"
        assert facts["recipients"][0]["text"] == "Greylisted\nTry again"
        assert [attempt["text"] for attempt in facts["recipients"][0]["history"]] == ["Greylisted\nTry again"]
    assert content(data_dir) == before


def test_what_can_be_read_of_a_damaged_spool_is_exported(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    harm(data_dir)
    large = next(number for number, one in kept.items() if one.size > 256 * 1024)
    (data_dir / "bodies" / queue_id(large)).unlink()
    before = content(data_dir)
    result = mtactl("spool", "export", tmp_path / "to", "--data-dir", data_dir)
    assert result.exit_code == 65
    assert f"lost: message {queue_id(large)}: its body's file is missing" in result.stdout
    assert (tmp_path / "to" / f"{queue_id(large)}.json").exists(), "its envelope is there"
    found = exported(tmp_path / "to")
    assert found < set(kept)
    assert len(found) > len(kept) * 0.8
    assert content(data_dir) == before


def test_a_second_export_finds_all_already_there(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    to = tmp_path / "to"
    assert mtactl("spool", "export", to, "--data-dir", data_dir).exit_code == 0
    (to / f"{queue_id(next(iter(kept)))}.eml").unlink()
    old = to / f"{queue_id(list(kept)[1])}.json"
    old.write_text(text := old.read_text().replace("Try again", "Try later"))
    before = {file.name for file in to.iterdir()}
    result = mtactl("spool", "export", to, "--data-dir", data_dir)
    assert result.exit_code == 0, result.output
    assert "lost" not in result.stdout
    assert "exported 1 messages" in result.stdout
    assert f"; {len(kept) - 1} more are already there" in result.stdout
    assert f"{old} is of an earlier export" in result.stdout
    assert old.read_text() == text
    assert exported(to) == set(kept)
    assert len({file.name for file in to.iterdir()}) == len(before) + 1


def test_an_export_overwrites_nothing(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    to = tmp_path / "to"
    to.mkdir()
    mine = to / f"{queue_id(next(iter(kept)))}.eml"
    mine.write_text("mine")
    result = mtactl("spool", "export", to, "--data-dir", data_dir)
    assert result.exit_code == 65
    assert f"{mine} exists" in result.stdout
    assert mine.read_text() == "mine"
    assert len(list(to.glob("*.eml"))) == len(kept)


# recover


def test_a_whole_spool_is_not_touched(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    before = content(data_dir)
    result = mtactl("spool", "recover", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert "nothing is damaged" in result.stdout
    assert content(data_dir) == before


@pytest.mark.parametrize("crashed", [False, True])
def test_a_damaged_spool_is_recovered(tmp_path: Path, crashed: bool) -> None:
    data_dir = tmp_path / "data"
    kept = (damage.make_crashed if crashed else damage.make)(data_dir, 200)
    large = next(number for number, one in kept.items() if one.size > 256 * 1024)
    (data_dir / "bodies" / queue_id(large)).unlink()
    if not crashed:
        harm(data_dir)
    before = content(data_dir)
    result = mtactl("spool", "recover", "--data-dir", data_dir)
    assert result.exit_code == 65, result.output
    assert f"lost: message {queue_id(large)}: its body's file is missing" in result.stdout
    found = damage.found(data_dir / "spool.sqlite", data_dir)
    assert all(kept[number] == one for number, one in found.items())
    assert len(found) > len(kept) * 0.8
    assert mtactl("spool", "verify", "--data-dir", data_dir).exit_code == 0
    after = content(data_dir)
    (aside,) = (name for name in after if name.startswith("spool.sqlite.damaged-") and not name.endswith("-wal"))
    assert after[aside] == before["spool.sqlite"], "nothing is deleted"
    assert after.get(f"{aside}-wal") == before.get("spool.sqlite-wal")
    with damage.running(data_dir) as (spool, pump):
        assert damage.store(spool, pump, 3).keys().isdisjoint(kept), "no queue id is given twice"
    assert set(content(data_dir)) >= set(after) - {"spool.sqlite-wal"}


def test_bodies_whose_rows_are_lost_are_put_aside(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, kept = spool
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(data_dir, owner, -1)
    large = [number for number, one in kept.items() if one.size > 256 * 1024]
    connection = schema.connect(data_dir / "spool.sqlite")
    connection.execute("DELETE FROM message WHERE number=?", (large[0],))
    connection.close()
    result = mtactl("spool", "recover", "--data-dir", data_dir)
    assert result.exit_code == 65
    assert f"message {queue_id(large[0])}: its envelope and body are lost" in result.stdout
    (aside,) = data_dir.glob("bodies.damaged-*")
    assert os.listdir(aside) == [queue_id(large[0])]
    assert len(os.listdir(data_dir / "bodies")) == len(large) - 1
    assert {path.stat().st_uid for path in (aside, data_dir / "spool.sqlite")} == {owner}, "not root's, whoever ran it"


def test_a_recovery_that_was_not_finished_is_finished(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, kept = spool
    shutil.copy(data_dir / "spool.sqlite", data_dir / check.RECOVERED)
    harm(data_dir)
    assert mtactl("spool", "verify", "--data-dir", data_dir).exit_code == 65
    result = mtactl("spool", "recover", "--data-dir", data_dir)
    assert result.exit_code == 0
    assert "not finished" in result.stdout
    assert damage.found(data_dir / "spool.sqlite", data_dir) == kept
    assert len(list(data_dir.glob("spool.sqlite.damaged-*"))) == 1
