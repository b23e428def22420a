"""What the database keeps of the lockout: failed logins, locks, and from where accounts have logged in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

KEY_BYTES = 32


class Kept(NamedTuple):
    """One subject: an account (``network`` is ""), a network (``account`` is ""), or the pair of both.

    ``at``: when it changed last; ``until``: when its lock ends, 0 where there is none; ``failures``: when those that
    count happened, and less than 0 (the time, negated) where a login has forgiven them since; ``wrong``: the
    fingerprints of wrong passwords, and when each was seen last. Seconds, in the queue's time.
    """

    account: str
    network: str
    at: float
    until: float = 0.0
    failures: Sequence[float] = ()
    wrong: Mapping[str, float] = {}


class Known(NamedTuple):
    """``account`` has logged in from ``network``, last ``at`` this time."""

    account: str
    network: str
    at: float


class Changes(NamedTuple):
    """What is different from now on; ``gone`` and ``strange`` name (account, network)."""

    kept: Sequence[Kept] = ()
    gone: Sequence[tuple[str, str]] = ()
    known: Sequence[Known] = ()
    strange: Sequence[tuple[str, str]] = ()


class Oldest(NamedTuple):
    """What is older has no meaning any more: changes of subjects without a lock, and logins."""

    kept: float
    known: float


class Saved(NamedTuple):
    """What an earlier run left, oldest first. ``key`` is that of the fingerprints."""

    key: bytes
    kept: Sequence[Kept]
    known: Sequence[Known]


def load(connection: apsw.Connection, payloads: Sequence[Oldest]) -> list[Saved]:
    """(Job) Everything that still means something; the rest is deleted."""
    return [_load(connection, oldest) for oldest in payloads]


def _load(connection: apsw.Connection, oldest: Oldest) -> Saved:
    connection.execute("INSERT INTO lockout_key SELECT ? WHERE NOT EXISTS (SELECT 1 FROM lockout_key)", (_new_key(),))
    connection.execute("DELETE FROM lockout WHERE at<? AND until<?", (oldest.kept, oldest.kept))
    connection.execute("DELETE FROM lockout_known WHERE at<?", (oldest.known,))
    rows: Any = connection.execute("SELECT account,network,at,until,failures,wrong FROM lockout ORDER BY at")
    kept = [
        Kept(account, network, at, until, orjson.loads(failures), orjson.loads(wrong))
        for account, network, at, until, failures, wrong in rows
    ]
    known: Any = connection.execute("SELECT account,network,at FROM lockout_known ORDER BY at")
    key: Any = connection.execute("SELECT key FROM lockout_key").fetchall()
    return Saved(key[0][0], kept, [Known(*row) for row in known])


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def save(connection: apsw.Connection, payloads: Sequence[Changes]) -> list[None]:
    """(Job) Make changes durable, in their order."""
    for changes in payloads:
        if changes.kept:
            connection.executemany(
                "INSERT OR REPLACE INTO lockout (account,network,at,until,failures,wrong) VALUES (?,?,?,?,?,?)",
                [(*each[:4], _text(each.failures), _text(each.wrong)) for each in changes.kept],
            )
        if changes.gone:
            connection.executemany("DELETE FROM lockout WHERE account=? AND network=?", changes.gone)
        if changes.known:
            connection.executemany("INSERT OR REPLACE INTO lockout_known VALUES (?,?,?)", changes.known)
        if changes.strange:
            connection.executemany("DELETE FROM lockout_known WHERE account=? AND network=?", changes.strange)
    return [None] * len(payloads)
