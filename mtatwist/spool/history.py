"""What became of earlier attempts: the history of each recipient, for as long as its message is here."""

from __future__ import annotations

import json
from typing import Any

import apsw
import orjson

from mtatwist.envelope import State
from mtatwist.smtp.reply import Reply
from mtatwist.spool.views import Page, facts_of, fit, index_after, one, recipients_after

KEPT = 50
"""Attempts remembered of a recipient: the last ones."""

REMEMBER = f"""
    INSERT OR REPLACE INTO attempt
    SELECT r.number, r.idx, r.attempts%{KEPT}, r.at, r.code, r.enhanced, r.text, r.host, r.tls
    FROM json_each(?) AS tried CROSS JOIN recipient AS r ON r.number=tried.value->>0 AND r.idx=tried.value->>1
    WHERE tried.value->>2={State.DEFERRED:d} AND r.state={State.DEFERRED:d} AND r.claimed_by=0"""
"""After the outcomes were written: keep those that leave a recipient waiting. What ends it stands in the recipient, and
is gone with the message mostly, so that mail that is taken at once costs nothing. To do it again changes nothing."""

FORGET = """
    DELETE FROM attempt WHERE number IN (SELECT value FROM json_each(?))
    AND NOT EXISTS (SELECT 1 FROM message WHERE message.number=attempt.number)"""
"""Of these messages, what is here no more has no history."""

FORGET_LOST = "DELETE FROM attempt WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.number=attempt.number)"

_ATTEMPTS = "SELECT at, code, enhanced, text, host, tls FROM attempt WHERE number=? AND idx=? ORDER BY at, slot"

_OF_MANY = """
    SELECT json_group_array(json_array(idx, at, code, enhanced, text, host, tls)) FROM (
        SELECT * FROM attempt WHERE number=? AND idx IN (SELECT value FROM json_each(?)) ORDER BY idx, at, slot
    )"""

_PAGE = 20
"""Recipients whose history is read at once."""


def attempts(connection: apsw.Connection, number: int, index: int) -> list[dict[str, Any]]:
    """The attempts that left one recipient waiting, the oldest first."""
    return [_attempt(*row) for row in connection.execute(_ATTEMPTS, (number, index))]


def story(connection: apsw.Connection, id: str, after: str | None, octets: int) -> tuple[dict[str, Any], Page]:
    """As views.message(), and each recipient has its ``history``: the attempts that left it waiting, the oldest first.

    An attempt: ``at``, ``code``, ``enhanced``, ``text``, ``reply``, ``host``, ``tls``. What ended it, when it is
    delivered or failed, stands in the recipient itself. Of a history too long for a page only the last attempts are
    given. Raises LookupError when the message is gone, ValueError.
    """
    facts = facts_of(connection, id)
    number = int(id, 16)
    recipients, more = recipients_after(connection, number, index_after(after), _PAGE)
    histories: dict[int, list[dict[str, Any]]] = {}
    indexes = json.dumps([recipient["index"] for recipient in recipients])
    for index, *attempt in orjson.loads(one(connection, _OF_MANY, (number, indexes))):
        histories.setdefault(index, []).append(_attempt(*attempt))
    for recipient in recipients:
        history = histories.get(recipient["index"], [])
        while len(orjson.dumps(history)) > octets // 2:
            del history[0]
        recipient["history"] = history
    return facts, fit(recipients, octets, more, lambda recipient: str(recipient["index"]))


def _attempt(at: float, code: int, enhanced: str, text: str, host: str, tls: str) -> dict[str, Any]:
    said = str(Reply(code, enhanced, text)) if code else ""
    return {"at": at, "code": code, "enhanced": enhanced, "text": text, "reply": said, "host": host, "tls": tls}
