"""Full disks, failing disks and odd text: our trouble is answered 4xx, loses nothing, and passes."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from rigs.messages import AT, body, claim_due, envelope, settled
from rigs.processes import need_root
from rigs.pump import Pump
from rigs.stable_storage import Watch
from twisted.python.failure import Failure

from mtatwist.envelope import Message, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.reply import Reply
from mtatwist.spool import check
from mtatwist.spool.room import ROOM_CHECK
from mtatwist.spool.schema import WAL_LIMIT
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.trouble import Damaged, Trouble
from mtatwist.store.writer import RETRY_SECONDS

SMALL, LARGE = 20_000, 3_000_000


class Rig:
    def __init__(self, data_dir: Path, minimum_free: int = 0, ballast: int = 0) -> None:
        self.data_dir = data_dir
        self.pump = Pump()
        self.pump.now = 1000.0
        self.metrics = Instruments()
        self.spool = SqliteSpool(
            data_dir,
            reactor=self.pump,  # type: ignore[arg-type]
            metrics=self.metrics,
            minimum_free=minimum_free,
            ballast=ballast,
        )
        self.spool.start()

    def store(self, size: int, chunk: int = 64 * 1024) -> Message | Failure:
        """As the receiver does: on a failure it answers 451 and aborts."""
        writer = self.spool.create(envelope())
        data = body(size)
        for start in range(0, size, chunk):
            pause = writer.write(data[start : start + chunk])
            if pause is not None:
                self.pump.wait(pause)
        outcome: Message | Failure = self.pump.outcome(writer.commit())
        if isinstance(outcome, Failure):
            writer.abort()
        return outcome

    def recover(self) -> None:
        """The writer opens the database again, and finds it good."""
        self.pump.advance(RETRY_SECONDS)
        self.pump.until(lambda: self.spool._writer.trouble is None)

    def found(self) -> list[Message]:
        """What the database holds."""
        with contextlib.closing(apsw.Connection(str(self.data_dir / "spool.sqlite"))) as database:
            rows = database.execute("SELECT number, size FROM message").fetchall()
        return [Message(number, envelope(), size) for number, size in rows]

    def fill(self, size: int) -> list[Message]:
        """Store messages until there is no room."""
        stored = []
        while isinstance(outcome := self.store(size), Message):
            stored.append(outcome)
        return stored

    def check(self, messages: list[Message]) -> None:
        """These are there, and whole; and no file but theirs."""
        for message in messages:
            message.body = None
            read = self.pump.wait(self.spool.read(message, 0, message.size + 1))
            assert read == body(message.size), f"{message.id} was acknowledged"
        assert {message.id for message in messages if message.size == LARGE} == self.files()

    def deliver(self, messages: list[Message]) -> None:
        self.pump.wait(self.spool.settle([settled(message, 0, State.DELIVERED) for message in messages], []))

    def files(self) -> set[str]:
        return set(os.listdir(self.data_dir / "bodies"))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "data")
    yield rig
    rig.spool.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    need_root("mounts a small tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_loses_nothing_and_passes(small_disk: Path) -> None:
    rig = Rig(small_disk / "data")
    in_the_way = small_disk / "in the way"
    in_the_way.write_bytes(bytes(1 << 20))
    try:
        assert not rig.spool.has_room(0), "452 long before"
        stored = [*rig.fill(LARGE), *rig.fill(SMALL)]
        assert len(stored) > 10
        rig.check(stored)
        assert isinstance(rig.store(SMALL), Failure)
        in_the_way.unlink()
        rig.recover()
        # Delivering needs a little room to write that down, and then makes room.
        rig.deliver(stored)
        stored = [one for one in (rig.store(SMALL) for _ in range(3)) if isinstance(one, Message)]
        assert len(stored) == 3
        large = rig.store(LARGE)
        assert isinstance(large, Message)
        stored.append(large)
        rig.check(stored)
    finally:
        rig.spool.stop()
    again = Rig(small_disk / "data")
    assert {message.number for message in again.found()} == {message.number for message in stored}
    again.check(again.found())
    again.spool.stop()


@pytest.mark.parametrize("chunk", [64 * 1024, 1_000])
def test_a_file_size_limit_loses_nothing_and_passes(rig: Rig, chunk: int) -> None:
    """What a full disk does, for those who are not root: no file may grow. Small chunks wait in the file's buffer."""
    stored = [message for message in (rig.store(SMALL), rig.store(LARGE)) if isinstance(message, Message)]
    assert len(stored) == 2
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert isinstance(rig.store(LARGE, chunk), Failure)
        stored += rig.fill(SMALL)
        assert rig.metrics.spool_trouble_io.value == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    rig.recover()
    for size in (SMALL, LARGE):
        message = rig.store(size)
        assert isinstance(message, Message)
        stored.append(message)
    rig.check(stored)


def test_the_ballast_lets_a_full_disk_drain(small_disk: Path) -> None:
    """What fills the disk stays: there is only the room that was kept."""
    rig = Rig(small_disk / "data", ballast=1 << 20)
    ballast = rig.data_dir / "ballast"
    try:
        # Too small a disk to be filled by new mail alone: has_room() would have said no long before.
        rig.spool._room._ballast.make()
        assert ballast.stat().st_blocks * 512 >= 1 << 20
        stored = rig.fill(SMALL)
        assert len(stored) > 100
        assert rig.metrics.spool_trouble_full.value == 1
        assert not ballast.exists(), "given back"
        assert not rig.spool.has_room(0)
        rig.recover()
        assert not rig.spool.has_room(0), "what there is is for the queue"
        rig.deliver(stored)
        assert rig.found() == []
        assert rig.metrics.ballast_given_back.value == 1
    finally:
        rig.spool.stop()


def test_the_ballast_is_made_again_when_there_is_room_for_it_and_new_mail(
    tmp_path: Path, disk: SimpleNamespace
) -> None:
    size = 1 << 20
    rig = Rig(tmp_path / "data", ballast=size)
    ballast = rig.data_dir / "ballast"
    try:
        disk.f_bavail = (WAL_LIMIT + size) // 4096 - 1
        rig.pump.now += ROOM_CHECK
        assert not rig.spool.has_room(0)
        assert not ballast.exists()
        disk.f_bavail += 1
        rig.pump.now += ROOM_CHECK
        assert rig.spool.has_room(0)
        rig.pump.until(lambda: ballast.exists() and not rig.spool._room._making)
        assert ballast.stat().st_size == size
        disk.f_bavail -= size // 4096
        assert rig.spool.has_room(0), "it is in its place"
    finally:
        rig.spool.stop()


def test_a_ballast_that_can_not_be_made_is_tried_again(
    tmp_path: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "data", ballast=4096)

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    try:
        disk.f_bavail = 1 << 20
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", fail)
            rig.pump.now += ROOM_CHECK
            assert rig.spool.has_room(0)
            rig.pump.until(lambda: not rig.spool._room._making)
            assert not (rig.data_dir / "ballast").exists()
        rig.pump.now += ROOM_CHECK
        assert rig.spool.has_room(0)
        rig.pump.until(lambda: (rig.data_dir / "ballast").exists() and not rig.spool._room._making)
    finally:
        rig.spool.stop()


def test_a_smaller_or_no_ballast_leaves_none_of_the_larger(tmp_path: Path) -> None:
    ballast = tmp_path / "data" / "ballast"
    for size in (1 << 20, 4096, 0):
        rig = Rig(tmp_path / "data", ballast=size)
        while size and (not ballast.exists() or rig.spool._room._making):
            rig.pump.drain()
        rig.spool.stop()
        assert (ballast.stat().st_size if ballast.exists() else 0) == size


# Errors of the disk.


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.unregister()


def test_a_disk_that_fails_takes_no_new_mail_and_is_believed_again_later(watch: Watch, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    assert isinstance(rig.store(SMALL), Message)
    assert rig.spool.has_room(0)

    def fail(path: str) -> None:
        raise apsw.IOError("disk I/O error")

    watch.on_sync = fail
    assert isinstance(rig.store(SMALL), Failure)
    assert isinstance(rig.store(LARGE), Failure)
    assert not rig.spool.has_room(0)
    rig.pump.advance(RETRY_SECONDS)
    assert isinstance(rig.store(SMALL), Failure)
    watch.on_sync = lambda path: None
    rig.recover()
    assert rig.spool.has_room(0)
    assert isinstance(rig.store(SMALL), Message)
    assert len(rig.found()) == 2, "what was answered 451 is not there"
    rig.pump.until(lambda: not rig.files())
    rig.spool.stop()


def test_a_read_that_fails_has_the_database_verified(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rig.store(LARGE)
    assert isinstance(message, Message)

    def fail(*arguments: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(rig.spool._bodies, "read", fail)
    assert rig.pump.outcome(rig.spool.read(message, 0, 10)).check(OSError)
    rig.recover()
    assert rig.metrics.spool_trouble_io.value == 1
    monkeypatch.undo()
    rig.check([message])


def test_a_body_that_was_deleted_by_hand_is_no_trouble_of_the_disk(rig: Rig) -> None:
    message = rig.store(LARGE)
    assert isinstance(message, Message)
    (rig.data_dir / "bodies" / message.id).unlink()
    assert rig.pump.outcome(rig.spool.read(message, 0, 10)).check(FileNotFoundError)
    rig.pump.drain()
    assert rig.spool._writer.trouble is None


def test_damage_that_a_reader_meets_ends_acceptance(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rig.store(LARGE)
    assert isinstance(message, Message)

    def fail(*arguments: Any) -> bytes:
        raise apsw.CorruptError("database disk image is malformed")

    monkeypatch.setattr(rig.spool._tables, "read_body", fail)
    assert rig.pump.outcome(rig.spool.read(message, 0, 10)).check(apsw.CorruptError)
    rig.pump.until(lambda: rig.metrics.spool_trouble_corrupt.value == 1)
    rig.pump.advance(100 * RETRY_SECONDS)
    assert isinstance(rig.store(SMALL), Failure)
    assert not rig.spool.has_room(0)


def test_what_the_disk_does_not_give_is_no_damage(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says the same of both."""
    message = rig.store(LARGE)
    assert isinstance(message, Message)
    broken = True

    def fail(*arguments: Any) -> bytes:
        raise apsw.CorruptError("database disk image is malformed")

    def unreadable(*arguments: Any) -> apsw.IOError | None:
        return apsw.IOError("disk I/O error") if broken else None

    monkeypatch.setattr(rig.spool._tables, "read_body", fail)
    monkeypatch.setattr(rig.spool._writer, "_verify", lambda connection: fail() if broken else None)
    monkeypatch.setattr(check, "unreadable", unreadable)
    assert rig.pump.outcome(rig.spool.read(message, 0, 10)).check(apsw.CorruptError)
    rig.pump.until(lambda: rig.metrics.spool_trouble_io.value == 1)
    assert isinstance(rig.store(SMALL), Failure)
    rig.pump.advance(5 * RETRY_SECONDS)
    rig.pump.drain()
    assert rig.spool._writer.trouble is Trouble.IO, "it still can't be read, and is tried again and again"
    broken = False
    rig.recover()
    assert rig.metrics.spool_trouble_corrupt.value == 0
    assert isinstance(rig.store(SMALL), Message)


SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
"""Where SQLite's readers lock its file: see "SHARED_FIRST" in its sources."""


def test_to_read_the_files_lets_go_of_no_lock(rig: Rig) -> None:
    """POSIX has it that closing a file by any descriptor lets go of all that the process has locked in it."""
    database = rig.data_dir / "spool.sqlite"
    lock = f"import fcntl; fcntl.lockf(open({str(database)!r}, 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB, "

    def another_may_lock() -> bool:
        tried = [sys.executable, "-c", f"{lock}{SHARED_SIZE}, {SHARED_FIRST})"]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0

    assert isinstance(rig.store(SMALL), Message)
    assert not another_may_lock()
    assert check.unreadable(database, rig.pump.seconds) is None
    assert not another_may_lock()
    with database.open("rb"):
        pass
    assert another_may_lock(), "it is seen when they are gone"


@pytest.mark.parametrize(("readable", "error"), [(True, Damaged), (False, apsw.IOError)])
def test_a_start_tells_damage_from_a_disk_that_can_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool, error: type[Exception]
) -> None:
    def glance(*arguments: Any) -> None:
        raise apsw.CorruptError("database disk image is malformed")

    def unreadable(*arguments: Any) -> apsw.IOError | None:
        return None if readable else apsw.IOError("disk I/O error")

    monkeypatch.setattr(check, "glance", glance)
    monkeypatch.setattr(check, "unreadable", unreadable)
    with pytest.raises(error):
        Rig(tmp_path / "data")


def test_another_database_in_its_place_is_left_alone(rig: Rig, tmp_path: Path) -> None:
    """An administrator's mistake: a backup that was brought back under a running server."""
    assert isinstance(rig.store(SMALL), Message)
    other = Rig(tmp_path / "other")
    other.spool.stop()
    other = Rig(tmp_path / "other")
    other.spool.stop()
    os.replace(tmp_path / "other" / "spool.sqlite", rig.data_dir / "spool.sqlite")
    before = (rig.data_dir / "spool.sqlite").read_bytes()
    rig.spool._writer.doubt(OSError(5, "Input/output error"))
    rig.pump.until(lambda: rig.spool._writer.trouble is Trouble.CORRUPT)
    assert isinstance(rig.store(SMALL), Failure)
    assert (rig.data_dir / "spool.sqlite").read_bytes() == before


# has_room().


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the file system says of itself."""
    disk = SimpleNamespace(f_bavail=0, f_frsize=4096, f_favail=1000, f_files=2000)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    return disk


@pytest.mark.parametrize(
    ("minimum_free", "size", "needed"),
    [
        (0, 0, WAL_LIMIT),
        (0, 10 << 20, WAL_LIMIT + (20 << 20)),
        (100 << 20, 0, 100 << 20),
        (100 << 20, 64 << 20, 160 << 20),
    ],
)
def test_there_is_room_while_the_queue_can_drain(
    tmp_path: Path, disk: SimpleNamespace, minimum_free: int, size: int, needed: int
) -> None:
    rig = Rig(tmp_path / "data", minimum_free)
    disk.f_bavail = needed // 4096
    assert rig.spool.has_room(size)
    rig.pump.now += ROOM_CHECK
    disk.f_bavail -= 1
    assert not rig.spool.has_room(size)
    rig.spool.stop()


def test_the_disk_is_not_asked_for_every_message(rig: Rig, disk: SimpleNamespace) -> None:
    assert not rig.spool.has_room(0)
    disk.f_bavail = 1 << 30
    assert not rig.spool.has_room(0)
    rig.pump.now += ROOM_CHECK
    assert rig.spool.has_room(0)


def test_without_inodes_there_is_no_room(rig: Rig, disk: SimpleNamespace) -> None:
    disk.f_bavail, disk.f_favail = 1 << 30, 0
    assert not rig.spool.has_room(0)
    rig.pump.now += ROOM_CHECK
    disk.f_files = 0
    assert rig.spool.has_room(0), "a file system that does not count them"


def test_a_disk_that_does_not_answer_has_no_room(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    assert not rig.spool.has_room(0)


# Commits of which nobody knows whether they took place.


def test_a_settlement_that_took_place_after_all_can_be_repeated(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay manager repeats it until it hears that it is done; the report is stored once."""
    message = rig.store(SMALL)
    assert isinstance(message, Message)
    reports = [rig.spool.create(envelope("me@example.com", reverse_path="")) for _ in range(2)]
    reports[0].write(body(SMALL))
    reports[1].write(body(LARGE))
    results = [settled(message, 0, State.FAILED)]
    writer: Any = rig.spool._writer

    def answer_lost(group: Any) -> Any:
        writer.__class__._commit(writer, group)
        return [(done, False, apsw.IOError("disk I/O error")) for _, _, done in group]

    monkeypatch.setattr(writer, "_commit", answer_lost)
    assert rig.pump.outcome(rig.spool.settle(results, reports)).check(apsw.IOError)
    monkeypatch.undo()
    stored = rig.pump.wait(rig.spool.settle(results, reports))
    assert [one.number for one in stored] == [report.number for report in reports]
    rig.check(stored)
    rig.pump.wait(rig.spool.release([(one.number, 0, AT) for one in stored]))
    assert len(claim_due(rig.spool, rig.pump.wait, AT)) == 2


def test_a_file_stays_while_its_row_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a start after a crash might find the row, and a message without its body."""
    rig = Rig(tmp_path / "data")

    def fail(*arguments: Any) -> None:
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(rig.spool._tables, "insert", fail)
    assert isinstance(rig.store(LARGE), Failure)
    assert len(rig.files()) == 1
    rig.spool.stop()
    again = Rig(rig.data_dir)
    again.spool.stop()
    assert not rig.files(), "the next start knows"


def test_text_that_is_not_unicode_stops_no_claim(rig: Rig) -> None:
    message = rig.store(SMALL)
    assert isinstance(message, Message)
    odd = settled(message, 0, State.DEFERRED, AT)
    odd = odd.__class__(
        odd.number, 0, State.DEFERRED, Reply(451, "4.3.0", "caf\udce9 \x00 ü\n\U0001f600"), "h\udc80", AT, AT
    )
    rig.pump.wait(rig.spool.settle([odd], []))
    (claimed,) = claim_due(rig.spool, rig.pump.wait, AT)
    assert claimed.envelope.recipients[0].last_reply == Reply(451, "4.3.0", "caf? \x00 ü\n\U0001f600")


def test_a_damaged_envelope_spoils_no_other(rig: Rig) -> None:
    """One that SQLite will not take is refused alone, also when it shares a group."""
    bad = rig.spool.create(envelope("you\udc80@example.org"))
    good = [rig.spool.create(envelope()) for _ in range(5)]
    commits = [writer.commit() for writer in (good[0], bad, *good[1:])]
    outcomes = [rig.pump.outcome(commit) for commit in commits]
    assert [isinstance(outcome, Message) for outcome in outcomes] == [True, False, True, True, True, True]
