"""Ages, sizes, moments and states of the queue, as people read them and as JSON has them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

MOMENTS = frozenset({"received_at", "next_attempt", "at", "oldest"})
"""What the server tells in seconds since the epoch."""

DELIVERING = "being delivered"
"""What goes on with a recipient that nobody can change right now."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ("KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """In its two largest units: "2h 5m"; none is less than "0s"."""
    left = max(0, int(seconds))
    words = []
    for length, unit in _UNITS:
        count, left = divmod(left, length)
        if count:
            words.append(f"{count}{unit}")
        if words and (len(words) == 2 or not count):
            break
    return " ".join(words) or "0s"


def size(octets: int) -> str:
    """In the largest unit that it fills: "512 B", "4.9 KiB"."""
    if octets < 1024:
        return f"{octets} B"
    power = 1
    # 1023.96 of a unit would be written as 1024.0 of it.
    while octets / 1024**power >= 1023.95 and power < len(_SIZES):
        power += 1
    amount = octets / 1024**power
    return f"{amount:.{0 if amount >= 99.95 else 1}f} {_SIZES[power - 1]}"


def count(number: int, thing: str) -> str:
    """ "1 message", "2 messages"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def moment(at: float) -> str:
    """For people; UTC, as in the log: "2026-11-22 20:05:00Z"."""
    return iso(at).replace("T", " ")


def iso(at: float) -> str:
    """As JSON has it: "2026-11-22T20:05:00Z" (ISO 8601, RFC 3339)."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    except (ValueError, OverflowError, OSError):
        # No calendar goes so far.
        return f"{at:g}"


def told(facts: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The facts as JSON has them: moments in ISO 8601; with when it came its ``age``, and with the next attempt in how
    many seconds it is ``due_in``."""
    said = dict(facts)
    for name in MOMENTS & said.keys():
        if said[name] is not None:
            said[name] = iso(said[name])
    if "received_at" in said:
        said["age"] = max(0, round(now - facts["received_at"]))
    if "next_attempt" in said:
        due = facts["next_attempt"]
        said["due_in"] = None if due is None else max(0, round(due - now))
    if "history" in said:
        said["history"] = [told(attempt, now) for attempt in said["history"]]
    return said


def due(due_in: int | None) -> str:
    """How long it is until the next attempt: "in 4m 10s", "now", or "-" when there is none."""
    if due_in is None:
        return "-"
    return f"in {duration(due_in)}" if due_in else "now"


def sender(reverse_path: str) -> str:
    """The reverse path; the null one as it is written."""
    return reverse_path or "<>"


def states(row: Mapping[str, Any]) -> str:
    """What the recipients of a message wait as: "deferred", or "2 deferred, 1 held" where they differ."""
    counts = {name: row[name] for name in ("pending", "deferred", "held") if row[name]}
    words = next(iter(counts)) if len(counts) == 1 else join(f"{number} {name}" for name, number in counts.items())
    return f"{words}, {DELIVERING}" if row["active"] else words


def state(delivery: Mapping[str, Any]) -> str:
    """What a recipient waits as."""
    return f"{delivery['state']}, {DELIVERING}" if delivery["active"] else str(delivery["state"])


def first_of(row: Mapping[str, Any]) -> str:
    """The first recipient who is meant, and how many more are."""
    more = row["pending"] + row["deferred"] + row["held"] - 1
    return f"{row['recipient']} and {more} more" if more else str(row["recipient"])


def join(words: Iterable[str]) -> str:
    """With commas."""
    return ", ".join(words)
