"""How the spool is: how much waits in the queue, counted by index and within a bound, and whether it can be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw

MOST = 1_000_000
"""What is counted no further: an entry of an index takes about 30 ns."""

WAITING = f"""
    SELECT count(*) FROM (SELECT 1 FROM recipient WHERE state<2 AND claimed_by=0 LIMIT {MOST})"""

DUE = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM recipient WHERE state<2 AND claimed_by=0 AND next_attempt<=?1 LIMIT {MOST}
    )"""

OLDEST = "SELECT received_at FROM message ORDER BY number LIMIT 1"


class Survey(NamedTuple):
    """``waiting``: recipients that wait for an attempt, those on their way not among them; ``due``: those of them whose
    time has come; ``oldest``: when the oldest message was received, in the queue's time (None: there is none)."""

    waiting: int
    due: int
    oldest: float | None


def survey(connection: apsw.Connection, now: float) -> Survey:
    """Count. ``now`` is the queue's time."""

    def first(query: str, *bindings: float) -> float | None:
        row = connection.execute(query, bindings).fetchone()
        return None if row is None else row[0]

    return Survey(int(first(WAITING) or 0), int(first(DUE, now) or 0), first(OLDEST))


def touch(connection: apsw.Connection, payloads: Sequence[None]) -> list[None]:
    """(Job) A commit that leaves everything as it was: can the database be written?"""
    connection.execute("UPDATE run SET number=number")
    return [None] * len(payloads)
