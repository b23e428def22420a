"""Log events as JSON lines, or as text for a person. An event's name is its format string: ``log.info("accepted")``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TextIO

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

_OURS = "mtatwist."


def _time(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _facts(event: LogEvent) -> dict[str, Any]:
    """The event's own fields; for other people's events, their message."""
    if event.get("log_namespace", "").startswith(_OURS):
        facts = {"event": event["log_format"] or "failure"}
        facts.update((key, value) for key, value in event.items() if not key.startswith("log_"))
    else:
        facts = {"event": "message", "message": formatEvent(event)}
    failure = event.get("log_failure")
    if failure is not None:
        facts["failure"] = f"{failure.type.__name__}: {failure.getErrorMessage()}"
        facts["traceback"] = failure.getTraceback()
    return facts


def as_json(event: LogEvent) -> str:
    """One JSON object."""
    facts = {"time": _time(event["log_time"]), "level": event["log_level"].name, **_facts(event)}
    return json.dumps(facts, default=str, ensure_ascii=False)


def as_text(event: LogEvent) -> str:
    """One line, for a person; a failure's traceback follows it."""
    facts = _facts(event)
    traceback = facts.pop("traceback", "")
    name = facts.pop("message", None) if facts["event"] == "message" else None
    words = [name or facts["event"]]
    facts.pop("event")
    words += [f"{key}={_word(value)}" for key, value in facts.items() if value not in ("", None)]
    level = event["log_level"].name
    line = f"{_time(event['log_time'])} {'' if level == 'info' else level.upper() + ' '}{' '.join(words)}"
    return f"{line}\n{traceback.rstrip()}" if traceback else line


def _word(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)


FORMATS: dict[str, Callable[[LogEvent], str]] = {"json": as_json, "text": as_text}


@implementer(ILogObserver)
class LineObserver:
    """Writes each event as it comes. A log that can't be written must not stop mail."""

    def __init__(self, stream: TextIO, format: str) -> None:
        """``format``: json, text, or auto: text when ``stream`` is a terminal."""
        if format == "auto":
            format = "text" if stream.isatty() else "json"
        self._format = FORMATS[format]
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        try:
            self._stream.write(self._format(event) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A full disk or a closed pipe: there is nowhere left to say so.
            pass
