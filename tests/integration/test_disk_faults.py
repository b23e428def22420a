"""Our own disk fails, for real: everybody is told 4xx at once, nothing that got a 250 is lost, and it passes.

A disk that is full is a small tmpfs. Errors are put into the system calls of the running server by strace. A file
system that can only be read is an ext4 on a loop device that was told of an error.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rigs.client import Client, Reply, stuffed
from rigs.content import HEAD
from rigs.faults import LoopDisk, failing, fill, free, small_disk
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

#: The promise is one second; what the test allows has room for a machine with other things to do.
SECONDS = 5.0

TEMPORARY = (451, 452)


class Server(Mta):
    """One whose next hop takes nothing yet: all promises rest on the spool."""

    def __init__(self, directory: Path, sink: Sink, **tables: object) -> None:
        self.sink = sink
        self.promised: list[str] = []
        sink.policy = lambda stage, what: "451 4.3.2 not yet"
        limits = {"message_size": "4MiB", "connections_per_address": 1000}
        spool = {"minimum_free": "1MiB", "ballast": "8MiB"}
        super().__init__(directory, relaying_to(sink.port, limits=limits, spool=spool, **tables))

    def send(self, content: bytes = HEAD, client: Client | None = None) -> Reply:
        """Offer a message; the first reply that refuses it, or the last. It comes soon."""
        path = f"{len(self.promised)}@sink.test"
        with contextlib.ExitStack() as stack:
            if client is None:
                client = stack.enter_context(Client(self.address()))
                client.ehlo()
            began = time.monotonic()
            for line in ("MAIL FROM:<a@client.test>", f"RCPT TO:<{path}>", "DATA"):
                reply = client.command(line)
                if reply.code >= 400:
                    break
            else:
                client.send(stuffed(content))
                reply = client.reply()
            assert time.monotonic() - began < SECONDS
        if reply.code == 250:
            self.promised.append(path)
        return reply

    def send_until(self, *codes: int, seconds: float = 20) -> Reply:
        """Offer messages until one gets a reply with one of these codes."""
        return wait_until(
            lambda: reply if (reply := self.send()).code in codes else None, seconds, lambda: f"{codes}: {self.log()}"
        )

    def happened(self, event: str) -> list[dict[str, object]]:
        return [one for one in self.events() if one.get("event") == event]

    def await_event(self, event: str) -> list[dict[str, object]]:
        """The log's file has it a little later than it happens."""
        return wait_until(lambda: self.happened(event), 20, lambda: f"{event}: {self.log()}")

    def drain(self) -> None:
        """The next hop takes mail now: all that was promised arrives, once."""
        self.sink.policy = lambda stage, what: None
        wait_until(lambda: self.queued() == 0, 60, lambda: f"{self.queued()} messages are still queued")
        arrived = [path for arrival in self.sink.arrivals for path in arrival.forward_paths]
        assert sorted(arrived) == sorted(self.promised)


@contextlib.contextmanager
def in_data(server: Server, count: int) -> Iterator[Sequence[Client]]:
    """Sessions that have got their 354."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address())) for _ in range(count)]
        for client in clients:
            client.ehlo()
            client.envelope("a@client.test", ["nobody@sink.test"])
        yield clients


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "data", "100m") as path:
        yield path


def test_a_disk_that_is_nearly_full_is_452_before_the_message(tmp_path: Path, disk: Path, sink: Sink) -> None:
    with Server(tmp_path, sink) as server:
        assert server.send().code == 250
        other = fill(disk, leave=20 << 20)
        refused = server.send_until(452)
        assert refused.text.startswith("4.3.1")
        with Client(server.address()) as client:
            client.ehlo()
            assert client.command("MAIL FROM:<a@client.test> SIZE=10").code == 452, "at MAIL"
        other.unlink()
        server.send_until(250)
        server.drain()
        assert not server.happened("spool_trouble"), "it was seen before it came to that"


def test_without_inodes_it_is_452_before_the_message(tmp_path: Path, sink: Sink) -> None:
    with small_disk(tmp_path / "data", "100m,nr_inodes=40") as disk, Server(tmp_path, sink) as server:
        assert server.send().code == 250
        others = []
        with contextlib.suppress(OSError):
            for number in range(40):
                others.append(disk / f"other{number}")
                others[-1].touch()
        assert server.send_until(452).text.startswith("4.3.1")
        for other in others:
            other.unlink(missing_ok=True)
        server.send_until(250)
        server.drain()


def test_a_full_disk_drains_on_its_ballast(tmp_path: Path, disk: Path, sink: Sink) -> None:
    """It fills while messages are on their way; what filled it stays."""
    ballast = disk / "ballast"
    with Server(tmp_path, sink) as server:
        wait_until(ballast.exists, 10, "there is a ballast")
        for _ in range(20):
            assert server.send(HEAD + b"x" * 70 + b"\r\n").code == 250
        with in_data(server, 40) as clients:
            other = fill(disk)
            replies = []
            for client in clients:
                began = time.monotonic()
                client.send(stuffed(HEAD + (b"x" * 70 + b"\r\n") * 3000))
                replies.append(client.reply())
                assert time.monotonic() - began < SECONDS
        codes = [reply.code for reply in replies]
        assert set(codes) <= {250, *TEMPORARY}
        assert set(codes) & set(TEMPORARY), codes
        server.promised += ["nobody@sink.test"] * codes.count(250)
        wait_until(lambda: server.happened("ballast_given_back"), 10, server.log)
        assert server.send().code == 452
        server.drain()
        server.await_event("spool_recovered")
        assert not ballast.exists()
        assert server.send().code == 452, "the room is the queue's"
        other.unlink()
        server.send_until(250)
        wait_until(ballast.exists, 10, "the ballast is back")
        server.drain()


@pytest.mark.parametrize(
    ("calls", "error", "names"),
    [
        ("fsync,fdatasync", "EIO", ("spool.sqlite-wal", "spool.sqlite")),
        ("pwrite64", "EIO", ("spool.sqlite-wal", "spool.sqlite")),
        ("pread64", "EIO", ("spool.sqlite-wal", "spool.sqlite")),
        ("pwrite64", "EROFS", ("spool.sqlite-wal", "spool.sqlite")),
        ("fsync,fdatasync", "EIO", ("bodies",)),
    ],
    ids=["flush", "write", "read", "read-only", "directory"],
)
def test_a_disk_that_gives_errors(tmp_path: Path, sink: Sink, calls: str, error: str, names: Sequence[str]) -> None:
    content = HEAD + (b"x" * 70 + b"\r\n") * (6000 if "bodies" in names else 10)
    with Server(tmp_path, sink) as server:
        for _ in range(20):
            assert server.send(content).code == 250
        with failing(server.process, calls, error, *(server.data_dir / name for name in names)):
            replies = [server.send(content) for _ in range(20)]
            assert {reply.code for reply in replies} <= {250, *TEMPORARY}
            if calls != "pread64":
                # What SQLite has in its memory need not be read.
                assert replies[0].code in TEMPORARY
                assert not any(reply.code == 250 for reply in replies)
        server.send_until(250)
        assert server.send(content).code == 250
        if calls != "pread64":
            (trouble, *_) = server.await_event("spool_trouble")
            assert trouble["trouble"] == "io"
            server.await_event("spool_recovered")
        server.drain()


def test_a_queue_that_can_not_be_read_is_read_later(tmp_path: Path, sink: Sink) -> None:
    """SQLite calls a page damaged that the disk does not give: that must not be the end."""
    content = HEAD + (b"x" * 70 + b"\r\n") * 1000
    with Server(tmp_path, sink) as server:
        for _ in range(20):
            assert server.send(content).code == 250
        names = ("spool.sqlite-wal", "spool.sqlite")
        with failing(server.process, "pread64", "EIO", *(server.data_dir / name for name in names)):
            trouble = wait_until(lambda: server.happened("spool_trouble"), 20, server.log)[0]
            assert trouble["trouble"] == "io"
        server.await_event("spool_recovered")
        server.drain()


def test_errors_while_the_queue_drains_lose_and_double_nothing(tmp_path: Path, sink: Sink) -> None:
    """Outcomes that could not be written are written later; who was delivered to is not tried again."""
    with Server(tmp_path, sink) as server:
        for _ in range(50):
            assert server.send().code == 250
        sink.policy = lambda stage, what: None
        with failing(server.process, "fsync,fdatasync", "EIO", server.data_dir / "spool.sqlite-wal"):
            wait_until(lambda: server.happened("spool_trouble"), 20, server.log)
            assert server.send().code in TEMPORARY
            wait_until(lambda: len(server.happened("spool_not_opened")) > 3, 30, server.log)
        server.drain()
        assert len(server.happened("spool_trouble")) == 1, "it is told once, however many wait for its end"
        assert len(server.happened("spool_write_failed")) <= 50


@pytest.mark.parametrize("calls", ["fsync,fdatasync", "pwrite64"])
def test_a_crash_while_the_disk_fails_loses_nothing(tmp_path: Path, sink: Sink, calls: str) -> None:
    """What was answered 451 may be there all the same, since nobody could undo it any more; what got a 250 must be."""
    with Server(tmp_path, sink) as server:
        for _ in range(30):
            assert server.send().code == 250
        with failing(server.process, calls, "EIO", server.data_dir / "spool.sqlite-wal"):
            for _ in range(5):
                assert server.send().code in TEMPORARY
            server.kill()
        server.start()
        assert server.send().code == 250
        sink.policy = lambda stage, what: None
        wait_until(lambda: server.queued() == 0, 60, lambda: f"{server.queued()} messages are still queued")
    arrived = Counter(path for arrival in sink.arrivals for path in arrival.forward_paths)
    assert arrived.keys() == set(server.promised)
    # All that was refused had the address that came next.
    assert arrived.total() <= len(server.promised) + 1


def test_a_file_system_that_turns_read_only(tmp_path: Path, sink: Sink) -> None:
    """ext4 lets nobody write again before it was unmounted and checked: here, the server has to be started again."""
    disk = LoopDisk(tmp_path / "disk.img", tmp_path / "data").format(megabytes=128)
    server = Server(tmp_path, sink)
    with disk.mounted("errors=remount-ro"), server:
        for _ in range(50):
            assert server.send().code == 250
        disk.break_down()
        for _ in range(5):
            assert server.send().code in TEMPORARY
        server.await_event("spool_trouble")
        assert server.stop() in (0, -15)
    disk.repair()
    with disk.mounted(), server:
        server.send_until(250)
        server.drain()


def mtactl(server: Server, *words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "mtatwist.control.cli", "spool", *map(str, words), "--config", str(server.config)]
    environment = {**os.environ, **server.environment}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_a_damaged_database_is_refused_and_recovered(tmp_path: Path, sink: Sink) -> None:
    with Server(tmp_path, sink) as server:
        for _ in range(50):
            assert server.send().code == 250
        assert mtactl(server, "verify").returncode == 75, "a server uses it"
        server.stop()
    assert mtactl(server, "verify").returncode == 0
    database = server.data_dir / "spool.sqlite"
    content = database.read_bytes()
    # A page that has rows with messages (SQLite's file format, 1.6), and more than one.
    pages = range(4096, len(content), 4096)
    page = next(at for at in pages if content[at] == 13 and int.from_bytes(content[at + 3 : at + 5], "big") > 1)
    with database.open("r+b") as file:
        file.seek(page)
        file.write(bytes(4096))
    assert server.spawn().wait(30) == 74
    said = server.log()
    assert "the spool is damaged" in said
    for command in ("verify", "export", "recover"):
        assert f"mtactl spool {command}" in said
    assert len(database.read_bytes()) == len(content)
    assert mtactl(server, "verify").returncode == 65
    assert mtactl(server, "export", tmp_path / "saved").returncode == 65
    recovered = mtactl(server, "recover")
    assert recovered.returncode == 65
    sink.policy = lambda stage, what: None
    with server:
        wait_until(lambda: server.queued() == 0, 60, lambda: f"{server.queued()} messages are still queued")
        server.send_until(250)
        wait_until(lambda: server.queued() == 0, 60, lambda: f"{server.queued()} messages are still queued")
    arrived = {path for arrival in sink.arrivals for path in arrival.forward_paths}
    assert arrived <= set(server.promised)
    missing = len(server.promised) - len(arrived)
    assert 0 < missing < 40
    named = [line for line in recovered.stdout.splitlines() if line.startswith("lost: message")]
    assert len(named) == missing


def test_free_room_is_what_the_file_system_says(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "10m") as path:
        fill(path, leave=2 << 20)
        assert 1 << 20 <= free(path) <= 3 << 20
