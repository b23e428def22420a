"""Pages that fit into an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from mtatwist.control.commands import PAGE_BYTES


def page(rows: Iterable[tuple[str, dict[str, Any]]], following: str | None = None) -> dict[str, Any]:
    """The answer of a command that is read in pages: as many rows as fit, and the cursor of the last of them.

    ``rows`` come with the cursor that stands for each; ``following`` is where to go on behind all of them, None:
    nothing comes there. A row that is too large by itself is told by its cursor alone: nothing is passed over.
    """
    fitting: list[dict[str, Any]] = []
    octets = 2
    last = None
    for cursor, row in rows:
        size = len(orjson.dumps(row, default=str)) + 1
        if size > PAGE_BYTES:
            row = {"too_large": cursor}
            size = len(orjson.dumps(row)) + 1
        if octets + size > PAGE_BYTES:
            return {"rows": fitting, "cursor": last}
        octets += size
        fitting.append(row)
        last = cursor
    return {"rows": fitting, "cursor": following}
