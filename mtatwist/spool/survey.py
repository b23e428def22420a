"""How the spool is: how much waits in the queue, counted by index and within a bound, and whether it can be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw

MOST = 1_000_000
"""What is counted no further: each takes half a microsecond or so, though the rows themselves are not looked at."""

WAITING = f"""
    SELECT count(*), coalesce(sum(state), 0), coalesce(sum(next_attempt<=?1), 0) FROM (
        SELECT state, next_attempt FROM recipient INDEXED BY recipient_due WHERE state<2 AND claimed_by=0 LIMIT {MOST}
    )"""

HELD = f"SELECT count(*) FROM (SELECT 1 FROM recipient WHERE state=2 LIMIT {MOST})"

OLDEST = "SELECT received_at FROM message ORDER BY number LIMIT 1"


class Survey(NamedTuple):
    """``pending`` and ``deferred``: recipients that wait for an attempt, those on their way not among them; ``due``:
    those of them whose time has come; ``held``: those that wait for a word. ``oldest``: when the oldest message was
    received, in the queue's time (None: there is none)."""

    pending: int
    deferred: int
    held: int
    due: int
    oldest: float | None


def survey(connection: apsw.Connection, now: float) -> Survey:
    """Count. ``now`` is the queue's time."""
    waiting, deferred, due = next(connection.execute(WAITING, (now,)))
    (held,) = next(connection.execute(HELD))
    oldest = connection.execute(OLDEST).fetchone()
    return Survey(waiting - deferred, deferred, held, due, None if oldest is None else oldest[0])


def touch(connection: apsw.Connection, payloads: Sequence[None]) -> list[None]:
    """(Job) A commit that leaves everything as it was: can the database be written?"""
    connection.execute("UPDATE run SET number=number")
    return [None] * len(payloads)
