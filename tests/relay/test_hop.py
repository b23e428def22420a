"""One next hop: bounded, reused connections, and outcomes whatever happens to them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from relay.fakes import DOWN, TAKEN, Delivery, Transport
from twisted.internet.task import Clock

from mtatwist.envelope import Deferral, Envelope, Message, Outcome, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay import hop as module
from mtatwist.relay.hop import IDLE_SECONDS, Hop, Work
from mtatwist.transports.failures import ConnectFailed, Stale


class Rig:
    """A hop, and what it has settled."""

    def __init__(self, connections: int = 3) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.metrics = Instruments()
        self.settled: list[tuple[int, Sequence[Outcome]]] = []
        self.idle = 0
        self.hop = Hop(
            self.transport,
            "next.test:25",
            connections=connections,
            clock=self.clock,
            metrics=self.metrics,
            settle=lambda work, outcomes: self.settled.append((work.message.number, outcomes)),
            idle=self._idle,
        )

    def _idle(self) -> None:
        self.idle += 1

    def add(self, *numbers: int) -> None:
        for number in numbers:
            recipient = Recipient(0, "c@d.test", "d.test")
            self.hop.add(Work(Message(number, Envelope("a@b.test", [recipient]), 1, b"x"), [recipient]))

    def outcomes(self) -> list[Outcome]:
        return [outcome for _, outcomes in self.settled for outcome in outcomes]


def test_no_more_connections_than_allowed() -> None:
    rig = Rig(connections=3)
    rig.transport.hold = True
    rig.add(*range(10))
    assert len(rig.transport.waiting) == rig.transport.most == 3
    for _ in range(10):
        rig.transport.go_on(1)
    assert [number for number, _ in rig.settled] == list(range(10))
    assert rig.outcomes() == [TAKEN] * 10
    assert rig.transport.most == 3
    assert rig.metrics.delivery_seconds.count == 10


def test_a_connection_is_used_again_and_closed_when_idle() -> None:
    rig = Rig()
    for number in range(5):
        rig.add(number)
        rig.clock.advance(IDLE_SECONDS - 0.1)
    assert len(rig.transport.connected) == 1
    assert rig.metrics.connections.value == 1
    assert not rig.idle
    rig.clock.advance(0.2)
    assert rig.transport.open == []
    assert rig.idle == 1
    assert not rig.clock.getDelayedCalls()


def test_a_used_up_connection_is_replaced() -> None:
    rig = Rig()
    rig.add(1)
    rig.transport.connected[0].usable = False
    rig.add(2)
    assert [delivery.closed for delivery in rig.transport.connected] == [True, False]
    assert rig.outcomes() == [TAKEN] * 2


def test_a_stale_connection_is_replaced_at_once() -> None:
    rig = Rig()
    rig.add(1)
    rig.transport.connected[0].raises = Stale()
    rig.add(2)
    assert rig.outcomes() == [TAKEN] * 2
    assert len(rig.transport.open) == 1
    assert rig.transport.connected[0].closed


def test_an_unreachable_host_is_asked_once_for_all_that_waits() -> None:
    rig = Rig(connections=1)
    rig.transport.hold_connect = True
    rig.add(1, 2, 3)
    rig.transport.connecting[0].errback(ConnectFailed(DOWN))
    assert rig.settled == [(1, [DOWN]), (2, [DOWN]), (3, [DOWN])]
    assert len(rig.transport.connecting) == 1
    assert rig.metrics.connect_failures.value == 1
    assert rig.idle == 1


def test_a_host_that_wants_no_more_connections_gets_the_work_over_those_it_has() -> None:
    """Many servers limit connections: to them the third is one too many, and no message is worse for it."""
    rig = Rig(connections=3)
    rig.transport.hold = True
    rig.add(1, 2)
    rig.transport.down = True
    rig.add(3, 4)
    assert rig.settled == []
    assert rig.metrics.connect_failures.value == 1, "and it is not asked again for each message"
    while rig.transport.waiting:
        rig.transport.go_on(1)
    assert sorted(rig.settled) == [(number, [TAKEN]) for number in (1, 2, 3, 4)]
    assert len(rig.transport.connected) == 2


def test_the_work_of_a_refused_connection_goes_to_one_that_rests() -> None:
    rig = Rig(connections=2)
    rig.transport.hold = True
    rig.add(1)
    rig.transport.hold_connect = True
    rig.add(2)
    rig.transport.hold = False
    rig.transport.go_on()
    rig.transport.connecting[0].errback(ConnectFailed(DOWN))
    assert rig.settled == [(1, [TAKEN]), (2, [TAKEN])]
    rig.clock.advance(IDLE_SECONDS)
    assert rig.idle == 1


def test_after_trouble_more_connections_are_tried_as_deliveries_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH", 0.5)
    rig = Rig(connections=3)
    rig.transport.hold = True
    rig.add(1)
    rig.transport.down = True
    rig.add(2, 3, 4, 5)
    rig.transport.down = False
    assert rig.transport.most == 1
    rig.transport.go_on(1)
    rig.transport.go_on(1)
    rig.add(6)
    assert rig.transport.most == 2


def test_a_crash_in_a_delivery_is_our_trouble_and_the_next_message_goes_on() -> None:
    rig = Rig()
    rig.add(1)
    rig.transport.connected[0].raises = RuntimeError("a secret")
    rig.add(2)
    rig.add(3)
    first, second, third = rig.outcomes()
    assert (first, third) == (TAKEN, TAKEN)
    assert isinstance(second, Deferral)
    assert "secret" not in second.reply.text
    assert rig.metrics.relay_errors.value == 1


def test_a_crash_in_a_connect_is_our_trouble() -> None:
    rig = Rig()
    rig.transport.hold_connect = True
    rig.add(1)
    rig.transport.connecting[0].errback(RuntimeError("a secret"))
    (outcome,) = rig.outcomes()
    assert isinstance(outcome, Deferral)
    assert rig.metrics.relay_errors.value == 1
    assert rig.idle == 1


@pytest.mark.parametrize("outcomes", [[], [TAKEN, TAKEN]])
def test_a_transport_that_miscounts_is_not_believed(monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]) -> None:
    async def deliver(self: Delivery, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        return outcomes

    monkeypatch.setattr(Delivery, "deliver", deliver)
    rig = Rig()
    rig.add(1)
    assert [type(outcome) for outcome in rig.outcomes()] == [Deferral]
    assert rig.metrics.relay_errors.value == 1


def test_drain_gives_back_what_has_not_begun() -> None:
    rig = Rig(connections=2)
    rig.transport.hold = True
    rig.add(1, 2, 3, 4)
    assert [work.message.number for work in rig.hop.drain()] == [3, 4]
    rig.transport.go_on()
    assert [number for number, _ in rig.settled] == [1, 2]
    assert rig.transport.open == []
    assert rig.idle == 1


def test_drain_closes_connections_that_rest() -> None:
    rig = Rig()
    rig.add(1)
    assert rig.hop.drain() == []
    assert rig.transport.open == []
    assert not rig.clock.getDelayedCalls()


def test_cut_ends_what_is_under_way() -> None:
    rig = Rig()
    rig.transport.hold = True
    rig.add(1)
    rig.hop.drain()
    rig.hop.cut()
    assert rig.settled == [(1, [DOWN])]
    assert rig.transport.open == []
    assert rig.idle == 1


def test_cut_ends_a_connection_that_is_being_opened() -> None:
    """The greeting alone may take five minutes."""
    rig = Rig()
    rig.transport.hold_connect = True
    rig.add(1)
    rig.hop.drain()
    rig.hop.cut()
    assert [type(outcome) for outcome in rig.outcomes()] == [Deferral]
    assert rig.metrics.relay_errors.value == 0
    assert rig.idle == 1
