"""How it is with the way to a domain: what is told of it while mail waits."""

from __future__ import annotations

from relay.fakes import DOWN, Rig

from mtatwist.envelope import Deferral
from mtatwist.relay.destinations import QUEUE_LIMIT
from mtatwist.relay.route import BY_MX, Route
from mtatwist.relay.standing import LONGEST_REPLY, Standing
from mtatwist.smtp.reply import Reply

LOCAL = Route("here.test", "lmtp", "unix:/run/lmtp")


def test_nothing_is_wrong() -> None:
    rig = Rig(LOCAL)
    assert rig.manager.standing("here.test") == Standing(LOCAL, "unix:/run/lmtp")
    assert rig.manager.standing("far.test") == Standing(BY_MX, "far.test")
    assert rig.manager.standing("far.test").facts() == {
        "route": "*",
        "transport": "smtp",
        "next_hop": "far.test",
        "exchanges": True,
        "tls": "may",
        "full": False,
        "failures": 0,
        "left_alone": 0.0,
        "trouble": "",
    }


def test_a_next_hop_is_left_alone_for_a_while() -> None:
    rig = Rig(LOCAL)
    rig.transport("unix:/run/lmtp").down = True
    rig.accept("you@here.test")
    known = rig.manager.standing("here.test")
    assert (known.failures, known.trouble) == (1, DOWN)
    assert 0 < known.left_alone <= 1.0
    assert known.facts()["trouble"] == "451 4.4.1 Cannot connect"
    rig.clock.advance(5.0)
    known = rig.manager.standing("here.test")
    assert (known.failures, known.left_alone) == (1, 0.0)
    assert rig.manager.standing("far.test").failures == 0
    rig.transport("unix:/run/lmtp").down = False
    rig.accept("you@here.test")
    assert rig.manager.standing("here.test").failures == 0


def test_a_next_hop_has_enough_to_do() -> None:
    rig = Rig(LOCAL)
    rig.transport("unix:/run/lmtp").hold = True
    rig.accept("you@here.test")
    assert not rig.manager.standing("here.test").full
    for message in range(QUEUE_LIMIT // 100):
        rig.accept(*(f"{message}-{number}@here.test" for number in range(100)))
    assert rig.manager.standing("here.test").full
    assert not rig.manager.standing("far.test").full


def test_trouble_is_told_in_bounds() -> None:
    told = Standing(LOCAL, "x", False, 1, 2.345, Deferral(Reply(450, "4.0.0", "x" * 5000))).facts()
    assert len(told["trouble"]) == LONGEST_REPLY
    assert told["left_alone"] == 2.3
