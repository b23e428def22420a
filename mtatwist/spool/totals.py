"""The queue in figures: what waits, where for, and for how long. As spool.views, for SqliteSpool.look()."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import apsw
import orjson

from mtatwist.envelope import State
from mtatwist.spool.selection import Selection
from mtatwist.spool.survey import OLDEST
from mtatwist.spool.views import LAST, Matching, one, window

MOST_USED = 20
"""Domains and next hops that are named."""

DOMAINS = 200
"""Domains in a shape."""

ROUTED = 50_000
"""Domains whose next hop is asked for: those with the most recipients."""

AGES = (300, 3600, 4 * 3600, 86400)
"""Upper bounds of the ages in :func:`shape`, in seconds."""

_MESSAGES = "SELECT json_array(count(*), coalesce(sum(size), 0)) FROM message"


def stats(connection: apsw.Connection, now: float, next_hop: Callable[[str], str]) -> dict[str, Any]:
    """How much waits.

    ``messages``, ``octets``, ``oldest`` (when it was received; None: there is none), ``recipients`` with ``pending``,
    ``deferred``, ``held`` (which are all of them), ``active`` and ``due`` (of those); ``domains`` and ``next_hops``:
    the twenty with the most recipients, as [{"name": ..., "recipients": ...}]; ``replies``: recipients by the class of
    the last reply, {"4": 17}.
    """
    messages, octets = orjson.loads(one(connection, _MESSAGES, ()))
    oldest = connection.execute(OLDEST).fetchone()
    states: Counter[int] = Counter()
    replies: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    active = due = 0
    key = "r.state||(r.claimed_by<>0)||(r.next_attempt<=:now)||(r.code/100)||r.domain"
    for text, count in _tally(connection, Selection(), now, key, next_hop).items():
        state, is_active, is_due, replied, domain = int(text[0]), text[1] == "1", text[2] == "1", text[3], text[4:]
        states[state] += count
        domains[domain] += count
        active += count if is_active else 0
        due += count if is_due and not is_active and state != State.HELD else 0
        if replied != "0":
            replies[replied] += count
    hops: Counter[str] = Counter()
    for domain, count in domains.most_common(ROUTED):
        hops[next_hop(domain)] += count
    return {
        "messages": messages,
        "octets": octets,
        "oldest": None if oldest is None else oldest[0],
        "recipients": {
            "pending": states[State.PENDING],
            "deferred": states[State.DEFERRED],
            "held": states[State.HELD],
            "active": active,
            "due": due,
        },
        "replies": dict(sorted(replies.items())),
        "domains": [{"name": name, "recipients": count} for name, count in domains.most_common(MOST_USED)],
        "next_hops": [{"name": name, "recipients": count} for name, count in hops.most_common(MOST_USED)],
    }


def shape(
    connection: apsw.Connection, selection: Selection, now: float, next_hop: Callable[[str], str]
) -> dict[str, Any]:
    """Recipients by domain and age: {"ages": [...], "rows": [{"domain": ..., "counts": [...], "recipients": sum}]}.

    There is a count for each of the ages, and one for what is older. At most 200 domains, those with the most
    recipients first; what the others have is a last row whose domain is "" and which has ``domains``, their number.
    """
    bounds = "".join(f"+(m.received_at<={now - age!r})" for age in AGES)
    counts: dict[str, list[int]] = {}
    totals: Counter[str] = Counter()
    for text, count in _tally(connection, selection, now, f"(0{bounds})||r.domain", next_hop, ages=True).items():
        domain = text[1:]
        counts.setdefault(domain, [0] * (len(AGES) + 1))[int(text[0])] += count
        totals[domain] += count
    ordered = [domain for domain, _ in totals.most_common()]
    rows = [{"domain": domain, "counts": counts[domain], "recipients": totals[domain]} for domain in ordered[:DOMAINS]]
    others = ordered[DOMAINS:]
    if others:
        summed = [sum(column) for column in zip(*(counts[domain] for domain in others), strict=True)]
        rows.append({"domain": "", "counts": summed, "recipients": sum(summed), "domains": len(others)})
    return {"ages": list(AGES), "rows": rows}


def _tally(
    connection: apsw.Connection,
    selection: Selection,
    now: float,
    key: str,
    next_hop: Callable[[str], str],
    *,
    ages: bool = False,
) -> Counter[str]:
    """How many recipients that are meant there are for each value of ``key``, which has few. ``ages``: it asks the
    messages. Counted here, a part at a time: SQLite would sort them all, which takes several times as long."""
    counter: Counter[str] = Counter()
    found = Matching(selection, now)
    query = f"""
        SELECT json_group_array({key}) FROM {found.source(ages)}
        WHERE r.number>:after AND r.number<=:end AND {found.where}"""
    after = 0
    while after != LAST:
        end = window(connection, after)
        values = {**found.within(connection, after, end, next_hop), "now": now}
        counter.update(orjson.loads(one(connection, query, values)))
        after = end
    return counter
