"""What the database keeps about the queue's time: see store.queue_time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from mtatwist.store.queue_time import KeptTime

NEWEST = "SELECT received_at FROM message ORDER BY number DESC LIMIT 1"

LATEST = "SELECT next_attempt FROM recipient WHERE state<2 AND claimed_by=0 ORDER BY next_attempt DESC LIMIT 1"


def read(connection: apsw.Connection) -> KeptTime:
    """Three looks at the end of an index each: no scan, however long the queue. Nothing may be claimed yet."""

    def first(query: str) -> Any:
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]

    return KeptTime(
        first("SELECT ahead FROM clock") or 0.0,
        first(NEWEST),
        first(LATEST),
    )


def keep(connection: apsw.Connection, payloads: Sequence[float]) -> list[None]:
    """(Job) How far the queue's time is ahead of the machine's; the last word counts."""
    connection.execute("DELETE FROM clock")
    connection.execute("INSERT INTO clock VALUES (?)", (payloads[-1],))
    return [None] * len(payloads)
