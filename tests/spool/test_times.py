"""What the spool tells the next run about time."""

from __future__ import annotations

from pathlib import Path

from rigs.messages import AT, envelope, settled
from rigs.pump import Pump

from mtatwist.envelope import Message, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.queue_time import KeptTime


class Run:
    """One run of a spool."""

    def __init__(self, data_dir: Path) -> None:
        self.pump = Pump()
        self.spool = SqliteSpool(data_dir, reactor=self.pump, metrics=Instruments())  # type: ignore[arg-type]
        self.spool.start()

    def store(self, received_at: float) -> Message:
        writer = self.spool.create(envelope(received_at=received_at))
        writer.write(b"Subject: hello\r\n\r\n")
        message: Message = self.pump.wait(writer.commit())
        return message


def kept(data_dir: Path) -> KeptTime:
    run = Run(data_dir)
    run.spool.stop()
    return run.spool.kept_time


def test_a_new_spool_knows_nothing(tmp_path: Path) -> None:
    assert kept(tmp_path / "data") == KeptTime(0.0, None, None)


def test_it_knows_the_newest_message_and_the_last_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path / "data")
    deferred = run.store(AT)
    run.store(AT + 5)
    run.pump.wait(run.spool.settle([settled(deferred, 0, State.DEFERRED, AT + 3600)], []))
    run.spool.stop()
    assert kept(tmp_path / "data") == KeptTime(0.0, AT + 5, AT + 3600)


def test_the_last_word_about_the_clock_counts(tmp_path: Path) -> None:
    run = Run(tmp_path / "data")
    for ahead in (3600.0, -86400.0, -500_000.25):
        run.pump.wait(run.spool.keep_ahead(ahead))
    both = [run.spool.keep_ahead(1.0), run.spool.keep_ahead(-518_400.5)]
    for one in both:
        run.pump.wait(one)
    run.spool.stop()
    assert kept(tmp_path / "data").ahead == -518_400.5
    assert kept(tmp_path / "data").ahead == -518_400.5
