"""How the verbs print what a server has said."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

from mtatwist.control.live import Session, say, say_rows

ROW = {"id": "00010000000001", "reply": "451 4.4.1 J\u00fcrgen said \x9b31m\x1b[31m and went on for a long time"}
COLUMNS = [("ID", lambda row: str(row["id"])), ("REPLY", lambda row: str(row["reply"]))]


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, as_json: bool) -> str:
    @click.command()
    @click.pass_context
    def command(context: click.Context) -> None:
        context.obj = Session(json=as_json)
        # The runner has put its own in the place of the real one.
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        say_rows([ROW], COLUMNS)
        say(ROW, ROW["reply"])

    result = CliRunner(env={"TERM": "dumb", "COLUMNS": "40"}).invoke(command, catch_exceptions=False)
    return result.stdout


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_what_peers_have_said_gives_no_orders(monkeypatch: pytest.MonkeyPatch, terminal: bool, as_json: bool) -> None:
    said = printed(monkeypatch, terminal=terminal, as_json=as_json)
    assert "\x1b" not in said
    # A program that reads JSON gets texts as they are.
    assert ("\x9b" in said) == (as_json and not terminal)
    if as_json:
        assert [json.loads(line) for line in said.splitlines()] == [ROW, ROW]


def test_cells_stay_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    heading, row, _ = printed(monkeypatch, terminal=True, as_json=False).splitlines()
    assert heading == "ID              REPLY"
    assert row.startswith("00010000000001  451 4.4.1 J\u00fcrgen said")
    assert row.endswith("for a long time")
    (row, _) = printed(monkeypatch, terminal=False, as_json=False).splitlines()
    assert row.split("\t")[0] == ROW["id"]
