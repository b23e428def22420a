"""How many look at the spool at a time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from mtatwist.spool.bounded import LOOKS, Looks


def test_who_has_begun_keeps_its_turn() -> None:
    looks, begun = Looks(), list[Deferred[int]]()

    def look() -> Deferred[int]:
        begun.append(Deferred())
        return begun[-1]

    asked = [looks.run(look) for _ in range(LOOKS + 2)]
    ended: list[object] = []
    for each in asked:
        each.addBoth(ended.append)
    assert len(begun) == LOOKS
    # Nobody waits for it any more, and yet its thread is still at it: there is no place for the next one.
    asked[0].cancel()
    assert len(begun) == LOOKS
    # Who had not begun never does.
    asked[LOOKS].cancel()
    assert [failure.type for failure in ended] == [CancelledError] * 2  # type: ignore[attr-defined]
    begun[0].callback(1)
    assert len(begun) == LOOKS + 1
    begun[1].callback(2)
    begun[-1].callback(3)
    assert ended[2:] == [2, 3]


def test_what_goes_wrong_is_told_to_who_waits() -> None:
    looks = Looks()
    ended: list[object] = []
    for _ in range(LOOKS + 1):
        asked: Deferred[int] = Deferred()
        looks.run(lambda asked=asked: asked).addErrback(lambda failure: ended.append(failure.type))  # type: ignore[misc]
        asked.errback(OSError())
    assert ended == [OSError] * (LOOKS + 1)
