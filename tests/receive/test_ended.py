"""The end of a session is logged where nothing else tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receive.whole import Whole
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure


def ended(server: Whole, *lines: str | bytes) -> dict[str, Any]:
    """What the log says at the end of a session in which this was said."""
    session = server.connect()
    session.say("EHLO client.test", *lines)
    server.pass_time(1.5)
    with capturedLogs() as events:
        session.protocol.connectionLost(Failure(ConnectionDone()))
    (event,) = [event for event in events if event["log_format"] == "session_ended"]
    return event


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    return Whole(monkeypatch, tmp_path)


def test_of_one_that_brought_nothing(server: Whole) -> None:
    event = ended(server, "MAIL FROM:<me@away.test>", "RCPT TO:<you@elsewhere.test>", "RSET")
    assert event["log_level"] is LogLevel.info
    assert (event["peer"], event["helo"], event["role"], event["tls"]) == ("192.0.2.7", "client.test", "mx", "")
    assert (event["accepted"], event["refused"], event["seconds"]) == (0, 1, 1.5)


def test_of_one_with_mail_its_mail_tells(server: Whole) -> None:
    message = ("MAIL FROM:<me@away.test>", "RCPT TO:<you@here.test>", "DATA", "hello", ".")
    with capturedLogs() as events:
        event = ended(server, *message, *message)
    assert event["log_level"] is LogLevel.debug
    assert event["accepted"] == 2
    accepted = [each for each in events if each["log_format"] == "accepted"]
    assert [each["session"] for each in accepted] == [event["session"]] * 2
