"""How connections are shared out: to one next hop by what it bears, and among all by what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mtatwist.relay.limits import FIRST_CONNECTIONS, Connections, Ramp


def test_a_ramp_reaches_its_end_soon() -> None:
    ramp = Ramp(20)
    successes = 0
    while ramp.allowed < 20:
        ramp.succeeded()
        successes += 1
    assert successes == 20 - FIRST_CONNECTIONS
    ramp.succeeded()
    assert ramp.allowed == 20


def test_a_ramp_begins_no_higher_than_it_may_end() -> None:
    assert Ramp(2).allowed == 2
    assert Ramp(20, 1).allowed == 1


@pytest.mark.parametrize(("connections", "allowed"), [(7, 7), (0, 1), (-1, 1), (50, 20)])
def test_after_trouble_a_ramp_goes_up_slowly(connections: int, allowed: int) -> None:
    ramp = Ramp(20)
    ramp.troubled(connections)
    for _ in range(50):
        ramp.succeeded()
    assert ramp.allowed == allowed
    for _ in range(60):
        ramp.succeeded()
    assert ramp.allowed == min(allowed + 1, 20)


class Taker:
    """Wants as many as it can get."""

    def __init__(self, total: Connections) -> None:
        self.total = total
        self.has = 0
        self.asked_for_room = 0

    def take(self) -> bool:
        took = self.total.take(self, self.has)
        self.has += took
        return took

    def give(self) -> None:
        self.has -= 1
        self.total.give()

    def granted(self) -> None:
        self.has += 1

    def make_room(self) -> None:
        self.asked_for_room += 1


def test_many_share_and_everybody_gets_one() -> None:
    total = Connections(100, Clock())
    takers = [Taker(total) for _ in range(9)]
    while sum(taker.take() for taker in takers):
        pass
    assert max(taker.has for taker in takers) - min(taker.has for taker in takers) <= 1
    late = Taker(total)
    assert late.take()


def test_who_waits_is_served_in_order_and_before_those_who_have_some() -> None:
    clock = Clock()
    total = Connections(2, clock)
    one, two, three, four = takers = [Taker(total) for _ in range(4)]
    assert [taker.take() for taker in takers] == [True, True, False, False]
    assert total.wanted
    one.give()
    assert not one.take()
    clock.advance(0)
    assert [taker.has for taker in takers] == [0, 1, 1, 0]
    two.give()
    clock.advance(0)
    assert four.has == 1
    three.give()
    clock.advance(0)
    assert one.has == 1
    assert not total.wanted


def test_one_that_is_being_closed_is_not_asked_for_twice() -> None:
    total = Connections(2, Clock())
    one, two, three = [Taker(total) for _ in range(3)]
    one.take()
    two.take()
    three.take()
    assert total.wanted
    one.give()
    assert not total.wanted, "what has just been given is for the one who waits"


def test_who_leaves_the_line_gets_none() -> None:
    clock = Clock()
    total = Connections(1, clock)
    one, two = Taker(total), Taker(total)
    one.take()
    two.take()
    one.give()
    total.leave(two)
    clock.advance(0)
    assert two.has == 0
    assert one.take()


def test_who_rests_is_asked_for_room() -> None:
    total = Connections(1, Clock())
    one, two = Taker(total), Taker(total)
    one.take()
    total.rests(one, True)
    two.take()
    assert one.asked_for_room == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=100), st.integers(1, 8))
def test_the_total_is_never_exceeded_and_nobody_is_forgotten(steps: list[tuple[int, bool]], limit: int) -> None:
    clock = Clock()
    total = Connections(limit, clock)
    takers = [Taker(total) for _ in range(5)]
    wants = set()
    for which, takes in steps:
        taker = takers[which]
        if takes:
            taker.take()
            if not taker.has:
                wants.add(which)
        elif taker.has:
            taker.give()
        clock.advance(0)
        wants = {one for one in wants if not takers[one].has}
        assert sum(taker.has for taker in takers) <= limit
    while wants:
        giving = next(taker for taker in takers if taker.has)
        giving.give()
        clock.advance(0)
        before, wants = wants, {one for one in wants if not takers[one].has}
        assert wants < before
