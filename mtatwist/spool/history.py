"""What became of earlier attempts: the history of each recipient, for as long as its message is here."""

from __future__ import annotations

from typing import Any

import apsw

from mtatwist.spool.views import Page

KEPT = 50
"""Attempts remembered of a recipient: the last ones."""


def story(connection: apsw.Connection, id: str, after: str | None, octets: int) -> tuple[dict[str, Any], Page]:
    """As views.message(), and each recipient has its ``history``: the attempts that deferred it, the oldest first.

    An attempt: ``at``, ``code``, ``enhanced``, ``text``, ``reply``, ``host``. The last one (and what ended it, when it
    is delivered or failed) stands in the recipient itself. Raises LookupError when the message is gone, ValueError.
    """
    raise NotImplementedError
