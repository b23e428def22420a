"""One next hop: bounded, reused connections, and outcomes whatever happens to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from metrics.reading import deliveries
from relay.fakes import DOWN, TAKEN, Delivery, Transport
from twisted.internet.task import Clock

from mtatwist.envelope import Deferral, Envelope, Message, Outcome, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay.hop import IDLE_SECONDS, TURN, Hop
from mtatwist.relay.limits import Connections, Ramp
from mtatwist.relay.route import Route
from mtatwist.relay.work import Destination, Work
from mtatwist.smtp.reply import Reply
from mtatwist.transports.failures import ConnectFailed, Stale

_made: list[Hop] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """What a test leaves waiting ends with it: the garbage collector would end it in the middle of another test."""
    yield
    for hop in _made:
        hop.drain()
        hop.cut()
        assert hop.load == 0
    _made.clear()


class Rig:
    """A hop, and what it has told its owner."""

    def __init__(self, connections: int = 3, first: int = 3, total: int = 1000) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.metrics = Instruments()
        self.ended: list[tuple[int, Sequence[Outcome]]] = []
        self.back: list[int] = []
        self.alone: list[int] = []
        self.gone = 0
        self.asked = 0
        self.answered = 0
        self.total = Connections(total, self.clock)
        self.ramp = Ramp(connections, first)
        self.hop = self.make()

    def make(self) -> Hop:
        """Another next hop, which shares the total."""
        hop = Hop(
            self.transport,
            Destination(Route("*", "smtp"), "next.test"),
            ramp=self.ramp,
            total=self.total,
            clock=self.clock,
            metrics=self.metrics,
            owner=self,
        )
        _made.append(hop)
        return hop

    def settled(self, hop: Hop, work: Work, outcomes: Sequence[Outcome]) -> None:
        self.ended.append((work.message.number, outcomes))

    def put_back(self, hop: Hop, work: Work) -> None:
        self.back.append(work.message.number)

    def unreachable(self, hop: Hop, work: Work, outcome: Outcome, waiting: Sequence[Work]) -> None:
        self.settled(hop, work, [outcome])
        self.alone += [one.message.number for one in waiting]

    def reached(self, hop: Hop) -> None:
        self.answered += 1

    def hungry(self, hop: Hop) -> None:
        self.asked += 1

    def idle(self, hop: Hop) -> None:
        self.gone += 1

    def add(self, *numbers: int) -> None:
        for number in numbers:
            recipient = Recipient(0, "c@d.test", "d.test")
            self.hop.add(Work(Message(number, Envelope("a@b.test", [recipient]), 1, b"x"), [recipient]))

    def outcomes(self) -> list[Outcome]:
        assert self.hop.load >= self.hop.waiting >= 0
        return [outcome for _, outcomes in self.ended for outcome in outcomes]


def test_no_more_connections_than_allowed() -> None:
    rig = Rig(connections=3)
    rig.transport.hold = True
    rig.add(*range(10))
    assert len(rig.transport.waiting) == rig.transport.most == 3
    for _ in range(10):
        rig.transport.go_on(1)
    assert [number for number, _ in rig.ended] == list(range(10))
    assert rig.outcomes() == [TAKEN] * 10
    assert rig.transport.most == 3
    assert deliveries(rig.metrics) == 10


def test_a_connection_is_used_again_and_closed_when_idle() -> None:
    rig = Rig()
    for number in range(5):
        rig.add(number)
        rig.clock.advance(IDLE_SECONDS - 0.1)
    assert len(rig.transport.connected) == 1
    assert rig.metrics.connections.value == 1
    assert not rig.gone
    rig.clock.advance(0.2)
    assert rig.transport.open == []
    assert rig.gone == 1
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


def test_an_unreachable_host_is_asked_once_and_what_waits_is_not_tried() -> None:
    rig = Rig(connections=1)
    rig.transport.hold_connect = True
    rig.add(1, 2, 3)
    rig.transport.connecting[0].errback(ConnectFailed(DOWN))
    assert (rig.ended, rig.alone) == ([(1, [DOWN])], [2, 3])
    assert len(rig.transport.connecting) == 1
    assert rig.metrics.connect_failures.value == 1
    assert rig.gone == 1


def test_a_host_that_wants_no_more_connections_gets_the_work_over_those_it_has() -> None:
    """Many servers limit connections: to them the third is one too many, and no message is worse for it."""
    rig = Rig(connections=3)
    rig.transport.hold = True
    rig.add(1, 2)
    rig.transport.down = True
    rig.add(3, 4)
    assert rig.ended == []
    assert rig.metrics.connect_failures.value == 1, "and it is not asked again for each message"
    while rig.transport.waiting:
        rig.transport.go_on(1)
    assert sorted(rig.ended) == [(number, [TAKEN]) for number in (1, 2, 3, 4)]
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
    assert rig.ended == [(1, [TAKEN]), (2, [TAKEN])]
    rig.clock.advance(IDLE_SECONDS)
    assert rig.gone == 1


def test_after_trouble_more_connections_are_tried_as_deliveries_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.relay.limits.GROWTH", 0.5)
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
    assert rig.gone == 1


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
    assert [number for number, _ in rig.ended] == [1, 2]
    assert rig.transport.open == []
    assert rig.gone == 1


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
    assert (rig.ended, rig.back) == ([], [1]), "it was us who ended it"
    assert rig.transport.open == []
    assert rig.gone == 1


def test_cut_ends_a_connection_that_is_being_opened() -> None:
    """The greeting alone may take five minutes."""
    rig = Rig()
    rig.transport.hold_connect = True
    rig.add(1)
    rig.hop.drain()
    rig.hop.cut()
    assert (rig.ended, rig.back) == ([], [1])
    assert rig.metrics.relay_errors.value == 0
    assert rig.gone == 1


def test_a_few_connections_at_first_and_one_more_with_each_success() -> None:
    rig = Rig(connections=20, first=5)
    rig.transport.hold = True
    rig.add(*range(100))
    counts = []
    for _ in range(4):
        counts.append(len(rig.transport.open))
        rig.transport.go_on()
    assert counts == [5, 10, 20, 20]


def test_a_server_that_closes_gets_fewer_connections() -> None:
    closing = Deferral(Reply(421, "4.3.2", "too many connections"))
    rig = Rig(connections=4, first=4)
    rig.transport.judge = lambda message, recipient: closing
    rig.transport.hold = True
    rig.add(*range(20))
    for _ in range(3):
        rig.transport.connected[-1].usable = False
        rig.transport.go_on(1)
    assert rig.ramp.allowed == 3
    rig.transport.judge = lambda message, recipient: TAKEN
    for _ in range(10):
        rig.transport.go_on()
    assert rig.transport.most == 4


def test_more_work_is_asked_for_once_when_the_queue_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.relay.hop.LOW_WATER", 2)
    rig = Rig(connections=1)
    rig.transport.hold = True
    rig.add(*range(8))
    rig.transport.go_on(1)
    assert rig.asked == 0
    rig.hop.wanted = True
    for _ in range(6):
        rig.transport.go_on(1)
    assert rig.asked == 1
    assert rig.hop.waiting == 0


def test_nobody_takes_more_connections_than_are_left() -> None:
    rig = Rig(connections=20, first=20, total=10)
    rig.transport.hold = True
    rig.add(*range(30))
    assert rig.transport.most == 5
    other = rig.make()
    recipient = Recipient(0, "c@d.test", "d.test")
    for number in range(30):
        other.add(Work(Message(number, Envelope("a@b.test", [recipient]), 1, b"x"), [recipient]))
    assert rig.transport.most == 8


def test_who_has_no_connection_gets_one_when_somebody_rests() -> None:
    rig = Rig(total=1)
    rig.add(1)
    assert len(rig.transport.open) == 1
    other = rig.make()
    recipient = Recipient(0, "c@d.test", "d.test")
    other.add(Work(Message(2, Envelope("a@b.test", [recipient]), 1, b"x"), [recipient]))
    rig.clock.advance(0)
    assert [number for number, _ in rig.ended] == [1, 2]
    assert [delivery.closed for delivery in rig.transport.connected] == [True, False]


def test_who_has_no_connection_gets_a_turn() -> None:
    rig = Rig(total=1)
    rig.transport.hold = True
    rig.add(*range(100))
    other = rig.make()
    recipient = Recipient(0, "c@d.test", "d.test")
    other.add(Work(Message(1000, Envelope("a@b.test", [recipient]), 1, b"x"), [recipient]))
    for _ in range(130):
        rig.transport.go_on(1)
        rig.clock.advance(0)
    numbers = [number for number, _ in rig.ended]
    assert numbers.index(1000) == TURN
    assert len(numbers) == 101
    assert rig.transport.most == 1


def test_what_was_decided_before_the_cut_counts() -> None:
    rig = Rig()
    rig.transport.hold = True
    recipients = [Recipient(index, f"{index}@d.test", "d.test") for index in range(2)]
    rig.hop.add(Work(Message(1, Envelope("a@b.test", recipients), 1, b"x"), recipients))
    (delivery,) = rig.transport.connected
    delivery._cut = [TAKEN, DOWN]
    rig.hop.drain()
    rig.hop.cut()
    assert rig.outcomes() == [TAKEN]
    assert rig.back == [1]


def test_the_load_is_what_waits_and_what_is_being_tried() -> None:
    rig = Rig(connections=2)
    rig.transport.hold = True
    rig.add(*range(5))
    assert (rig.hop.load, rig.hop.waiting) == (5, 3)
    rig.transport.go_on(1)
    assert (rig.hop.load, rig.hop.waiting) == (4, 2)
    rig.hop.drain()
    assert (rig.hop.load, rig.hop.waiting) == (2, 0)
    rig.hop.cut()
    assert rig.hop.load == 0
    again = Rig()
    again.transport.down = True
    again.add(1)
    assert again.hop.load == 0
