"""Databases with damage of every kind: what can still be read is kept, and nothing else is made of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigs import damage
from rigs.damage import PAGE, Kept

from mtatwist.spool import check, recover
from mtatwist.spool.salvage import Findings, salvage
from mtatwist.store.trouble import Damaged

NOW = "20261122T120000"


@pytest.fixture(scope="module")
def spools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[int, Kept]]]:
    """One that was stopped, and one that crashed."""
    made = tmp_path_factory.mktemp("spools")
    return {
        "stopped": (made / "stopped", damage.make(made / "stopped")),
        "crashed": (made / "crashed", damage.make_crashed(made / "crashed")),
    }


@pytest.fixture
def spool(spools: dict[str, tuple[Path, dict[int, Kept]]], tmp_path: Path) -> tuple[Path, dict[int, Kept]]:
    """A copy of the one that was stopped, to do harm to."""
    path, kept = spools["stopped"]
    shutil.copytree(path, tmp_path / "data")
    return tmp_path / "data", kept


def salvaged(data_dir: Path, target: Path) -> tuple[Findings, dict[int, Kept]]:
    findings = salvage(data_dir, target)
    return findings, damage.found(target, data_dir)


@pytest.mark.parametrize("which", ["stopped", "crashed"])
def test_nothing_is_missing_and_nothing_comes_back_where_there_is_no_damage(
    spools: dict[str, tuple[Path, dict[int, Kept]]], tmp_path: Path, which: str
) -> None:
    path, kept = spools[which]
    findings, found = salvaged(path, tmp_path / "new.sqlite")
    assert found == kept
    assert findings.lost == findings.notes == []
    assert (findings.messages, findings.recipients) == (len(kept), sum(len(one.recipients) for one in kept.values()))


@pytest.mark.parametrize("which", ["stopped", "crashed"])
def test_the_history_of_attempts_is_kept(
    spools: dict[str, tuple[Path, dict[int, Kept]]], tmp_path: Path, which: str
) -> None:
    path, kept = spools[which]
    shutil.copytree(path, tmp_path / "data")
    recover.recover(tmp_path / "data", NOW)
    assert sorted({number for number, *_ in history_of(tmp_path / "data" / "spool.sqlite")}) == sorted(kept)


def test_the_history_of_what_is_lost_is_dropped(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, kept = spool
    lost = min(kept)
    with contextlib.closing(apsw.Connection(str(data_dir / "spool.sqlite"))) as connection:
        connection.execute("DELETE FROM message WHERE number=?", (lost,))
    recover.recover(data_dir, NOW)
    assert {number for number, *_ in history_of(data_dir / "spool.sqlite")} == set(kept) - {lost}


def history_of(database: Path) -> list[Any]:
    with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return connection.execute("SELECT * FROM attempt").fetchall()


def test_any_page_can_be_lost(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    """Each costs what stood on it, and no more."""
    data_dir, kept = spool
    whole = (data_dir / "spool.sqlite").read_bytes()
    chance = random.Random(1)
    for page in sorted({1, 2, 3, 4, 5, *chance.sample(range(6, damage.pages(data_dir) + 1), 8)}):
        damage.overwrite(data_dir, page, bytes(PAGE))
        target = tmp_path / f"{page}.sqlite"
        findings, found = salvaged(data_dir, target)
        assert found.keys() <= kept.keys() or findings.notes
        lost = [number for number in kept if found.get(number) != kept[number]]
        # The recipients of sixty messages may stand on one page.
        assert len(lost) < 60
        (data_dir / "spool.sqlite").write_bytes(whole)
        target.unlink()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 200))
def test_no_damage_makes_it_crash_or_invent_anything(
    spools: dict[str, tuple[Path, dict[int, Kept]]], tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int
) -> None:
    path, kept = spools["crashed" if seed % 2 else "stopped"]
    data_dir = tmp_path_factory.mktemp("flipped") / "data"
    shutil.copytree(path, data_dir)
    chance = random.Random(seed)
    names = [name for name in ("spool.sqlite", "spool.sqlite-wal") if (data_dir / name).exists()]
    for _ in range(flips):
        file = data_dir / chance.choice(names)
        at = chance.randrange(file.stat().st_size)
        with file.open("r+b") as stream:
            stream.seek(at)
            octet = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([octet ^ 1 << chance.randrange(8)]))
    if damage_of_version(data_dir):
        return
    findings = recover.recover(data_dir, NOW)
    assert findings.messages <= len(kept) + 200
    with damage.running(data_dir):
        pass
    shutil.rmtree(data_dir.parent)


def damage_of_version(data_dir: Path) -> bool:
    """One flipped bit makes it a newer database, which is another story."""
    with (data_dir / "spool.sqlite").open("rb") as file:
        return int.from_bytes(file.read(64)[60:64], "big") > 100


def test_without_its_header_all_of_it_is_found(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    damage.overwrite(data_dir, 1, os.urandom(PAGE))
    findings, found = salvaged(data_dir, tmp_path / "new.sqlite")
    assert found.items() >= kept.items()
    assert any("delivered again" in note for note in findings.notes)
    assert any("last run" in note for note in findings.notes)


def test_of_a_truncated_file_the_rest_is_found(spool: tuple[Path, dict[int, Kept]], tmp_path: Path) -> None:
    data_dir, kept = spool
    os.truncate(data_dir / "spool.sqlite", damage.pages(data_dir) // 2 * PAGE + 100)
    _, found = salvaged(data_dir, tmp_path / "new.sqlite")
    whole = [number for number in found if found[number] == kept.get(number)]
    assert len(whole) > len(kept) // 4


def test_a_log_that_breaks_off_counts_up_to_its_last_commit(tmp_path: Path) -> None:
    """As after a power cut: SQLite reads it the same way."""
    kept = damage.make_crashed(tmp_path / "data", 60)
    log = tmp_path / "data" / "spool.sqlite-wal"
    os.truncate(log, log.stat().st_size * 2 // 3)
    _, found = salvaged(tmp_path / "data", tmp_path / "new.sqlite")
    assert found == damage.found(tmp_path / "data" / "spool.sqlite", tmp_path / "data")
    assert 0 < len(found) < len(kept)


# The look at the start.


def test_a_start_refuses_what_it_sees_to_be_damaged(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    damage.overwrite(data_dir, damage.pages(data_dir) // 2, b"\xff" * PAGE)
    before = (data_dir / "spool.sqlite").read_bytes()
    with pytest.raises(Damaged), damage.running(data_dir):
        pass
    assert (data_dir / "spool.sqlite").read_bytes() == before


@pytest.mark.parametrize("empty", [True, False])
def test_a_start_does_not_begin_anew_where_there_is_a_log(
    spools: dict[str, tuple[Path, dict[int, Kept]]], tmp_path: Path, empty: bool
) -> None:
    """SQLite would delete it."""
    shutil.copytree(spools["crashed"][0], tmp_path / "data")
    database, log = tmp_path / "data" / "spool.sqlite", tmp_path / "data" / "spool.sqlite-wal"
    database.write_bytes(b"")
    if not empty:
        database.unlink()
    before = log.read_bytes()
    with pytest.raises(Damaged, match="missing or empty"), damage.running(tmp_path / "data"):
        pass
    assert log.read_bytes() == before


def test_a_start_does_not_begin_anew_where_there_are_bodies(spool: tuple[Path, dict[int, Kept]]) -> None:
    data_dir, _ = spool
    (data_dir / "spool.sqlite").unlink()
    bodies = sorted(os.listdir(data_dir / "bodies"))
    with pytest.raises(Damaged, match="bodies"), damage.running(data_dir):
        pass
    assert sorted(os.listdir(data_dir / "bodies")) == bodies


def test_a_look_at_the_start_is_short() -> None:
    """It stops when its time is over, wherever it is."""
    times = iter(range(1000))
    connection = check.apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (x)")
    numbers = "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c LIMIT 100000)"
    connection.execute(f"{numbers} INSERT INTO t SELECT x FROM c")
    check.glance(connection, lambda: float(next(times)), 2.0)
    assert next(times) < 10


# Taking its place.


def test_a_recovery_that_is_cut_short_is_finished_later(
    spool: tuple[Path, dict[int, Kept]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its renames is the last: no start takes one database for the other."""
    data_dir, kept = spool
    whole = data_dir.with_name("whole")
    shutil.copytree(data_dir, whole)
    rename = Path.rename
    for limit in range(1, 50):
        shutil.rmtree(data_dir)
        shutil.copytree(whole, data_dir)
        left = limit

        def dying(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying)
            try:
                recover.recover(data_dir, NOW)
            except KeyboardInterrupt:
                pass
            else:
                break
        if (data_dir / check.RECOVERED).exists():
            with pytest.raises(Damaged, match="not finished"), damage.running(data_dir):
                pass
            recover.finish(data_dir, NOW)
        with damage.running(data_dir):
            pass
        assert damage.found(data_dir / "spool.sqlite", data_dir) == kept
    assert limit > 2
