"""Log events as JSON lines, or as text for a person. An event's name is its format string: ``log.info("accepted")``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock, get_ident
from typing import Any, TextIO

import orjson
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python import threadable
from zope.interface import implementer

_OURS = "mtatwist."
_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode

FLUSH_SECONDS = 0.05
"""How long an ordinary event may wait for others to be written with; what is no "info" does not wait."""

MANY = 15
"""Events that are worth a write of their own."""

FLUSH_LINES = 500
"""How many of them may wait."""


LEVELS = ("debug", "info", "warn", "error")
"""What one may ask for, the least important first. What is critical is always written."""

ALWAYS = frozenset(("start", "stopped", "control", "reload"))
"""Events that are written whatever the level: who did what must not depend on it."""

# Looked up once: LogLevel computes its members anew each time.
_INFO = LogLevel.info
_DEBUG = LogLevel.debug
_BY_NAME = {name: LogLevel.levelWithName(name) for name in LEVELS}

Redact = Callable[[dict[str, Any]], dict[str, Any]]


class Threshold:
    """From which level on events are written. It may change while the server runs."""

    def __init__(self, level: str = "info") -> None:
        """``level``: one of LEVELS, else ValueError."""
        self.level = ""
        self.unwanted: frozenset[Any] = frozenset()
        self.set(level)

    def set(self, level: str) -> str:
        """From now on ``level``, one of LEVELS, else ValueError. Gives the one before."""
        if level not in LEVELS:
            raise ValueError(f"no level: {level!r}")
        number = LEVELS.index(level)
        before, self.level = self.level, level
        self.unwanted = frozenset(_BY_NAME[each] for each in LEVELS[:number])
        return before


class EventLogger(Logger):
    """twisted.logger's Logger, with the checks left out that an event a message or a delivery has no need of.

    Its events have their own facts once more in ``log_facts``: whoever writes them need not sort them out.
    """

    def info(self, format: str | None = None, **facts: object) -> None:
        """See Logger."""
        self._say(_INFO, format, facts)

    def debug(self, format: str | None = None, **facts: object) -> None:
        """See Logger."""
        self._say(_DEBUG, format, facts)

    def _say(self, level: object, format: str | None, facts: dict[str, Any]) -> None:
        event = {
            "log_logger": self,
            "log_level": level,
            "log_namespace": self.namespace,
            "log_source": None,
            "log_format": format,
            "log_time": time.time(),
            "log_facts": facts,
            **facts,
        }
        self.observer(event)


@lru_cache(maxsize=2)
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


@lru_cache(maxsize=16)
def _millisecond(whole: int) -> str:
    return f"{_second(whole // 1000)}.{whole % 1000:03d}Z"


def _time(seconds: float) -> str:
    # Under load, many events share one.
    return _millisecond(int(seconds * 1000))


def _facts(event: LogEvent) -> dict[str, Any]:
    """The event's own fields; for other people's events, their message."""
    if "log_facts" in event:
        return {"event": event["log_format"], **event["log_facts"]}
    failure = event.get("log_failure")
    if event.get("log_namespace", "").startswith(_OURS):
        own = {key: value for key, value in event.items() if key[:4] != "log_"}
        facts = {"event": event["log_format"] or "failure", **own}
    else:
        facts = {"event": "message", "message": formatEvent(event)}
    if failure is not None:
        facts["failure"] = f"{failure.type.__name__}: {failure.getErrorMessage()}"
        facts["traceback"] = failure.getTraceback()
    return facts


def as_json(event: LogEvent, redact: Redact | None = None) -> str:
    """One JSON object. ``redact`` takes out of its facts what is personal."""
    facts = _facts(event) if redact is None else redact(_facts(event))
    facts = {"time": _time(event["log_time"]), "level": event["log_level"].name, **facts}
    try:
        return orjson.dumps(facts, default=str).decode()
    except TypeError:
        # Lone surrogates and very large numbers: rare, and no reason to lose an event.
        return _encode(facts)


def as_text(event: LogEvent, redact: Redact | None = None) -> str:
    """One line, for a person; a failure's traceback follows it. ``redact``: as for JSON."""
    facts = _facts(event) if redact is None else redact(_facts(event))
    traceback = facts.pop("traceback", "")
    name = facts.pop("message", None) if facts["event"] == "message" else None
    words = [name or facts["event"]]
    facts.pop("event")
    words += [f"{key}={_word(value)}" for key, value in facts.items() if value not in ("", None)]
    level = event["log_level"].name
    line = f"{_time(event['log_time'])} {'' if level == 'info' else level.upper() + ' '}{' '.join(words)}"
    return f"{line}\n{traceback.rstrip()}" if traceback else line


def _word(value: object) -> str:
    if isinstance(value, list | dict):
        return _encode(value)
    text = str(value)
    return text if text and " " not in text and text.isprintable() else _encode(text)


FORMATS: dict[str, Callable[..., str]] = {"json": as_json, "text": as_text}


@implementer(ILogObserver)
class LineObserver:
    """Writes events, several at once when there are many. A log that can't be written must not stop mail."""

    def __init__(
        self,
        stream: TextIO,
        format: str,
        clock: IReactorTime,
        *,
        threshold: Threshold | None = None,
        redact: Redact | None = None,
    ) -> None:
        """``format`` and ``redact``: see use()."""
        self._clock = clock
        self._lock = Lock()
        self._events: list[LogEvent] = []
        self._threshold = threshold or Threshold()
        self._stream = stream
        self.use(format, redact)

    def use(self, format: str, redact: Redact | None) -> None:
        """Write like this from now on. ``format``: json, text, or auto: text on a terminal. ``redact``: see as_json."""
        if format == "auto":
            format = "text" if self._stream.isatty() else "json"
        self._format = FORMATS[format] if redact is None else partial(FORMATS[format], redact=redact)
        self._redact = redact

    def __call__(self, event: LogEvent) -> None:
        level = event["log_level"]
        if level in self._threshold.unwanted and event.get("log_format") not in ALWAYS:
            return
        # Threads log, too.
        with self._lock:
            events = self._events
            events.append(event)
        ordinary = (level is _INFO or level is _DEBUG) and get_ident() == threadable.ioThread
        if not ordinary or len(events) >= FLUSH_LINES:
            self.flush()
        elif len(events) == 1:
            self._clock.callLater(FLUSH_SECONDS, self.flush)

    def _line(self, event: LogEvent) -> str:
        try:
            return self._format(event)
        except Exception as error:
            # One event that can't be said must not take the others with it.
            what = f"unformattable event {event.get('log_format')!r}: {error!r}"
            return what if self._redact is None else str(self._redact({"message": what})["message"])

    def flush_many(self) -> None:
        """Write what waits if it is a good many: there is time for it now."""
        if len(self._events) >= MANY:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A hundred events formatted in a row cost a third of what they cost one by one."""
        with self._lock:
            events, self._events = self._events, []
        if events:
            lines = [self._line(event) for event in events]
            # A full disk or a closed pipe: there is nowhere left to say so.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
