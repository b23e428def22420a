"""Verbs of the queue in any order with deliveries: nothing is lost, nothing is sent twice, nothing held is tried.

The spool here does what it is asked when the test says so: writes in the order in which they were asked for, as its one
writer does, and looks whenever it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from relay.fakes import GONE, LATER, TAKEN, Rig
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mtatwist.envelope import OPEN_STATES, Deferral, Message, Outcome, Recipient, State
from mtatwist.relay import administration as module
from mtatwist.relay.administration import ACTIONS, Administration, Changed
from mtatwist.spool.memory import MemorySpool
from mtatwist.spool.selection import Selection
from mtatwist.store.trouble import StoreBroken

WRITES = ("claim_due", "claim_late", "settle", "release", "change")
LOOKS = ("due_domains", "next_due", "find")


class SlowSpool(MemorySpool):
    """``writes`` and ``looks``: what was asked and has not been done yet. ``broken``: writes fail."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Callable[[], None]] = []
        self.looks: list[Callable[[], None]] = []
        self.broken = False
        for names, waiting in ((WRITES, self.writes), (LOOKS, self.looks)):
            for name in names:
                setattr(self, name, self._later(getattr(self, name), waiting))

    def _later(self, ask: Callable[..., Deferred[Any]], waiting: list[Callable[[], None]]) -> Any:
        def later(*arguments: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()

            def do() -> None:
                if self.broken and waiting is self.writes:
                    answer.errback(StoreBroken())
                else:
                    ask(*arguments).addCallbacks(answer.callback, answer.errback)

            waiting.append(do)
            return answer

        return later


class Attempts(list[Any]):
    """``wrong``: who was tried though held, or claimed by nobody."""

    def __init__(self, spool: MemorySpool) -> None:
        super().__init__()
        self.wrong: list[Recipient] = []
        self._spool = spool

    def append(self, attempt: Any) -> None:
        number, paths = attempt
        message = self._spool.messages.get(number)
        for recipient in message.envelope.recipients if message else ():
            waits = recipient.state in (State.PENDING, State.DEFERRED)
            if recipient.address in paths and not (waits and (number, recipient.index) in self._spool.claims):
                self.wrong.append(recipient)
        super().append(attempt)


class Races(RuleBasedStateMachine):
    """``ended``: who was taken or refused by the next hop, bounced or dropped, each time that happened. Every
    recipient has a path of its own."""

    def __init__(self) -> None:
        super().__init__()
        module.BATCH, module.ENDED = 3, 2
        self.spool = SlowSpool()
        self.rig = Rig(spool=self.spool)
        self.admin = Administration(self.spool, self.rig.manager, clock=self.rig.clock, wall=self.rig.clock.seconds)
        self.accepted: list[str] = []
        self.ended: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self.answers: list[Any] = []
        self.asked = 0
        self.transport = self.rig.transport()
        self.transport.hold = True
        self.transport.judge = self.judge
        self.transport.attempts = self.attempts = Attempts(self.spool)
        self.end, self.rig.manager.end = self.rig.manager.end, self.ending  # type: ignore[method-assign]

    def judge(self, message: Message, recipient: Recipient) -> Outcome:
        outcome = self.outcomes.get(recipient.address, TAKEN)
        if message.envelope.reverse_path and not isinstance(outcome, Deferral):
            self.ended.append(recipient.address)
        return outcome

    def ending(self, message: Message, told: bool, reason: str, by: str) -> Any:
        if message.envelope.reverse_path:
            self.ended += [recipient.address for recipient in message.envelope.recipients]
        return self.end(message, told, reason, by)

    @rule(
        messages=st.integers(1, 5),
        count=st.integers(1, 4),
        domain=st.sampled_from(["a.test", "b.test"]),
        outcome=st.sampled_from([TAKEN, LATER, GONE]),
    )
    def accept(self, messages: int, count: int, domain: str, outcome: Outcome) -> None:
        for _ in range(messages):
            paths = [f"{len(self.accepted) + n}@{domain}" for n in range(count)]
            self.accepted += paths
            self.outcomes[paths[0]] = outcome
            self.rig.accept(*paths)

    @rule(
        action=st.sampled_from(ACTIONS),
        given=st.sampled_from(
            [{}, {}, {"domain": "a.test"}, {"recipient": "1*"}, {"state": "pending"}, {"state": "held"}, {"code": "4"}]
        ),
        at_once=st.booleans(),
    )
    def ask(self, action: str, given: dict[str, Any], at_once: bool) -> None:
        self.asked += 1
        done = Deferred.fromCoroutine(self.admin.change(action, Selection(**given)))
        done.addBoth(self.answers.append)
        while at_once and self.spool.looks:
            self.spool.looks.pop(0)()

    @precondition(lambda self: self.spool.writes)
    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        for do in self.spool.writes[:count]:
            self.spool.writes.remove(do)
            do()

    @precondition(lambda self: self.spool.looks)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        self.spool.looks.pop(data.draw(st.integers(0, len(self.spool.looks) - 1)))()

    @precondition(lambda self: self.transport.waiting)
    @rule(count=st.integers(1, 3))
    def answer(self, count: int) -> None:
        self.transport.go_on(count)

    @rule(seconds=st.sampled_from([1, 6, 61]))
    def wait(self, seconds: int) -> None:
        self.rig.pass_time(seconds, 1)

    @rule(down=st.booleans())
    def go_down(self, down: bool) -> None:
        self.transport.down = down

    @rule(broken=st.booleans())
    def break_spool(self, broken: bool) -> None:
        self.spool.broken = broken

    def teardown(self) -> None:
        """All that can happen has happened: each recipient has come to one end, and only one, or is held."""
        self.spool.broken = self.transport.down = False
        self.outcomes.clear()
        for _ in range(60):
            self._run()
            self.rig.pass_time(30, 5)
        self._run()
        try:
            waiting = [
                (recipient.address, recipient.state)
                for message in self.spool.messages.values()
                for recipient in message.envelope.recipients
                if recipient.state in OPEN_STATES
            ]
            assert {state for _, state in waiting} <= {State.HELD}
            paths = [path for path, _ in waiting if path in self.accepted]
            assert sorted([*self.ended, *paths]) == sorted(self.accepted)
            assert not self.attempts.wrong
            assert not self.spool.claims
            assert self.rig.metrics.in_flight.value == 0
            assert len(self.answers) == self.asked
            for answer in self.answers:
                assert isinstance(answer, Changed) or (isinstance(answer, Failure) and answer.check(StoreBroken))
        finally:
            self.rig.stopping()
            for _ in range(20):
                self._run()
                self.rig.pass_time(1)
            Rig.started.clear()

    def _run(self) -> None:
        while self.spool.writes or self.spool.looks or self.transport.waiting:
            for waiting in (self.spool.writes, self.spool.looks):
                if waiting:
                    waiting.pop(0)()
            self.transport.go_on()


@pytest.fixture(autouse=True)
def batches() -> Any:
    before = module.BATCH, module.ENDED
    yield
    module.BATCH, module.ENDED = before


Races.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRaces = Races.TestCase
