"""No memory for a message: that message gets a 451, and nothing else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receive import whole
from receive.whole import BODY, Whole

BIG = b"Subject: x\r\n\r\nBIG\r\n"


@pytest.mark.parametrize("where", ["write", "commit"])
def test_it_costs_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    original: Any = getattr(whole.Writer, where)

    def starved(self: Any, *arguments: Any) -> Any:
        if any(b"BIG" in part for part in (*arguments, *self._parts)):
            raise MemoryError
        return original(self, *arguments)

    server = Whole(monkeypatch, tmp_path)
    monkeypatch.setattr(whole.Writer, where, starved)
    session, other = server.connect(), server.connect()
    other.begin()
    assert session.send(body=BIG).startswith("451 4.3.0")
    assert session.send(body=BODY).startswith("250")
    other.say("DATA")
    assert other.say(BODY + b".\r\n").startswith("250")
    assert not session.ended
    assert len(server.spool.messages) == 2


@pytest.mark.parametrize("chunks", [False, True])
def test_and_the_rest_of_it_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunks: bool) -> None:
    """However long it is, in chunks too, nothing of it is taken for a command."""

    def starved(self: Any, data: bytes) -> None:
        raise MemoryError

    server = Whole(monkeypatch, tmp_path)
    session = server.connect()
    session.begin()
    if not chunks:
        session.say("DATA")
        monkeypatch.setattr(whole.Writer, "write", starved)
        session.say(BIG)
        assert session.say(b"NOOP\r\n" * 10_000) == ""
        assert session.say(b".\r\n").startswith("451 4.3.0")
    else:
        session.say(b"BDAT 6\r\nNOOP\r\n")
        monkeypatch.setattr(whole.Writer, "write", starved)
        assert session.say(b"BDAT 6 LAST\r\nNOOP\r\n").startswith("451 4.3.0")
    assert session.say("NOOP").startswith("250 ")
