"""Work that several wait for, and what is remembered of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from mtatwist.recipients.shared import Remembered, Shared


def test_all_get_the_result_and_those_who_come_late() -> None:
    work: Deferred[int] = Deferred()
    shared = Shared(work)
    results: list[int] = []
    for _ in range(2):
        shared.join().addCallback(results.append)
    work.callback(3)
    shared.join().addCallback(results.append)
    assert results == [3, 3, 3]


def test_each_gets_a_failure_of_its_own() -> None:
    work: Deferred[int] = Deferred()
    shared = Shared(work)
    failures: list[Any] = []
    shared.join().addErrback(failures.append)
    work.errback(ValueError("x"))
    shared.join().addErrback(failures.append)
    assert [failure.type for failure in failures] == [ValueError, ValueError]
    assert failures[0] is not failures[1]


def test_who_gives_up_does_not_end_it_for_the_others() -> None:
    work: Deferred[int] = Deferred()
    shared = Shared(work)
    impatient = shared.join()
    results: list[Any] = []
    shared.join().addCallback(results.append)
    impatient.addErrback(lambda failure: failure.trap(CancelledError))
    impatient.cancel()
    work.callback(3)
    assert results == [3]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 3)), max_size=60))
def test_what_is_remembered_is_bounded_and_right(steps: list[tuple[int, int, int]]) -> None:
    clock = Clock()
    known: Remembered[int, int] = Remembered(limit=8, seconds=5, clock=clock)
    put: dict[int, tuple[float, int]] = {}
    for key, size, seconds in steps:
        known.put(key, (size,) * size)
        put[key] = clock.seconds(), size
        clock.advance(seconds)
        there = {one: value for one in range(10) if (value := known.get(one)) is not None}
        assert sum(max(1, len(value)) for value in there.values()) <= 8
        for one, value in there.items():
            when, length = put[one]
            assert len(value) == length
            assert clock.seconds() < when + 5


def test_what_was_asked_for_lately_stays() -> None:
    known: Remembered[str, int] = Remembered(limit=2, seconds=5, clock=Clock())
    known.put("a", ())
    known.put("b", (1,))
    known.get("a")
    known.put("c", ())
    assert (known.get("a"), known.get("b"), known.get("c")) == ((), None, ())
    known.put("large", (1, 2, 3))
    assert (known.get("large"), len(known)) == (None, 2)
