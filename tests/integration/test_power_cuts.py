"""The power is cut, as far as a machine can do that to itself: no 250 may have promised what is not there afterwards.

The spool lies on an ext4 in a file, on a loop device. That file is copied at a random moment, under load: it holds what
the file system had given to its disk by then, and nothing of what was only in memory. The copy is mounted, which plays
its journal back, and a server starts on it. What had been acknowledged by that moment must be there.

Needs root, loop devices and ext4.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from rigs.client import Client
from rigs.faults import LoopDisk
from rigs.ledger import Entry, Ledger, Load, message
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

UNSYNCED = [sys.executable, str(Path(__file__).parents[1] / "rigs" / "unsynced_twistd.py")]

SPOOL = {"minimum_free": "1MiB", "ballast": "64KiB"}

#: Messages a second, under slow load: a flush that is missing shows where no other follows soon.
SLOWLY = 4


@dataclass
class Cut:
    """A moment: the disk as it was then, and what had been promised."""

    image: Path
    promised: dict[str, Entry]


class Slowly:
    """Some messages a second, small and large, each on its own."""

    def __init__(self, ledger: Ledger, mta: Mta, seed: int) -> None:
        self.trouble: list[str] = []
        self._ledger = ledger
        self._mta = mta
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        number = 0
        try:
            with Client(self._mta.address()) as client:
                client.ehlo()
                while not self._ended.wait(1 / SLOWLY):
                    number += 1
                    name = f"slow-{number}"
                    content, paths = message(name, self._chance, 0.5, 400_000)
                    entry = Entry(name, paths, hashlib.sha256(content).hexdigest())
                    self._ledger.offer(entry)
                    reply = client.transaction(f"bounces+{name}@client.test", paths, content)
                    if reply.code == 250:
                        self._ledger.acknowledge(Entry(name, paths, entry.digest, reply.text.split()[-1]))
        except Exception as error:
            self.trouble.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Slowly:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(60)


def cut_the_power(
    directory: Path, sink: Sink, *, cuts: int, slowly: bool, between: int, command: Sequence[str] = (), seed: int
) -> int:
    """How many promised messages were not there after ``cuts`` cuts, each after ``between`` more of them."""
    sink.policy = lambda stage, what: "451 4.3.2 not yet"
    chance = random.Random(seed)
    ledger = Ledger()
    disk = LoopDisk(directory / "disk.img", directory / "data").format(megabytes=1024)
    mta = Mta(directory, relaying_to(sink.port, spool=SPOOL), command=command or None)
    made: list[Cut] = []
    with disk.mounted(), mta:
        load: Load | Slowly = Slowly(ledger, mta, seed) if slowly else Load(ledger, seed=seed)
        with load:
            if isinstance(load, Load):
                load.point_at(mta.address())
            for number in range(cuts):
                ledger.wait_for(len(ledger.acknowledged) + between, 120)
                threading.Event().wait(chance.uniform(0, 1))
                # It stands still, so that the copy is of one moment; what it has on its way is not on the disk.
                mta.process.signal(signal.SIGSTOP)
                with ledger.changed:
                    made.append(Cut(directory / f"cut{number}.img", dict(ledger.acknowledged)))
                disk.cut(made[-1].image)
                mta.process.signal(signal.SIGCONT)
        assert load.trouble == []
        mta.kill()
    return sum(lost_in(directory / f"after{number}", cut, ledger) for number, cut in enumerate(made))


def lost_in(directory: Path, cut: Cut, whole: Ledger) -> int:
    """Mount the disk, start a server on it, and count what does not arrive."""
    directory.mkdir()
    with Sink() as sink:
        disk = LoopDisk(cut.image, directory / "data")
        mta = Mta(directory, relaying_to(sink.port, spool=SPOOL))
        with disk.mounted(), mta:
            wait_until(lambda: mta.queued() == 0, 240, lambda: f"{mta.queued()} messages are still queued")
    cut.image.unlink()
    ledger = Ledger()
    ledger.offered, ledger.acknowledged = whole.offered, cut.promised
    account = ledger.account(sink.arrivals)
    print(f"{directory.name}: {len(cut.promised)} messages promised; by recipient: {account}")
    assert account.spoiled == account.other_queue_id == account.reused_queue_ids == account.unknown == 0
    return len({name for name, _ in account.lost})


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("slowly", [False, True], ids=["at full load", "at 4 messages a second"])
def test_a_power_cut_breaks_no_promise(tmp_path: Path, sink: Sink, long_campaign: bool, slowly: bool) -> None:
    between = 10 if slowly else 1000 if long_campaign else 200
    cuts = 5 if long_campaign else 1
    assert cut_the_power(tmp_path, sink, cuts=cuts, slowly=slowly, between=between, seed=7) == 0


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_the_rig_sees_a_spool_that_flushes_nothing(tmp_path: Path, sink: Sink) -> None:
    """The control: the same, with synchronous=OFF, must lose."""
    assert cut_the_power(tmp_path, sink, cuts=1, slowly=False, between=200, command=UNSYNCED, seed=7) > 0
