"""What the database keeps of how much each account has sent: see validators.usage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apsw


class KeptWindow(NamedTuple):
    """One sliding window. ``what`` is counted over ``seconds``; ``parts``: numbers of its parts, and how many in each.

    ``warned_until``: until when nobody is warned again, in the queue's time.
    """

    what: str
    seconds: float
    warned_until: float
    parts: Sequence[tuple[int, int]]


#: The windows of each account; None: there is nothing to keep of it any more.
Rows = Mapping[str, Sequence[KeptWindow] | None]


def load(connection: apsw.Connection, payloads: Sequence[None]) -> list[dict[str, list[KeptWindow]]]:
    """(Job) Everything."""
    rows: Any = connection.execute("SELECT account, windows FROM submission_usage").fetchall()
    kept = {account: [KeptWindow(*each) for each in json.loads(windows)] for account, windows in rows}
    return [kept for _ in payloads]


def save(connection: apsw.Connection, payloads: Sequence[Rows]) -> list[None]:
    """(Job) Make changes durable, in their order."""
    for rows in payloads:
        changed = [(account, json.dumps(windows)) for account, windows in rows.items() if windows is not None]
        gone = [(account,) for account, windows in rows.items() if windows is None]
        if changed:
            connection.executemany("INSERT OR REPLACE INTO submission_usage VALUES (?,?)", changed)
        if gone:
            connection.executemany("DELETE FROM submission_usage WHERE account=?", gone)
    return [None] * len(payloads)
