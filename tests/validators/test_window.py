"""Counting over a sliding window."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.store.usage import KeptWindow
from mtatwist.validators.window import PARTS, Limit, Window

HOURLY = Limit("messages", 100, 3600.0, "100/h")


def test_it_slides() -> None:
    window = Window(HOURLY)
    window.add(1_000_000.0, 60)
    window.add(1_001_800.0, 40)
    assert window.room(1_001_800.0) == 0
    assert window.room(1_003_599.0) == 0
    assert window.room(1_000_000.0 + 3600 + 61) == 60
    assert window.room(1_001_800.0 + 3600 + 61) == 100


@given(
    st.lists(st.tuples(st.floats(0, 600), st.integers(1, 3)), max_size=80),
    st.floats(1, 1000),
)
def test_never_more_than_the_limit_in_any_window(arrivals: list[tuple[float, int]], seconds: float) -> None:
    window = Window(Limit("messages", 10, seconds, ""))
    now, sent = 1_000_000.0, []
    for wait, count in arrivals:
        now += wait
        if count <= window.room(now):
            window.add(now, count)
            sent.append((now, count))
        in_window = sum(many for at, many in sent if at > now - seconds)
        assert in_window <= 10
        # And what is out of it, but for a part of it, no longer counts.
        assert window.total(now) <= sum(many for at, many in sent if at >= now - seconds * (1 + 2 / PARTS))
        assert len(window.kept().parts) <= PARTS + 1


def test_a_warning_comes_once_in_a_window() -> None:
    window = Window(HOURLY)
    assert not window.add(1_000_000.0, 79)
    assert window.add(1_000_001.0, 1)
    assert not window.add(1_000_002.0, 1)
    assert not window.add(1_003_590.0, 1)
    assert not window.add(1_007_000.0, 78)
    assert window.add(1_007_001.0, 1)


def reborn(window: Window, now: float, into: Window | None = None) -> Window:
    """As a later run has it."""
    made = into or Window(window.limit)
    made.restore(KeptWindow(*json.loads(json.dumps(window.kept()))), now)
    return made


def test_a_later_run_goes_on_counting() -> None:
    window = Window(HOURLY)
    window.add(1_000_000.0, 80)
    since = Window(HOURLY)
    since.add(1_001_800.0, 15)
    made = reborn(window, 1_001_801.0, since)
    assert made.room(1_001_801.0) == 5
    assert not made.add(1_001_801.0, 1)
    assert made.room(1_000_000.0 + 3661) == 84


def test_a_clock_that_was_set_back_locks_nobody_out_for_ever() -> None:
    window = Window(HOURLY)
    window.add(9_000_000.0, 100)
    made = reborn(window, 1_000_000.0)
    assert made.room(1_000_000.0) == 0
    assert made.room(1_003_661.0) == 100
    assert made.add(1_003_661.0, 90)


@pytest.mark.parametrize("back", [0.5, 61.0])
def test_a_clock_that_is_corrected_changes_nothing(back: float) -> None:
    window = Window(HOURLY)
    window.add(1_000_000.0, 1)
    window.add(1_000_000.0 - back, 1)
    assert window.total(1_000_000.0 - back) == 2
    assert window.total(1_003_661.0) == 0
