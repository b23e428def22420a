"""Group commit: what shares a transaction, who is told of a failure, and what is believed after one."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from rigs.pump import Pump
from rigs.stable_storage import Watch
from twisted.python.failure import Failure

from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import schema
from mtatwist.store.trouble import StoreBroken, Trouble
from mtatwist.store.writer import GROUP_LIMIT, RETRY_SECONDS, Writer, WriterStopped

#: Connections of a writer without trouble: its own, and the one that remembers where the log ends.
AT_START = 2


def insert(connection: apsw.Connection, payloads: Sequence[int]) -> list[int]:
    """Each value has to be new."""
    for value in payloads:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    return [value * 10 for value in payloads]


class Rig:
    """A writer on a table with one column, whose thread stands still between :meth:`hold` and :meth:`go`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pump = Pump()
        self.metrics = Instruments()
        self.opened = 0
        self.on_connect: Callable[[], None] = lambda: None
        self.relieved: list[Trouble] = []
        self.recoveries = 0
        self.on_verify: Callable[[], None] = lambda: None
        self.writer = Writer(
            self._connect,
            reactor=self.pump,  # type: ignore[arg-type]
            metrics=self.metrics,
            verify=self._verify,
            relieve=self.relieved.append,
            recovered=self._recovered,
        )
        self._gate = threading.Event()
        connection = schema.connect(path)
        connection.execute("CREATE TABLE t (x UNIQUE); CREATE TABLE verified (x)")
        connection.close()

    def _connect(self) -> apsw.Connection:
        self.on_connect()
        self.opened += 1
        return schema.connect(self.path)

    def _verify(self, connection: apsw.Connection) -> None:
        self.on_verify()
        connection.execute("INSERT INTO verified VALUES (1)")

    def _recovered(self) -> None:
        self.recoveries += 1

    def recover(self) -> None:
        """Until the trouble is over, or another try has failed."""
        self.pump.advance(RETRY_SECONDS)
        self.pump.until(lambda: self.writer.trouble is None)

    def fail(self, error: Exception) -> Any:
        """What becomes of a job that meets ``error``."""

        def meet(connection: apsw.Connection, payloads: Sequence[Any]) -> list[Any]:
            raise error

        return self.pump.outcome(self.writer.submit(meet, None))

    def hold(self) -> None:
        """The writer is busy from here on, with a group of its own."""
        begun = threading.Event()

        def wait(connection: apsw.Connection, payloads: Sequence[None]) -> Sequence[None]:
            begun.set()
            assert self._gate.wait(30)
            return payloads

        self._gate.clear()
        self.writer.submit(wait, None)
        self.pump.drain()
        assert begun.wait(30)

    def go(self) -> None:
        self._gate.set()

    def insert_while_busy(self, *values: int) -> list[Any]:
        """What became of inserts that were waiting together."""
        self.hold()
        waiting = [self.writer.submit(insert, value) for value in values]
        self.pump.drain()
        self.go()
        return [self.pump.outcome(deferred) for deferred in waiting]

    def stored(self) -> list[int]:
        reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY, vfs="unix")
        try:
            return [x for (x,) in reader.execute("SELECT x FROM t ORDER BY x")]
        finally:
            reader.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "x.sqlite")
    rig.writer.start()
    yield rig
    rig.go()
    rig.writer.stop()


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.unregister()


def kinds(outcomes: list[Any]) -> set[Any]:
    return {outcome.type if isinstance(outcome, Failure) else type(outcome) for outcome in outcomes}


def test_a_lone_job_is_committed_at_once(rig: Rig) -> None:
    assert rig.pump.wait(rig.writer.submit(insert, 7)) == 70
    assert rig.stored() == [7]


def test_there_is_time_for_other_work_while_the_thread_is_at_it(rig: Rig) -> None:
    done: list[str] = []
    rig.hold()
    rig.writer.meanwhile = lambda: done.append("other work")
    waiting = rig.writer.submit(insert, 7)
    rig.pump.drain()
    assert done == ["other work"]
    rig.go()
    assert rig.pump.wait(waiting) == 70
    assert done == ["other work"]


def test_what_waits_together_shares_one_flush(watch: Watch, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "x.sqlite")
    rig.writer.start()
    flushes: list[str] = []
    rig.hold()
    waiting = [rig.writer.submit(insert, value) for value in range(100)]
    rig.pump.drain()
    watch.on_sync = flushes.append
    rig.go()
    assert [rig.pump.wait(deferred) for deferred in waiting] == [value * 10 for value in range(100)]
    watch.on_sync = lambda path: None
    rig.writer.stop()
    # A new WAL file's header has a flush of its own.
    assert len([path for path in flushes if path.endswith("-wal")]) <= 2
    assert rig.metrics.spool_groups.value == 2


def test_a_group_has_a_limit(rig: Rig) -> None:
    count = 2 * GROUP_LIMIT + 1
    assert kinds(rig.insert_while_busy(*range(count))) == {int}
    assert rig.metrics.spool_groups.value == 4
    assert rig.stored() == list(range(count))


def test_one_bad_job_spoils_no_other(rig: Rig) -> None:
    outcomes = rig.insert_while_busy(1, 2, 1, 3)
    assert outcomes[0:2] + outcomes[3:] == [10, 20, 30]
    assert outcomes[2].check(apsw.ConstraintError)
    assert rig.stored() == [1, 2, 3]
    assert rig.opened == AT_START
    assert rig.metrics.spool_errors.value == 1


def test_a_bug_in_a_job_is_told_to_who_submitted_it(rig: Rig) -> None:
    good = rig.writer.submit(insert, 1)
    bad = rig.writer.submit(lambda connection, payloads: [], 2)
    assert rig.pump.outcome(bad).check(ValueError)
    assert rig.pump.wait(good) == 10


@pytest.mark.parametrize("kind", [MemoryError, apsw.NoMemError])
def test_a_job_that_gets_no_memory_is_alone_with_that(rig: Rig, kind: type[Exception]) -> None:
    def starve(connection: apsw.Connection, payloads: Any) -> Any:
        raise kind

    good = rig.writer.submit(insert, 1)
    bad = rig.writer.submit(starve, 2)
    also_good = rig.writer.submit(insert, 3)
    assert rig.pump.outcome(bad).check(kind)
    assert [rig.pump.wait(good), rig.pump.wait(also_good)] == [10, 30]
    assert rig.opened == AT_START


def test_an_io_error_fails_everybody_and_nothing_is_believed(rig: Rig) -> None:
    """Not even those of the group who came before it: nobody knows what is on the disk."""
    rig.hold()
    before = rig.writer.submit(insert, 1)

    def broken(connection: apsw.Connection, payloads: Sequence[Any]) -> list[Any]:
        raise apsw.IOError("the disk is gone")

    during, after = rig.writer.submit(broken, None), rig.writer.submit(insert, 2)
    rig.go()
    assert kinds([rig.pump.outcome(deferred) for deferred in (before, during, after)]) == {apsw.IOError}
    assert rig.stored() == []
    rig.recover()
    assert rig.pump.wait(rig.writer.submit(insert, 1)) == 10
    assert rig.opened == AT_START + 1
    assert rig.stored() == [1]
    assert (rig.metrics.spool_trouble_io.value, rig.metrics.spool_recoveries.value, rig.recoveries) == (1, 1, 1)


def test_what_a_failed_flush_left_in_the_log_is_gone_with_the_next_commit(watch: Watch, tmp_path: Path) -> None:
    """It was answered 451: it must neither stay, claimed by nobody, nor come back after a crash."""
    rig = Rig(tmp_path / "x.sqlite")
    rig.writer.start()
    rig.pump.wait(rig.writer.submit(insert, 1))

    def fail(path: str) -> None:
        raise apsw.IOError("the disk is gone")

    watch.on_sync = fail
    assert kinds(rig.insert_while_busy(2, 3)) == {apsw.IOError}
    as_after_a_crash = copy(rig.path, tmp_path / "in doubt")
    assert as_after_a_crash == [1, 2, 3], "whole groups are in the log, though their flush failed"
    watch.on_sync = lambda path: None
    rig.recover()
    assert rig.stored() == [1]
    assert copy(rig.path, tmp_path / "verified") == [1]
    assert rig.pump.wait(rig.writer.submit(insert, 4)) == 40
    rig.writer.stop()
    assert rig.stored() == [1, 4]


def copy(path: Path, directory: Path) -> list[int]:
    """What a start finds in the database and its log as they are now, without SQLite's own memory of them."""
    directory.mkdir()
    for name in (path.name, path.name + "-wal"):
        shutil.copy(path.parent / name, directory)
    with contextlib.closing(apsw.Connection(str(directory / path.name), vfs="unix")) as found:
        return [x for (x,) in found.execute("SELECT x FROM t ORDER BY x")]


def test_while_the_database_can_not_be_opened_everybody_is_told_at_once(rig: Rig) -> None:
    def refuse() -> None:
        raise apsw.CantOpenError("unable to open database file")

    rig.on_connect = refuse
    assert kinds([rig.fail(OSError("the directory is gone"))]) == {OSError}
    assert rig.writer.trouble is Trouble.IO
    for _ in range(3):
        opened = rig.opened
        assert kinds([rig.pump.outcome(rig.writer.submit(insert, 1))]) == {StoreBroken}
        assert rig.opened == opened, "the disk is left alone between two tries"
        rig.pump.advance(RETRY_SECONDS)
    rig.on_connect = lambda: None
    rig.recover()
    assert rig.pump.wait(rig.writer.submit(insert, 1)) == 10
    assert rig.metrics.spool_trouble_io.value == 1, "one trouble, however long"


def test_what_fails_to_be_verified_is_not_used(rig: Rig) -> None:
    def refuse() -> None:
        raise apsw.IOError("still broken")

    rig.on_verify = refuse
    rig.fail(apsw.IOError("broken"))
    rig.pump.advance(RETRY_SECONDS)
    assert kinds([rig.pump.outcome(rig.writer.submit(insert, 1))]) == {StoreBroken}
    rig.on_verify = lambda: None
    rig.recover()
    assert rig.pump.wait(rig.writer.submit(insert, 1)) == 10


def test_the_first_try_is_at_once_and_trouble_that_comes_back_waits(rig: Rig) -> None:
    rig.pump.now = 1000.0
    rig.fail(apsw.IOError("once"))
    rig.pump.until(lambda: rig.writer.trouble is None)
    rig.fail(apsw.IOError("again"))
    rig.pump.drain()
    assert rig.writer.trouble is Trouble.IO
    rig.recover()


def test_damage_is_not_tried_again(rig: Rig) -> None:
    """Every write to a damaged database may damage more of it."""
    rig.pump.wait(rig.writer.submit(insert, 1))
    rig.fail(apsw.CorruptError("database disk image is malformed"))
    assert rig.writer.trouble is Trouble.CORRUPT
    opened = rig.opened
    rig.pump.advance(100 * RETRY_SECONDS)
    assert kinds([rig.pump.outcome(rig.writer.submit(insert, 2))]) == {StoreBroken}
    assert rig.opened == opened
    assert rig.metrics.spool_trouble_corrupt.value == 1
    rig.writer.stop()
    assert Path(f"{rig.path}-wal").stat().st_size, "the log stays as it is, for whoever mends the database"


def test_damage_that_is_found_when_it_is_opened_again_is_not_tried_again(rig: Rig) -> None:
    def refuse() -> None:
        raise apsw.NotADBError("file is not a database")

    rig.on_verify = refuse
    rig.fail(apsw.IOError("broken"))
    rig.pump.until(lambda: rig.writer.trouble is Trouble.CORRUPT)
    rig.on_verify = lambda: None
    rig.pump.advance(100 * RETRY_SECONDS)
    assert kinds([rig.pump.outcome(rig.writer.submit(insert, 1))]) == {StoreBroken}


def test_a_full_disk_is_relieved_before_it_is_opened_again(rig: Rig) -> None:
    rig.fail(apsw.FullError("database or disk is full"))
    assert rig.relieved == [Trouble.FULL]
    rig.recover()
    assert rig.pump.wait(rig.writer.submit(insert, 1)) == 10
    assert rig.metrics.spool_trouble_full.value == 1


def test_a_relief_that_fails_stops_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.writer, "_relieve", lambda trouble: 1 / 0)
    rig.fail(apsw.FullError("database or disk is full"))
    rig.recover()


def test_what_a_reader_met_makes_the_writer_look(rig: Rig) -> None:
    for harmless in (
        ValueError("no trouble of the disk's"),
        apsw.CantOpenError("unable to open database file"),
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        OSError(errno.ENOSPC, "No space left on device"),
    ):
        rig.writer.doubt(harmless)
        assert rig.writer.trouble is None
    assert rig.metrics.spool_trouble_full.value == 1
    rig.writer.doubt(OSError(5, "Input/output error"))
    rig.writer.doubt(OSError(5, "Input/output error"))
    assert rig.writer.trouble is Trouble.IO, "from this moment on"
    rig.recover()
    assert rig.metrics.spool_trouble_io.value == 1
    assert rig.opened == AT_START + 1


def test_stop_waits_for_no_second_try(rig: Rig) -> None:
    rig.fail(apsw.IOError("broken"))
    rig.writer.stop()
    rig.pump.advance(RETRY_SECONDS)
    rig.pump.drain()


def test_somebody_elses_lock_is_waited_for_once(rig: Rig) -> None:
    """An administrator at the database: a group is told after one wait, not after one for each job."""
    other = schema.connect(rig.path)
    assert rig.writer._connection is not None
    waits: list[int] = []

    def give_up(count: int) -> bool:
        waits.append(count)
        return False

    rig.writer._connection.set_busy_handler(give_up)
    other.execute("BEGIN IMMEDIATE")
    outcomes = [rig.writer.submit(insert, value) for value in range(20)]
    assert kinds([rig.pump.outcome(deferred) for deferred in outcomes]) == {apsw.BusyError}
    assert len(waits) < 20
    other.execute("ROLLBACK")
    other.close()
    assert rig.pump.wait(rig.writer.submit(insert, 1)) == 10
    assert rig.opened == AT_START


def test_stop_commits_what_waits(rig: Rig) -> None:
    rig.hold()
    for value in range(GROUP_LIMIT + 10):
        rig.writer.submit(insert, value)
    rig.go()
    rig.writer.stop()
    assert rig.stored() == list(range(GROUP_LIMIT + 10))
    rig.writer.stop()


def test_nothing_is_taken_after_stop(rig: Rig) -> None:
    rig.writer.stop()
    with pytest.raises(WriterStopped):
        rig.pump.wait(rig.writer.submit(insert, 1))
    assert rig.stored() == []


def test_stop_leaves_one_file(rig: Rig) -> None:
    """A stopped spool can be copied: nothing of it is left in the log."""
    rig.pump.wait(rig.writer.submit(insert, 1))
    rig.writer.stop()
    assert [path.name for path in rig.path.parent.iterdir()] == ["x.sqlite"]
