"""Who was refused, and why, stands in the log: an administrator is asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receive.whole import SUBMISSION, Whole
from twisted.logger import capturedLogs


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    return Whole(monkeypatch, tmp_path)


def refusals(server: Whole, *lines: str | bytes) -> list[dict[str, Any]]:
    session = server.connect()
    session.say("EHLO client.test")
    with capturedLogs() as events:
        session.say(*lines)
    return [event for event in events if event["log_format"] == "refused"]


def test_a_path_is_named_with_the_reply(server: Whole) -> None:
    (event,) = refusals(server, "MAIL FROM:<me@away.test>", "RCPT TO:<you@elsewhere.test>")
    assert event["peer"] == "192.0.2.7"
    assert event["helo"] == "client.test"
    assert event["command"] == "RCPT TO:<you@elsewhere.test>"
    assert event["reply"].startswith("550 5.7.1")


def test_the_end_of_data_is_a_refusal_of_data(server: Whole) -> None:
    lines = ("MAIL FROM:<me@away.test>", "RCPT TO:<you@here.test>", "DATA", b"bare\nline\r\n.\r\n")
    (event,) = refusals(server, *lines)
    assert (event["command"], event["reply"][:9]) == ("DATA", "550 5.5.2")


def test_what_may_be_secret_is_not_repeated(server: Whole) -> None:
    (event,) = refusals(server, "AUTH PLAIN AG1lAHNlY3JldA==")
    assert event["command"] == "AUTH"
    assert "AG1l" not in str(event["reply"])


def test_what_only_begins_like_a_path_is_not_repeated_after_auth(server: Whole) -> None:
    """A password may begin with anything."""
    lines = ("MAIL hunter2", "RCPT\thunter2", "Rcpt TO:hunter2", "MAIL FROM:<hunter2>", "RCPT TO:<you@here.test>")
    _, *events = refusals(server, "AUTH PLAIN AG1lAHNlY3JldA==", *lines)
    assert [event["command"] for event in events] == ["MAIL", "RCPT", "Rcpt", "MAIL", "RCPT TO:<you@here.test>"]
    assert "hunter2" not in str(events)


def test_nor_where_people_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = Whole(monkeypatch, tmp_path, SUBMISSION)
    events = refusals(submission, "MAIL hunter2", "hunter2", "MAIL FROM:<me@away.test>")
    assert [event["command"] for event in events] == ["MAIL", "?", "MAIL FROM:<me@away.test>"]


def test_what_can_not_be_read_is_repeated_where_nobody_logs_in(server: Whole) -> None:
    (event,) = refusals(server, "MAIL FROM:<nobody>")
    assert event["command"] == "MAIL FROM:<nobody>"


def test_a_line_that_is_none_has_no_command(server: Whole) -> None:
    (event,) = refusals(server, b"NOOP secret\nhidden\r\n")
    assert event["command"] == ""


def test_endless_paths_are_cut(server: Whole) -> None:
    (event,) = refusals(server, "MAIL FROM:<" + "x" * 2000 + "@away.test>")
    assert len(event["command"]) <= 300
