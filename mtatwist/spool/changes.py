"""What somebody who looks after the queue changes in it: found beside the writer, a part at a time, and changed by it.

Between the two, mail goes on. So a change looks again at each recipient: it is left alone when it is no longer what was
meant, and when somebody works on it who was not asked to let go of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import apsw
import orjson

from mtatwist.envelope import Message, State
from mtatwist.spool import due
from mtatwist.spool.selection import Selection, number_of
from mtatwist.spool.views import LAST, Matching, one, window

#: A recipient: the number of its message, and its index there.
Key = tuple[int, int]

FIRST: Key = (0, 0)
"""Before all recipients."""

_BEHIND = 2**31
"""No recipient has a higher index."""

STATES = {
    "hold": (State.PENDING, State.DEFERRED),
    "release": (State.HELD,),
    "retry": (State.PENDING, State.DEFERRED),
    "bounce": (State.PENDING, State.DEFERRED, State.HELD),
    "drop": (State.PENDING, State.DEFERRED, State.HELD),
}
"""What can be done, and to whom."""

# Where an outcome was written, there have been attempts; else it has not been tried yet.
_SET = {
    "hold": f"state={State.HELD:d}, claimed_by=0",
    "release": f"state=iif(attempts>0, {State.DEFERRED:d}, {State.PENDING:d}), claimed_by=0, next_attempt=:now",
    "retry": "claimed_by=0, next_attempt=:now",
    "bounce": "claimed_by=:run",
    "drop": "claimed_by=:run",
}

RECIPIENTS = """
    SELECT json_group_array(json_array(
        r.number, r.idx, address, domain, orcpt, notify, state, attempts, next_attempt, code, enhanced, text, host, at,
        warned
    )) FROM json_each(?) AS chosen CROSS JOIN recipient AS r ON r.number=chosen.value->>0 AND r.idx=chosen.value->>1"""


MESSAGES = (
    f"SELECT json_group_array(json_array({due.FACTS})) FROM message WHERE number IN (SELECT value FROM json_each(?))"
)


class Found(NamedTuple):
    """Recipients that are meant, in order: their keys, their domains, and which of them are claimed. ``following``: the
    key behind which to go on; None: that were all."""

    keys: list[Key]
    domains: set[str]
    claimed: set[Key]
    following: Key | None


class Request(NamedTuple):
    """Do ``action`` to ``keys``. ``withdrawn``: those of them that this run has claimed, and does not work on."""

    action: str
    selection: Selection
    keys: Sequence[Key]
    withdrawn: frozenset[Key]
    now: float


class Answer(NamedTuple):
    """``done``: those that were changed; ``busy``: those that would be meant, and that somebody works on. ``messages``:
    what is to be bounced or dropped, claimed, with just these recipients."""

    done: list[Key]
    busy: list[Key]
    messages: list[Message]


def find(
    connection: apsw.Connection,
    action: str,
    selection: Selection,
    now: float,
    after: Key,
    limit: int,
    next_hop: Callable[[str], str],
) -> Found:
    """For SqliteSpool.look(): those behind ``after`` to whom it may be done, up to ``limit``."""
    number, index = after
    start = number
    if selection.id is not None:
        start = end = number_of(selection.id)
    else:
        end = LAST if selection.everything else window(connection, number)
    matching = Matching(selection, now)
    values = {**matching.within(connection, start - 1, end, next_hop), "index": index, "number": number}
    query = f"""
        SELECT json_group_array(json_array(number, idx, claimed, domain)) FROM (
            SELECT r.number, r.idx, r.claimed_by<>0 AS claimed, r.domain FROM {matching.source()}
            WHERE (r.number, r.idx)>(:number, :index) AND r.number<=:end AND {_in(action)} AND {matching.where}
            ORDER BY r.number, r.idx LIMIT {limit:d}
        )"""
    rows = orjson.loads(one(connection, query, values))
    keys = [(row[0], row[1]) for row in rows]
    at_end = end == LAST or selection.id is not None
    following = keys[-1] if len(keys) == limit else None if at_end else (end, _BEHIND)
    return Found(keys, {row[3] for row in rows}, {(row[0], row[1]) for row in rows if row[2]}, following)


class Changes:
    """The job that changes recipients. ``run`` is whose claims they are."""

    def __init__(self) -> None:
        self.run = 0

    def change(self, connection: apsw.Connection, payloads: Sequence[Request]) -> list[Answer]:
        """(Job) Each request by itself."""
        return [self._change(connection, request) for request in payloads]

    def _change(self, connection: apsw.Connection, request: Request) -> Answer:
        keys = json.dumps([(*key, key in request.withdrawn) for key in request.keys])
        # What else was selected by does not change.
        again = Selection(state=request.selection.state, code=request.selection.code)
        said, values = again.conditions(request.now)
        query = f"""
            SELECT json_group_array(json_array(
                r.number, r.idx, r.claimed_by=0 OR (r.claimed_by=:run AND asked.value->>2)
            )) FROM json_each(:keys) AS asked
            CROSS JOIN recipient AS r ON r.number=asked.value->>0 AND r.idx=asked.value->>1
            WHERE {" AND ".join([_in(request.action), *said])}"""
        rows = orjson.loads(one(connection, query, {**values, "keys": keys, "run": self.run}))
        done = [(number, index) for number, index, free in rows if free]
        chosen = json.dumps(done)
        if done:
            connection.execute(
                f"UPDATE recipient SET {_SET[request.action]} FROM json_each(:chosen) AS chosen"
                " WHERE number=chosen.value->>0 AND idx=chosen.value->>1",
                {"chosen": chosen, "now": request.now, "run": self.run},
            )
        busy = [(number, index) for number, index, free in rows if not free]
        messages = []
        if done and request.action in ("bounce", "drop"):
            recipients = orjson.loads(one(connection, RECIPIENTS, (chosen,)))
            facts = orjson.loads(one(connection, MESSAGES, (json.dumps(sorted({number for number, _ in done})),)))
            messages = due.messages(recipients, facts)
        return Answer(done, busy, messages)


def _in(action: str) -> str:
    """The states that it can be done in."""
    return f"r.state IN ({','.join(str(int(state)) for state in STATES[action])})"
