"""What waits in the queue is counted as it is; the database is tried by a commit that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.messages import AT, claim_due, envelope, settled
from rigs.pump import Pump

from mtatwist.envelope import State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import schema, survey
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.spool.survey import Survey


class Rig:
    """A spool that runs."""

    def __init__(self, directory: Path) -> None:
        self.pump = Pump()
        self.metrics = Instruments()
        self.spool = SqliteSpool(directory, reactor=self.pump, metrics=self.metrics)
        self.spool.start()

    def survey(self, now: float) -> Survey:
        return self.pump.wait(self.spool.survey(now))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.spool.stop()


def test_the_queue_is_counted(rig: Rig) -> None:
    assert rig.survey(AT) == Survey(0, 0, 0, 0, None)
    writer = rig.spool.create(envelope("a@one.test", "b@two.test", received_at=AT - 60))
    writer.write(b"Subject: x\r\n\r\n")
    message = rig.pump.wait(writer.commit())
    assert rig.survey(AT) == Survey(0, 0, 0, 0, AT - 60), "on their way, they don't wait"
    rig.pump.wait(rig.spool.release([(message.number, 0, AT), (message.number, 1, AT + 100)]))
    assert rig.survey(AT) == Survey(2, 0, 0, 1, AT - 60)
    (claimed,) = claim_due(rig.spool, rig.pump.wait)
    rig.pump.wait(rig.spool.settle([settled(claimed, 0, State.DELIVERED)], []))
    assert rig.survey(AT) == Survey(1, 0, 0, 0, AT - 60)


def test_a_try_to_write_commits_and_changes_nothing(rig: Rig) -> None:
    before = rig.metrics.spool_groups.value
    rig.pump.wait(rig.spool.try_to_write())
    assert rig.metrics.spool_groups.value == before + 1
    assert rig.survey(AT) == Survey(0, 0, 0, 0, None)
    assert rig.spool.trouble is None


@pytest.mark.parametrize("statement", [survey.WAITING, survey.HELD, survey.OLDEST])
def test_what_is_gone_or_on_its_way_costs_no_count_anything(tmp_path: Path, statement: str) -> None:
    connection = schema.connect(tmp_path / "x.sqlite")
    schema.migrate(connection)
    plan = f"EXPLAIN QUERY PLAN {statement}"
    values = (AT,) if "?1" in statement else ()
    steps = [str(row[3]) for row in connection.execute(plan, values)]
    connection.close()
    reads = [step for step in steps if "recipient" in step]
    assert all(" COVERING INDEX recipient_" in step for step in reads), steps
    assert "USING TEMP B-TREE" not in " ".join(steps)
