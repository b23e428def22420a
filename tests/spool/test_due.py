"""Due work is found by an index, whatever waits, and new mail costs no more for what waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from rigs.messages import AT, claim_due, envelope
from rigs.pump import Pump

from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import due, schema, times
from mtatwist.spool.sqlite import SqliteSpool

#: Each statement, with values for it, and the indexes it may use on the recipients.
STATEMENTS: dict[str, tuple[str, tuple[Any, ...], set[str]]] = {
    "domains": (due.DOMAINS, ("", 100), {"recipient_domain"}),
    "due": (due.DUE, ("a.test", AT, 100), {"recipient_domain"}),
    "next due": (due.NEXT_DUE, (AT,), {"recipient_due"}),
    "late": (due.LATE, (0, True, 100), {"PRIMARY KEY"}),
    "claim": (due.CLAIM, (1, AT, "[]", True), {"PRIMARY KEY"}),
    "latest attempt": (times.LATEST, (), {"recipient_due"}),
    "void": (due.VOID, (), {"recipient_claimed"}),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = schema.connect(tmp_path / "x.sqlite")
    schema.migrate(connection)
    yield connection
    connection.close()


def plan(connection: apsw.Connection, statement: str, values: tuple[Any, ...]) -> list[str]:
    rows: list[Any] = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    return [row[3] for row in rows]


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_is_asked_for_is_found_by_an_index(database: apsw.Connection, name: str) -> None:
    statement, values, indexes = STATEMENTS[name]
    steps = plan(database, statement, values)
    used = {found[1] for step in steps if (found := re.search(r"USING (?:COVERING )?INDEX (\w+)", step))}
    used |= {"PRIMARY KEY" for step in steps if re.search(r"SEARCH r(ecipient)? USING PRIMARY KEY", step)}
    assert used == indexes, steps
    assert not [step for step in steps if re.fullmatch(r"SCAN r(ecipient)?", step) or "TEMP B-TREE" in step], steps


def test_the_plan_of_a_whole_table_is_seen(database: apsw.Connection) -> None:
    """The control: this is how a statement shows that reads everything."""
    assert plan(database, "SELECT 1 FROM recipient WHERE attempts=3", ()) == ["SCAN recipient"]


def entries(connection: apsw.Connection, index: str) -> int:
    """How many rows are in this index."""
    where = {
        "recipient_claimed": "claimed_by<>0",
        "recipient_due": "state<2 AND claimed_by=0",
        "recipient_domain": "state<2 AND claimed_by=0",
    }[index]
    rows: Any = connection.execute(f"SELECT count(*) FROM recipient INDEXED BY {index} WHERE {where}").fetchall()
    return int(rows[0][0])


def test_new_mail_is_in_one_small_index_only(tmp_path: Path) -> None:
    """Acceptance never touches what is as large as the backlog."""
    pump = Pump()
    spool = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    spool.start()
    reader = apsw.Connection(str(tmp_path / "data" / "spool.sqlite"))
    waiting = pump.wait(spool.create(envelope()).commit())
    pump.wait(spool.release([(waiting.number, 0, AT)]))
    pump.wait(spool.create(envelope("a@b.test", "c@d.test")).commit())
    found = {index: entries(reader, index) for index in ("recipient_claimed", "recipient_due", "recipient_domain")}
    assert found == {"recipient_claimed": 2, "recipient_due": 1, "recipient_domain": 1}
    reader.close()
    spool.stop()


def test_a_start_takes_back_what_a_crash_left_claimed(tmp_path: Path) -> None:
    pump = Pump()
    first = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    first.start()
    message = pump.wait(first.create(envelope()).commit())
    first.stop()
    second = SqliteSpool(tmp_path / "data", reactor=pump, metrics=Instruments())  # type: ignore[arg-type]
    second.start()
    reader = apsw.Connection(str(tmp_path / "data" / "spool.sqlite"))
    assert entries(reader, "recipient_claimed") == 0
    assert [found.number for found in claim_due(second, pump.wait)] == [message.number]
    assert entries(reader, "recipient_claimed") == 1
    reader.close()
    second.stop()
