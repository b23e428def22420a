"""The crash-state table of docs/spool.rst: dies at each of its steps, starts again, and looks at what is there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rigs.messages import AT, REPLIES, body, claim_due, envelope
from rigs.pump import Pump

from mtatwist.envelope import Message, State, queue_id
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.changes import Request
from mtatwist.spool.selection import Selection
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.spool.writer import IN_ROW

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "spool.rst"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])}


@dataclass
class Found:
    """What a start found, and what the process that died had said."""

    told: list[list[str]]
    acknowledged: dict[int, int]
    messages: dict[int, Message] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    next_number: int = 0

    def numbers(self, word: str) -> list[int]:
        return [int(words[1]) for words in self.told if words[0] == word]

    @property
    def unacknowledged(self) -> set[int]:
        return set(self.messages) - set(self.acknowledged)

    def check_promises(self) -> None:
        """What holds after every crash."""
        dropped = self.numbers("dropped")
        for number, size in self.acknowledged.items():
            if number in dropped:
                continue
            assert number in self.messages, f"{number} was acknowledged, and is lost"
            assert self.messages[number].size == size
        for number, message in self.messages.items():
            assert number in self.numbers("id"), "nobody sent this"
            assert self.bodies[number] == body(message.size, number), f"{number} is not what was sent"
        large = {queue_id(number) for number, message in self.messages.items() if message.size > IN_ROW}
        assert self.files == large, "a file without a message, or a message without its file"
        assert self.next_number > max(self.numbers("id"), default=0), "a queue id was given twice"


def dies_at(step: str, data_dir: Path) -> list[list[str]]:
    """What a process said before it died at ``step``."""
    died = subprocess.run(
        [sys.executable, str(HERE / "crashing.py"), str(data_dir), step],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    return [line.split() for line in died.stdout.splitlines()]


def start_again(data_dir: Path, told: list[list[str]], now: float = AT) -> Found:
    """Open the spool like any start, claim what is due, read it, end."""
    found = Found(told, {int(words[1]): int(words[2]) for words in told if words[0] == "250" and words[1] != "in"})
    pump = Pump()
    spool = SqliteSpool(data_dir, reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    try:
        for message in claim_due(spool, pump.wait, now):
            found.messages[message.number] = message
            found.bodies[message.number] = pump.wait(spool.read(message, 0, message.size + 1))
        found.next_number = spool.create(envelope()).number
        stored = pump.wait(spool.create(envelope()).commit())
        assert stored.number > found.next_number, "the spool takes new mail"
    finally:
        # Waits for the sweep.
        spool.stop()
    found.files = set(os.listdir(data_dir / "bodies"))
    return found


def crash(step: str, tmp_path: Path) -> Found:
    """Die at ``step`` and start again; the promises hold."""
    data_dir = tmp_path / "data"
    found = start_again(data_dir, dies_at(step, data_dir))
    found.check_promises()
    return found


def states(message: Message) -> list[tuple[int, State, int]]:
    return sorted((r.index, r.state, r.attempts) for r in message.envelope.recipients)


UNTRIED = [(0, State.PENDING, 0), (1, State.PENDING, 0)]


# Starting.


def test_data_dir_made(tmp_path: Path) -> None:
    assert not crash("data_dir_made", tmp_path).messages


def test_tables_made(tmp_path: Path) -> None:
    assert not crash("tables_made", tmp_path).messages


def test_run_begun(tmp_path: Path) -> None:
    found = crash("run_begun", tmp_path)
    assert found.next_number >> 40 == 2, "the run that died has used its number"


def test_bodies_made(tmp_path: Path) -> None:
    assert not crash("bodies_made", tmp_path).messages


def test_sweep_half_done(tmp_path: Path) -> None:
    told = dies_at("sweep_half_done", tmp_path / "data")
    assert len(os.listdir(tmp_path / "data" / "bodies")) == 4, "three orphans and a message"
    found = start_again(tmp_path / "data", told)
    found.check_promises()
    assert len(found.files) == 1


# Accepting.


def test_before_commit_called(tmp_path: Path) -> None:
    assert not crash("before_commit_called", tmp_path).unacknowledged


def test_rows_inserted(tmp_path: Path) -> None:
    assert not crash("rows_inserted", tmp_path).unacknowledged


def test_committed(tmp_path: Path) -> None:
    found = crash("committed", tmp_path)
    (number,) = found.unacknowledged
    assert states(found.messages[number]) == UNTRIED


def test_acknowledged(tmp_path: Path) -> None:
    found = crash("acknowledged", tmp_path)
    assert len(found.messages) == 4
    assert all(states(message) == UNTRIED for message in found.messages.values()), "due at once, and not counted"


@pytest.mark.parametrize("step", ["file_half_written", "file_written"])
def test_file_half_written(tmp_path: Path, step: str) -> None:
    told = dies_at(step, tmp_path / "data")
    assert len(os.listdir(tmp_path / "data" / "bodies")) == 2
    found = start_again(tmp_path / "data", told)
    found.check_promises()
    assert not found.unacknowledged


def test_file_synced(tmp_path: Path) -> None:
    assert not crash("file_synced", tmp_path).unacknowledged


@pytest.mark.parametrize("step", ["directory_synced", "large_rows_inserted"])
def test_directory_synced(tmp_path: Path, step: str) -> None:
    assert not crash(step, tmp_path).unacknowledged


def test_large_committed(tmp_path: Path) -> None:
    found = crash("large_committed", tmp_path)
    (number,) = found.unacknowledged
    assert states(found.messages[number]) == UNTRIED


def test_abort_before_unlink(tmp_path: Path) -> None:
    assert not crash("abort_before_unlink", tmp_path).unacknowledged


def test_checkpoint_half_done(tmp_path: Path) -> None:
    assert len(crash("checkpoint_half_done", tmp_path).messages) > 10


def test_commit_in_doubt(tmp_path: Path) -> None:
    found = crash("commit_in_doubt", tmp_path)
    assert [words[0] for words in found.told][-3::2] == ["451", "451"], "no 250 without a flush"
    assert all(states(found.messages[number]) == UNTRIED for number in found.unacknowledged)


@pytest.mark.parametrize("lies", ["", "file", "directory", "database"])
def test_power_cut(tmp_path: Path, lies: str) -> None:
    """Without a lie nothing is lost. With any one of the flushes left out something is: each of them is needed."""
    images = tmp_path / "images"
    images.mkdir()
    done = subprocess.run(
        [sys.executable, str(HERE / "power_cuts.py"), str(tmp_path / "data"), str(images), lies],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = [line.split() for line in done.stdout.splitlines()]
    cuts = [words for words in told if words[0] == "cut"]
    assert len(cuts) == 10
    losses = 0
    for _, name, *waiting in cuts:
        try:
            found = start_again(images / name, [])
        except OSError:
            losses += 1
            continue
        whole = {n for n, message in found.messages.items() if found.bodies[n] == body(message.size, n)}
        losses += len({int(number) for number in waiting} - whole)
        if not lies:
            assert set(found.messages) == whole == {int(number) for number in waiting}
            assert found.next_number > max(whole)
    assert bool(losses) == bool(lies)


# Delivering.


def test_claimed(tmp_path: Path) -> None:
    found = crash("claimed", tmp_path)
    assert len(found.messages) == 3
    assert all(states(message) == UNTRIED for message in found.messages.values())


def test_outcome_written(tmp_path: Path) -> None:
    found = crash("outcome_written", tmp_path)
    assert len(found.messages) == 3
    assert all(states(message) == UNTRIED for message in found.messages.values()), "it is delivered a second time"


def test_deferral_committed(tmp_path: Path) -> None:
    told = dies_at("deferral_committed", tmp_path / "data")
    number = max(int(words[1]) for words in told if words[0] == "250")
    found = start_again(tmp_path / "data", told, AT + 59)
    assert number not in found.messages
    found = start_again(tmp_path / "data", told, AT + 60)
    (recipient,) = found.messages[number].envelope.recipients
    assert (recipient.index, recipient.state, recipient.attempts) == (1, State.DEFERRED, 1)
    assert recipient.last_reply == REPLIES[State.DEFERRED]


def test_drop_committed(tmp_path: Path) -> None:
    told = dies_at("drop_committed", tmp_path / "data")
    assert len(os.listdir(tmp_path / "data" / "bodies")) == 2, "the row went first"
    found = start_again(tmp_path / "data", told)
    found.check_promises()
    assert not set(found.numbers("dropped")) & set(found.messages)


def test_body_removed(tmp_path: Path) -> None:
    found = crash("body_removed", tmp_path)
    assert not set(found.numbers("dropped")) & set(found.messages)


def test_report_written(tmp_path: Path) -> None:
    found = crash("report_written", tmp_path)
    ((_, report, _, original),) = [words for words in found.told if words[0] == "report"]
    assert int(report) not in found.messages
    assert states(found.messages[int(original)]) == UNTRIED


def test_report_committed(tmp_path: Path) -> None:
    told = dies_at("report_committed", tmp_path / "data")
    ((_, report, _, original),) = [words for words in told if words[0] == "report"]
    found = start_again(tmp_path / "data", [words for words in told if words[:2] != ["250", original]])
    found.check_promises()
    assert int(original) not in found.messages
    assert found.messages[int(report)].envelope.reverse_path == ""
    assert states(found.messages[int(report)]) == UNTRIED


def test_delay_written(tmp_path: Path) -> None:
    found = crash("delay_written", tmp_path)
    ((_, report, _, original),) = [words for words in found.told if words[0] == "report"]
    assert int(report) not in found.messages
    assert states(found.messages[int(original)]) == UNTRIED
    assert not any(recipient.warned for recipient in found.messages[int(original)].envelope.recipients)


def test_delay_committed(tmp_path: Path) -> None:
    told = dies_at("delay_committed", tmp_path / "data")
    ((_, report, _, original),) = [words for words in told if words[0] == "report"]
    found = start_again(tmp_path / "data", told, AT + 60)
    found.check_promises()
    assert states(found.messages[int(report)]) == UNTRIED
    recipients = found.messages[int(original)].envelope.recipients
    assert [(recipient.state, recipient.warned) for recipient in recipients] == [(State.DEFERRED, True)] * 2


# Looking after the queue.


def release(data_dir: Path, number: int) -> None:
    """Somebody releases what is held."""
    pump = Pump()
    spool = SqliteSpool(data_dir, reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    keys = [(number, 0), (number, 1)]
    answer = pump.wait(spool.change(Request("release", Selection(), keys, frozenset(), AT)))
    assert answer.done == keys
    spool.stop()


def test_hold_written(tmp_path: Path) -> None:
    found = crash("hold_written", tmp_path)
    assert all(states(message) == UNTRIED for message in found.messages.values())


@pytest.mark.parametrize("step", ["hold_committed", "bounce_claimed"])
def test_hold_committed(tmp_path: Path, step: str) -> None:
    data_dir = tmp_path / "data"
    told = dies_at(step, data_dir)
    ((_, held),) = [words for words in told if words[0] == "held"]
    assert int(held) not in start_again(data_dir, told).messages
    release(data_dir, int(held))
    found = start_again(data_dir, [words for words in told if words[0] != "id"] + [["id", held], ["id", "0"]])
    assert states(found.messages[int(held)]) == UNTRIED
    assert set(found.acknowledged) <= set(found.messages)


# The table and this module name the same steps.


def table() -> list[list[str]]:
    """The rows of the crash-state table, each a list of cells."""
    page = PAGE.read_text("utf-8").partition(".. _crash-states:")[2]
    rows = re.split(r"\n {3}\* - ", page)[2:]
    return [[" ".join(cell.split()) for cell in re.split(r"\n {5}- ", row.partition("\n\n")[0])] for row in rows]


def test_every_row_of_the_table_is_tried_here() -> None:
    rows = table()
    assert len(rows) > 20
    assert all(len(row) == 5 for row in rows), "step, disk, peer, start-up, test"
    named = [re.findall(r"``(test_\w+)``", row[4]) for row in rows]
    assert all(names for names in named), "each row names its test"
    tests = {name for name in globals() if name.startswith("test_")} - {"test_every_row_of_the_table_is_tried_here"}
    assert {name for names in named for name in names} == tests
