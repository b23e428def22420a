"""A bound on how long somebody may look at the spool."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import apsw

T = TypeVar("T")

LONGEST = 20.0
"""Seconds that one look may take: for so long the log can't be reset, and a thread is not there for the mail."""

_STEPS = 1_000_000
"""Steps of SQLite's between two looks at the clock, each of which has to wait for the interpreter."""


class TooLong(Exception):
    """It took too long, and was broken off."""


def bounded(connection: apsw.Connection, function: Callable[..., T], *arguments: object) -> T:
    """Call ``function(connection, *arguments)``; raises TooLong after LONGEST seconds."""
    deadline = time.monotonic() + LONGEST
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        return function(connection, *arguments)
    except apsw.InterruptError:
        raise TooLong(f"it took more than {LONGEST:.0f} seconds: select less") from None
    finally:
        connection.set_progress_handler(None)
