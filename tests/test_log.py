"""The log: one event a line, whatever is in it, and no log is worth a message."""

from __future__ import annotations

import errno
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.python import threadable
from twisted.python.failure import Failure

from mtatwist.log import ALWAYS, FLUSH_SECONDS, MANY, EventLogger, LineObserver, Threshold, as_json, as_text


def event(format: str = "accepted", level: Any = LogLevel.info, **facts: Any) -> dict[str, Any]:
    return {
        "log_time": 1_700_000_000.5,
        "log_level": level,
        "log_namespace": "mtatwist.receive.delivery",
        "log_format": format,
        "log_source": object(),
        **facts,
    }


def crash() -> Failure:
    try:
        raise RuntimeError("went\nwrong")
    except RuntimeError:
        return Failure()


def test_json_has_the_event_and_its_facts() -> None:
    assert json.loads(as_json(event(id="0A", size=7, tls=""))) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "event": "accepted",
        "id": "0A",
        "size": 7,
        "tls": "",
    }


def test_text_is_for_people() -> None:
    line = as_text(event(id="0A", size=0, tls="", forward_paths=["a@b", "c@d"], reply="no such user"))
    assert line == '2023-11-14T22:13:20.500Z accepted id=0A size=0 forward_paths=["a@b", "c@d"] reply="no such user"'
    assert as_text(event(level=LogLevel.warn)).startswith("2023-11-14T22:13:20.500Z WARN accepted")


def test_others_are_quoted_as_messages() -> None:
    other = {**event("hello {name}", name="you"), "log_namespace": "twisted.web"}
    assert json.loads(as_json(other))["message"] == "hello you"
    assert as_text(other).endswith(" hello you")


def test_a_failure_has_its_traceback() -> None:
    facts = json.loads(as_json(event("crashed", LogLevel.critical, log_failure=crash())))
    assert facts["failure"] == "RuntimeError: went\nwrong"
    assert "test_log.py" in facts["traceback"]
    text = as_text(event("crashed", LogLevel.critical, log_failure=crash()))
    assert text.splitlines()[0].endswith('went\\nwrong"')
    assert "test_log.py" in text


@given(st.text(max_size=20))
def test_nothing_a_peer_says_makes_another_line(said: str) -> None:
    for line in (as_json(event(reply=said)), as_text(event(reply=said))):
        assert "\n" not in line
        assert "\r" not in line
        assert "\x1b" not in line
    assert json.loads(as_json(event(reply=said)))["reply"] == said


def test_what_json_does_not_know_is_written_all_the_same() -> None:
    assert json.loads(as_json(event(error=OSError("x"), raw=b"y")))["error"] == "x"


class Stream(io.StringIO):
    """Counts flushes; may break; may be a terminal."""

    terminal = False
    flushes = 0
    trouble: Exception | None = None

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.trouble is not None:
            raise self.trouble
        return super().write(text)

    def flush(self) -> None:
        self.flushes += 1
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture(autouse=True)
def _io_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.log.get_ident", lambda: threadable.ioThread)


@pytest.mark.parametrize(
    ("format", "terminal", "is_json"),
    [("json", True, True), ("text", False, False), ("auto", True, False), ("auto", False, True)],
)
def test_auto_is_text_on_a_terminal(format: str, terminal: bool, is_json: bool) -> None:
    stream = Stream()
    stream.terminal = terminal
    observer = LineObserver(stream, format, Clock())
    observer(event())
    observer.flush()
    assert stream.getvalue().startswith("{") == is_json
    assert stream.getvalue().endswith("\n")


def test_ordinary_events_are_flushed_together_soon() -> None:
    stream, clock = Stream(), Clock()
    observer = LineObserver(stream, "json", clock)
    for _ in range(10):
        observer(event())
    assert stream.flushes == 0
    clock.advance(FLUSH_SECONDS)
    assert stream.flushes == 1
    observer(event())
    clock.advance(FLUSH_SECONDS)
    assert stream.flushes == 2


@pytest.mark.parametrize("level", [LogLevel.warn, LogLevel.error, LogLevel.critical])
def test_bad_news_does_not_wait(level: Any) -> None:
    stream = Stream()
    LineObserver(stream, "json", Clock())(event(level=level))
    assert stream.flushes == 1


def test_another_thread_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.log.get_ident", lambda: -1)
    stream, clock = Stream(), Clock()
    LineObserver(stream, "json", clock)(event())
    assert stream.flushes == 1
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("closed file")])
def test_a_log_that_cannot_be_written_stops_nothing(trouble: Exception) -> None:
    stream, clock = Stream(), Clock()
    observer = LineObserver(stream, "json", clock)
    stream.trouble = trouble
    observer(event(level=LogLevel.error))
    observer(event())
    observer.flush()
    stream.trouble = None
    observer(event("later", LogLevel.warn))
    assert json.loads(stream.getvalue())["event"] == "later"


def test_an_event_that_cannot_be_formatted_takes_no_other_with_it() -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    stream = Stream()
    observer = LineObserver(stream, "json", Clock())
    for fact in ("before", Unspeakable(), "after"):
        observer(event(fact=fact))
    observer.flush()
    lines = stream.getvalue().splitlines()
    assert "before" in lines[0] and "no words" in lines[1] and "after" in lines[2]


def written(threshold: Threshold, *events: dict[str, Any]) -> list[str]:
    """The names of those events that were written."""
    stream = Stream()
    observer = LineObserver(stream, "json", Clock(), threshold=threshold)
    for each in events:
        observer(each)
    observer.flush()
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


ONE_OF_EACH = [event(level.name, level) for level in LogLevel.iterconstants()]


@pytest.mark.parametrize(
    ("level", "left_out"),
    [
        ("debug", set()),
        ("info", {"debug"}),
        ("warn", {"debug", "info"}),
        ("error", {"debug", "info", "warn"}),
    ],
)
def test_events_below_the_level_are_left_out(level: str, left_out: set[str]) -> None:
    everything = {each["log_format"] for each in ONE_OF_EACH}
    assert set(written(Threshold(level), *ONE_OF_EACH)) == everything - left_out


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_who_did_what_is_written_at_any_level(name: str) -> None:
    assert written(Threshold("error"), event(name)) == [name]


def test_the_level_changes_while_the_server_runs() -> None:
    threshold = Threshold()
    assert threshold.set("error") == "info"
    assert written(threshold, event()) == []
    assert threshold.set("debug") == "error"
    assert threshold.level == "debug"
    assert written(threshold, event(), event("found", LogLevel.debug)) == ["accepted", "found"]
    with pytest.raises(ValueError, match="loud"):
        threshold.set("loud")
    assert threshold.level == "debug"


def test_debug_events_wait_for_others_too() -> None:
    stream, clock = Stream(), Clock()
    observer = LineObserver(stream, "json", clock, threshold=Threshold("debug"))
    observer(event("found", LogLevel.debug))
    assert stream.flushes == 0
    clock.advance(FLUSH_SECONDS)
    assert stream.flushes == 1


@pytest.mark.parametrize("level", ["debug", "info"])
def test_our_own_logger_says_what_twisteds_does(level: str) -> None:
    events: list[Any] = []
    for kind in (EventLogger, Logger):
        logger = kind("mtatwist.x")
        logger.observer = events.append  # type: ignore[assignment]
        getattr(logger, level)("accepted", id="0A")
    ours, theirs = events
    assert ours.pop("log_facts") == {"id": "0A"}
    for each in events:
        each.pop("log_logger")
        each.pop("log_time")
    assert ours == theirs


def test_a_good_many_events_are_written_when_there_is_time() -> None:
    stream, clock = Stream(), Clock()
    observer = LineObserver(stream, "json", clock)
    for _ in range(MANY - 1):
        observer(event())
    observer.flush_many()
    assert stream.flushes == 0
    observer(event())
    observer.flush_many()
    assert stream.flushes == 1
    assert len(stream.getvalue().splitlines()) == MANY
