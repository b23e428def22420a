"""Booleans, numbers, durations, sizes, rates and retry schedules."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from itertools import groupby

from mtatwist.values.base import quoted, string, wrong_type

SECONDS = {"ms": Fraction(1, 1000)} | {
    unit: Fraction(seconds) for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 604800))
}
BYTES = {"": 1, "b": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
# Timers a century away are slips of the pen, and larger floats upset the reactor's heap.
LONGEST = 3650 * 86400
LARGEST = 2**63 - 1

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(rf"(?:\s*{_NUMBER}\s*(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|[smhdw])")
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.IGNORECASE)
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*(.+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` events in any ``seconds``."""

    count: int
    seconds: float


def parse_boolean(raw: object) -> bool:
    """Read true or false."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        raise ValueError(f"expected a boolean, but found the string {quoted(raw)}: write {raw.lower()}, without quotes")
    raise wrong_type(raw, "a boolean", "true or false")


def parse_integer(raw: object, minimum: int = 1, maximum: int = 10**9) -> int:
    """Read a whole number between ``minimum`` and ``maximum``."""
    if isinstance(raw, bool) or not isinstance(raw, int):
        if isinstance(raw, str) and raw.strip().isdecimal():
            raise ValueError(f"expected a whole number, but found the string {quoted(raw)}: write it without quotes")
        raise wrong_type(raw, "a whole number", str(max(minimum, 20)))
    if raw < minimum:
        raise ValueError(f"must be at least {minimum}, not {raw}")
    if raw > maximum:
        raise ValueError(f"must be at most {maximum}")
    return raw


def parse_duration(raw: object, *, zero: bool = False) -> float:
    """Read "5m", "250ms" or "1h30m" as seconds; ``zero`` allows "0s"."""
    units = "ms, s, m, h, d or w"
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raise ValueError(f'{raw} has no unit: write "{raw}s" for seconds, or use another of {units}')
    text = string(raw, "a duration", '"5m"').strip()
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f'{quoted(raw)} has no unit: write "{text}s" for seconds, or use another of {units}')
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f'{quoted(raw)} is not a duration: write a number and a unit ({units}), such as "5m" or "1h30m"'
        )
    total = sum(Fraction(number) * SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if total > LONGEST:
        raise ValueError(f'{quoted(raw)} is too long: at most "{LONGEST // 86400}d"')
    if total == 0 and not zero:
        raise ValueError(f'{quoted(raw)} is no time at all: write a duration above zero, such as "5m"')
    return float(total)


def show_duration(seconds: float) -> str:
    """Write seconds in the largest unit that divides them: 300.0 as "5m"."""
    for unit in ("d", "h", "m", "s"):
        times = Fraction(seconds) / SECONDS[unit]
        if times and times.denominator == 1:
            return f"{times}{unit}"
    return f"{seconds * 1000:.12g}ms" if seconds else "0s"


def parse_size(raw: object, *, zero: bool = False) -> int:
    """Read "25MiB", "25MB", "1024" or 1024 as bytes; ``zero`` allows "0"."""
    units = "KiB, MiB, GiB (1024), kB, MB, GB (1000)"
    if isinstance(raw, int) and not isinstance(raw, bool):
        size = raw
    else:
        text = string(raw, "a size", '"25MiB"').strip()
        match = _SIZE.fullmatch(text)
        if match is None and text.startswith("-"):
            raise ValueError(f"must be above zero, not {quoted(raw)}")
        if match is None:
            raise ValueError(f'{quoted(raw)} is not a size: write a number and a unit ({units}), such as "25MiB"')
        unit = match[2].lower()
        if unit not in BYTES:
            cure = f'"{match[1]}{unit.upper()}iB"' if unit + "ib" in BYTES else f"one of {units}"
            raise ValueError(f"{quoted(raw)} has the unknown unit {quoted(match[2])}: write {cure}")
        size = int(Fraction(match[1]) * BYTES[unit])
    if size < 0 or (size == 0 and not zero):
        raise ValueError(f"must be above zero, not {quoted(raw)}")
    if size > LARGEST:
        raise ValueError(f"is too large: at most {LARGEST} bytes")
    return size


def show_size(size: int) -> str | int:
    """Write bytes in the largest binary unit that divides them, or as a plain number."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def parse_rate(raw: object) -> Rate:
    """Read "100/h" or "20/10m" as a :class:`Rate`."""
    text = string(raw, "a rate", '"100/h"').strip()
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'{quoted(raw)} is not a rate: write a count, a slash and a time, such as "100/h"')
    if int(match[1]) < 1:
        raise ValueError(f"{quoted(raw)} would allow nothing: write a count of at least 1")
    interval = match[2].strip()
    try:
        seconds = parse_duration(f"1{interval}" if interval in SECONDS else interval)
    except ValueError as error:
        raise ValueError(f"{quoted(raw)} is not a rate: {error}") from None
    return Rate(int(match[1]), seconds)


def show_rate(rate: Rate) -> str:
    """Write a rate, without the count of a single unit of time: "100/h"."""
    interval = show_duration(rate.seconds)
    unit = interval.removeprefix("1")
    return f"{rate.count}/{unit if unit in SECONDS else interval}"


def parse_retry(raw: object) -> tuple[float, ...]:
    """Read "1m, 5m, 1h*4" as the waits, in seconds, between one attempt and the next."""
    example = '"1m, 5m, 15m, 1h*4, 4h*12"'
    if isinstance(raw, list):
        raise ValueError(f"expected one string with commas, such as {example}, but found a list")
    schedule: list[float] = []
    for step in string(raw, "a retry schedule", example).split(","):
        wait, star, times = (part.strip() for part in step.partition("*"))
        if not wait:
            raise ValueError(f"{quoted(raw)} has an empty step: write durations between commas, such as {example}")
        if star and not (times.isascii() and times.isdecimal() and 1 <= int(times[:9]) <= 1000):
            raise ValueError(f'{quoted(step.strip())}: after * comes how often, from 1 to 1000, such as "1h*4"')
        schedule += [parse_duration(wait)] * (int(times) if star else 1)
    return tuple(schedule)


def show_retry(schedule: tuple[float, ...]) -> str:
    """Write a schedule with equal neighbours joined: "1m, 1h*4"."""
    runs = [(show_duration(wait), len(list(run))) for wait, run in groupby(schedule)]
    return ", ".join(wait if times == 1 else f"{wait}*{times}" for wait, times in runs)
