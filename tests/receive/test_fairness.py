"""One session can't keep the others waiting, nor make us hold its replies."""

from __future__ import annotations

from pathlib import Path

import pytest
from receive.whole import Whole

from mtatwist.receive.connection import REPLIES_A_ROUND


def test_pipelined_commands_give_way_to_other_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Whole(monkeypatch, tmp_path)
    session = server.connect()
    said = session.say(b"NOOP\r\n" * 20_000 + b"QUIT\r\n")
    assert said.count("250 ") == REPLIES_A_ROUND
    assert session.wire.paused
    server.pass_time(0)
    said += session.heard()
    assert said.count("250 ") == 20_000
    assert said.splitlines()[-1].startswith("221 ")
    assert session.ended


def test_a_session_that_ends_meanwhile_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Whole(monkeypatch, tmp_path)
    session = server.connect()
    session.say(b"NOOP\r\n" * 1_000)
    session.protocol.connectionLost()
    server.pass_time(0)
    assert session.heard() == ""
