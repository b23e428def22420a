"""A process that dies at one step of the spool's work: ``crashing.py DATA_DIR STEP``. For test_crash_states.

It prints what a peer would know: ``id N`` when number N was given out, ``250 N SIZE`` when it was acknowledged.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import apsw
from rigs.messages import AT, body, claim_due, envelope, settled
from rigs.pump import Pump
from rigs.stable_storage import Watch

from mtatwist.envelope import Message, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import bodies, schema, sqlite, tables
from mtatwist.spool.bodies import BodyFiles
from mtatwist.spool.changes import Changes, Request
from mtatwist.spool.selection import Selection
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.spool.tables import Tables
from mtatwist.store import datadir
from mtatwist.store.writer import Writer

SMALL, LARGE = 2_000, 900_000


def die(*_: Any, **__: Any) -> NoReturn:
    """As a crash or the OOM killer would: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
    raise AssertionError


def then_die(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    """Do it, and die before anybody is told."""
    return lambda *arguments, **keywords: die(function(*arguments, **keywords))


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Run:
    """One life of a spool."""

    def __init__(self, data_dir: str) -> None:
        self.data_dir = Path(data_dir)
        self.pump = Pump()
        self.spool = SqliteSpool(data_dir, reactor=self.pump, metrics=Instruments())  # type: ignore[arg-type]

    def begin(self, size: int, reverse_path: str = "me@example.com") -> Any:
        """A message all of which has come in."""
        writer = self.spool.create(envelope("a@example.org", "b@example.org", reverse_path=reverse_path))
        say("id", writer.number)
        data = body(size, writer.number)
        for start in range(0, size, 64 * 1024):
            pause = writer.write(data[start : start + 64 * 1024])
            if pause is not None:
                self.pump.wait(pause)
        return writer

    def store(self, size: int) -> Message:
        message: Message = self.pump.wait(self.begin(size).commit())
        say("250", message.number, size)
        return message

    def settle(self, message: Message, state: State, indexes: tuple[int, ...] = (0, 1), reports: Any = ()) -> None:
        results = [settled(message, index, state, AT + 60) for index in indexes]
        self.pump.wait(self.spool.settle(results, reports))


# Starting.


def data_dir_made(run: Run) -> None:
    datadir.sync_directory = die
    run.spool.start()


def tables_made(run: Run) -> None:
    class Dying(apsw.Connection):
        def execute(self, statements: str, *arguments: Any, **keywords: Any) -> Any:
            cursor = super().execute(statements, *arguments, **keywords)
            return die() if "CREATE TABLE message" in statements else cursor

    apsw.Connection = Dying  # type: ignore[misc]
    run.spool.start()


def run_begun(run: Run) -> None:
    BodyFiles.start = die  # type: ignore[method-assign]
    run.spool.start()


def bodies_made(run: Run) -> None:
    bodies.sync_directory = die  # type: ignore[attr-defined]
    run.spool.start()


def sweep_half_done(run: Run) -> None:
    for number in range(1, 5):
        (run.data_dir / "bodies" / f"{number:014X}").touch()
    unlink, left = Path.unlink, iter((True, False))
    Path.unlink = lambda *arguments, **_: unlink(arguments[0]) if next(left) else die()  # type: ignore[method-assign]
    run.spool.start()
    run.spool.stop()


# Accepting. What every step below begins with: a small and a large message that were acknowledged.


def before_commit_called(run: Run) -> None:
    run.begin(SMALL)
    die()


def rows_inserted(run: Run) -> None:
    Tables.insert = then_die(Tables.insert)  # type: ignore[method-assign]
    run.store(SMALL)


def committed(run: Run) -> None:
    Writer._commit = then_die(Writer._commit)  # type: ignore[method-assign]
    run.store(SMALL)


def acknowledged(run: Run) -> None:
    run.store(SMALL)
    run.store(LARGE)
    die()


def file_half_written(run: Run) -> None:
    writer = run.begin(LARGE)
    writer._file.flush()
    die()


def file_written(run: Run) -> None:
    os.fsync = die
    run.store(LARGE)


def file_synced(run: Run) -> None:
    tables.sync_directory = die  # type: ignore[attr-defined]
    run.store(LARGE)


def directory_synced(run: Run) -> None:
    tables.sync_directory = then_die(datadir.sync_directory)  # type: ignore[attr-defined]
    run.store(LARGE)


def large_rows_inserted(run: Run) -> None:
    Tables.insert = then_die(Tables.insert)  # type: ignore[method-assign]
    run.store(LARGE)


def large_committed(run: Run) -> None:
    Writer._commit = then_die(Writer._commit)  # type: ignore[method-assign]
    run.store(LARGE)


def abort_before_unlink(run: Run) -> None:
    BodyFiles.remove = die  # type: ignore[method-assign]
    run.begin(LARGE).abort()
    run.pump.wait(run.spool.next_due(AT))
    while True:
        run.pump._calls.get(timeout=30)()


def checkpoint_half_done(run: Run) -> None:
    """A second and third page written to the database file never follow the first."""
    writes = iter((False, True))
    watch.on_write = lambda path: die() if path.endswith(".sqlite") and next(writes) else None
    while True:
        run.store(100_000)


def commit_in_doubt(run: Run) -> None:
    """The flush of the log fails, and with it everything until the machine is dead."""

    def fail(path: str) -> None:
        raise apsw.IOError("the disk is gone")

    watch.on_sync = fail
    for size in (SMALL, LARGE):
        outcome = run.pump.outcome(run.begin(size).commit())
        say("451" if not isinstance(outcome, Message) else "250", "in doubt")
    die()


# Delivering.


def claimed(run: Run) -> None:
    message = run.store(SMALL)
    run.pump.wait(run.spool.release([(message.number, index, AT) for index in (0, 1)]))
    assert len(claim_due(run.spool, run.pump.wait)) == 1
    die()


def outcome_written(run: Run) -> None:
    message = run.store(SMALL)
    Tables.settle = then_die(Tables.settle)  # type: ignore[method-assign]
    run.settle(message, State.DELIVERED)


def deferral_committed(run: Run) -> None:
    message = run.store(SMALL)
    run.settle(message, State.DELIVERED, (0,))
    run.settle(message, State.DEFERRED, (1,))
    die()


def drop_committed(run: Run) -> None:
    message = run.store(LARGE)
    say("dropped", message.number)
    BodyFiles.remove = die  # type: ignore[method-assign]
    run.settle(message, State.DELIVERED)
    run.spool.stop()


def body_removed(run: Run) -> None:
    message = run.store(LARGE)
    say("dropped", message.number)
    BodyFiles.remove = then_die(BodyFiles.remove)  # type: ignore[method-assign]
    run.settle(message, State.DELIVERED)
    run.spool.stop()


def _fail_with_report(run: Run) -> None:
    message = run.store(SMALL)
    report = run.begin(LARGE, reverse_path="")
    say("report", report.number, "of", message.number)
    run.settle(message, State.FAILED, reports=[report])


def report_written(run: Run) -> None:
    Tables.settle = then_die(Tables.settle)  # type: ignore[method-assign]
    _fail_with_report(run)


def report_committed(run: Run) -> None:
    _fail_with_report(run)
    die()


def _defer_with_report(run: Run) -> None:
    message = run.store(SMALL)
    report = run.begin(SMALL, reverse_path="")
    say("report", report.number, "of", message.number)
    results = [settled(message, index, State.DEFERRED, AT + 60, warned=True) for index in (0, 1)]
    run.pump.wait(run.spool.settle(results, [report]))


def delay_written(run: Run) -> None:
    Tables.settle = then_die(Tables.settle)  # type: ignore[method-assign]
    _defer_with_report(run)


def delay_committed(run: Run) -> None:
    _defer_with_report(run)
    die()


# Looking after the queue.


def _hold(run: Run) -> Message:
    message = run.store(SMALL)
    keys = [(message.number, index) for index in (0, 1)]
    run.pump.wait(run.spool.change(Request("hold", Selection(), keys, frozenset(keys), AT)))
    say("held", message.number)
    return message


def hold_written(run: Run) -> None:
    Changes.change = then_die(Changes.change)  # type: ignore[method-assign]
    _hold(run)


def hold_committed(run: Run) -> None:
    _hold(run)
    die()


def bounce_claimed(run: Run) -> None:
    message = _hold(run)
    keys = [(message.number, index) for index in (0, 1)]
    answer = run.pump.wait(run.spool.change(Request("bounce", Selection(), keys, frozenset(), AT)))
    assert [claimed.number for claimed in answer.messages] == [message.number]
    die()


STARTING = (data_dir_made, tables_made, run_begun, bodies_made)

if __name__ == "__main__":
    step = globals()[sys.argv[2]]
    watch = Watch()
    life = Run(sys.argv[1])
    assert schema.VERSION
    assert sqlite.COUNTER_BITS
    if step not in STARTING:
        life.spool.start()
        life.store(SMALL)
        life.store(LARGE)
        if step is sweep_half_done:
            life.spool.stop()
            life = Run(sys.argv[1])
    step(life)
    # Not sys.exit(): that would wait for the threads.
    say(sys.argv[2], "was passed alive")
    os._exit(1)
