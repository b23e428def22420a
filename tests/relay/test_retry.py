"""The schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.relay.retry import JITTER, Schedule
from mtatwist.relay.route import BY_MX, Route, choose, destination

INTERVALS = st.lists(st.floats(1, 1e5), min_size=1, max_size=6)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(INTERVALS, st.integers(1, 20), CHANCE, st.floats(0, 1e5))
def test_the_next_attempt_is_an_interval_away_give_or_take_the_jitter(
    intervals: list[float], attempts: int, chance: float, now: float
) -> None:
    schedule = Schedule(intervals, 1e9, random=lambda: chance)
    waited = schedule.next_attempt(0.0, attempts, now) - now
    # The last interval repeats.
    interval = intervals[min(attempts - 1, len(intervals) - 1)]
    assert interval * (1 - JITTER) - 1e-3 <= waited <= interval * (1 + JITTER) + 1e-3


def test_jitter_spreads_what_failed_together() -> None:
    schedule = Schedule([100.0], 1e9)
    assert len({schedule.next_attempt(0.0, 1, 0.0) for _ in range(50)}) > 25


@given(INTERVALS, CHANCE, st.floats(1, 1e6))
def test_one_last_attempt_falls_on_the_end_of_max_age(intervals: list[float], chance: float, max_age: float) -> None:
    """However the intervals fall, the message is tried at max_age, and then no more."""
    schedule = Schedule(intervals, max_age, random=lambda: chance)
    now, attempts = 0.0, 1
    while not schedule.expired(0.0, now) and attempts < 200:
        after = schedule.next_attempt(0.0, attempts, now)
        assert now < after <= max(max_age, now + 1.0)
        now, attempts = after, attempts + 1
    if attempts < 200:
        assert max_age <= now <= max_age + 1.0


def test_expiry_counts_from_acceptance() -> None:
    schedule = Schedule([60.0], 3600.0)
    assert not schedule.expired(1000.0, 4599.0)
    assert schedule.expired(1000.0, 4600.0)


def test_an_overdue_message_is_not_tried_in_a_tight_loop() -> None:
    """After a long downtime, or a clock that jumped."""
    assert Schedule([60.0], 3600.0).next_attempt(0.0, 1, 999_999.0) == 1_000_000.0


@pytest.mark.parametrize(
    ("pattern", "domain", "expected"),
    [
        ("example.org", "example.org", True),
        ("example.org", "sub.example.org", False),
        ("*.example.org", "sub.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "notexample.org", False),
        ("*", "anything", True),
        ("*", "", True),
    ],
)
def test_route_patterns(pattern: str, domain: str, expected: bool) -> None:
    assert Route(pattern, "smtp", "x:25").matches(domain) == expected


def test_the_first_matching_route_decides() -> None:
    routes = [Route("a.test", "smtp", "one:25"), Route("*.a.test", "smtp", "two:25"), Route("*", "smtp", "three:25")]
    found = [choose(routes, domain) for domain in ("a.test", "x.a.test", "b.test")]
    assert found == routes
    assert choose(routes[:2], "b.test") == BY_MX
    assert destination(routes[0], "a.test") == "one:25"
    assert destination(BY_MX, "b.test") == "b.test"


def test_a_message_is_late_after_a_while_or_never() -> None:
    schedule = Schedule([60], 1000, warn_after=100)
    assert [schedule.late(1_000_000, 1_000_000 + age) for age in (0, 99, 100, 5000)] == [False, False, True, True]
    assert not Schedule([60], 1000).late(1_000_000, 9_000_000)
    assert schedule.ends_at(1_000_000) == 1_001_000
