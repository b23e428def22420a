"""Databases of other versions: an older one is brought along, a newer one is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from rigs.messages import AT, body, claim_due, envelope, settled
from rigs.pump import Pump

from mtatwist.envelope import State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import history, schema
from mtatwist.spool.schema import SchemaTooNew
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.datadir import DataDir
from mtatwist.store.trouble import Damaged


def make(data_dir: Path) -> tuple[SqliteSpool, Pump]:
    pump = Pump()
    return SqliteSpool(data_dir, reactor=pump, metrics=Instruments()), pump  # type: ignore[arg-type]


def pragma(connection: apsw.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchall()[0][0]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = schema.connect(tmp_path / "x.sqlite")
    yield connection
    connection.close()


def test_a_new_database_is_as_durable_as_a_250(database: apsw.Connection) -> None:
    schema.migrate(database)
    assert pragma(database, "user_version") == schema.VERSION
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2, "FULL: every commit is flushed"
    assert pragma(database, "auto_vacuum") == 0
    assert pragma(database, "wal_autocheckpoint") == schema.WAL_PAGES
    assert pragma(database, "journal_size_limit") == schema.WAL_LIMIT


def test_migrating_again_changes_nothing(database: apsw.Connection) -> None:
    schema.migrate(database)
    before = database.execute("SELECT * FROM sqlite_schema").fetchall()
    schema.migrate(database)
    assert database.execute("SELECT * FROM sqlite_schema").fetchall() == before


def test_a_newer_spool_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    spool, _ = make(data_dir)
    spool.start()
    spool.stop()
    connection = schema.connect(data_dir / "spool.sqlite")
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()
    spool, _ = make(data_dir)
    with pytest.raises(SchemaTooNew, match=f"version {schema.VERSION + 1}, this mtatwist knows {schema.VERSION}"):
        spool.start()
    connection = schema.connect(data_dir / "spool.sqlite")
    assert pragma(connection, "user_version") == schema.VERSION + 1
    assert connection.execute("SELECT number FROM run").fetchall() == [(1,)], "no run was begun"
    connection.close()
    # The lock is free again: the newer mtatwist may start.
    DataDir(data_dir).acquire()


def test_an_older_spool_is_brought_along_with_its_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / "data"
    spool, pump = make(data_dir)
    spool.start()
    message = pump.wait(spool.create(envelope()).commit())
    spool.stop()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    monkeypatch.setitem(schema._MIGRATIONS, schema.VERSION - 1, "CREATE TABLE later (x); CREATE TABLE still_later (x)")
    spool, pump = make(data_dir)
    spool.start()
    assert [found.number for found in claim_due(spool, pump.wait, AT)] == [message.number]
    spool.stop()
    connection = schema.connect(data_dir / "spool.sqlite")
    assert pragma(connection, "user_version") == schema.VERSION
    assert connection.execute("SELECT count(*) FROM later, still_later").fetchall() == [(0,)]
    connection.close()


def test_a_step_that_fails_half_way_leaves_the_older_version(
    database: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.migrate(database)
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    monkeypatch.setitem(schema._MIGRATIONS, schema.VERSION - 1, "CREATE TABLE later (x); DROP TABLE not_there")
    with pytest.raises(apsw.SQLError):
        schema.migrate(database)
    assert pragma(database, "user_version") == schema.VERSION - 1
    assert not database.execute("SELECT * FROM sqlite_schema WHERE name='later'").fetchall()


def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "spool.sqlite").write_bytes(body(10_000))
    spool, _ = make(data_dir)
    with pytest.raises(Damaged, match="not a database"):
        spool.start()
    assert (data_dir / "spool.sqlite").read_bytes() == body(10_000)


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_spool_of_each_older_version_is_brought_along(tmp_path: Path, version: int) -> None:
    """What waited is delivered, and its history begins."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    connection = schema.connect(data_dir / "spool.sqlite")
    schema.migrate(connection, to=version)
    with connection:
        connection.execute("INSERT INTO run VALUES (1)")
        connection.execute(
            "INSERT INTO message VALUES (5, 'me@here.test', '', 0, '', '', ?, '', '', '', '', '', '', 3, x'61620a')",
            (AT,),
        )
        connection.execute(
            "INSERT INTO recipient (number, idx, address, domain, orcpt, notify, state, attempts, next_attempt,"
            " claimed_by, code, enhanced, text, host, at) "
            " VALUES (5, 0, 'you@there.test', 'there.test', '', '', 1, 2, ?, 1, 450, '', 'Later', 'mx', ?)",
            (AT, AT - 9),
        )
    connection.close()
    spool, pump = make(data_dir)
    spool.start()
    (message,) = claim_due(spool, pump.wait, AT)
    assert pump.wait(spool.read(message, 0, 10)) == b"ab\n"
    pump.wait(spool.settle([settled(message, 0, State.DEFERRED, AT + 60)], []))
    _, page = pump.wait(spool.look(history.story, message.id, None, 60_000))
    (recipient,) = page.rows
    assert (recipient["attempts"], recipient["tls"]) == (3, "")
    assert [attempt["at"] for attempt in recipient["history"]] == [AT + 1]
    spool.stop()
