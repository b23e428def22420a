"""Destinations that are down: how long they are left alone, and what is remembered of them."""

from __future__ import annotations

import pytest
from relay.fakes import DOWN
from twisted.internet.task import Clock

from mtatwist.metrics.instruments import Instruments
from mtatwist.relay import breaker
from mtatwist.relay.breaker import FIRST_PAUSE, FORGET, JITTER, LONGEST_PAUSE, Breakers


class Rig:
    def __init__(self, chance: float = 0.0) -> None:
        self.clock = Clock()
        self.metrics = Instruments()
        self.breakers = Breakers(self.clock, self.metrics, lambda: chance)

    def pause(self, name: str = "a.test") -> float:
        """It fails: for how long is it left alone?"""
        return self.breakers.failed(name, DOWN).until - self.clock.seconds()


def test_the_pause_grows_with_each_failure_up_to_a_bound() -> None:
    rig = Rig()
    pauses = []
    for _ in range(100):
        pauses.append(rig.pause())
        rig.clock.advance(pauses[-1])
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_what_failed_together_is_not_tried_together() -> None:
    assert Rig(1.0).pause() == pytest.approx((1 - JITTER) * FIRST_PAUSE)


def test_those_that_were_under_way_count_once() -> None:
    rig = Rig()
    assert [rig.pause() for _ in range(20)] == [FIRST_PAUSE] * 20


def test_an_answer_ends_it() -> None:
    rig = Rig()
    rig.pause()
    assert rig.metrics.destinations_down.value == 1
    assert rig.breakers.reached("a.test")
    assert not rig.breakers.reached("a.test")
    assert rig.breakers.get("a.test") is None
    assert rig.metrics.destinations_down.value == 0
    assert rig.pause() == FIRST_PAUSE


def test_the_last_words_are_kept() -> None:
    rig = Rig()
    rig.pause()
    known = rig.breakers.get("a.test")
    assert known is not None
    assert known.outcome is DOWN


def test_no_more_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "REMEMBERED", 3)
    rig = Rig()
    for name in ("a", "b", "c", "a", "d", "e"):
        rig.pause(name)
    assert [name for name in "abcde" if rig.breakers.get(name)] == ["a", "d", "e"]
    assert rig.metrics.destinations_down.value == 3


def test_a_destination_that_nobody_wants_any_more_is_forgotten() -> None:
    rig = Rig()
    rig.pause("gone")
    rig.clock.advance(FIRST_PAUSE + FORGET)
    rig.pause("other")
    assert rig.breakers.get("gone") is None
    assert rig.metrics.destinations_down.value == 1
