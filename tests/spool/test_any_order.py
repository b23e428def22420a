"""Any order of calls: both spools answer alike, and like a list of what was asked of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from rigs.messages import AT, body, claim_due, envelope, settled
from rigs.pump import Pump
from twisted.internet.defer import Deferred

from mtatwist.envelope import Message, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.memory import MemorySpool
from mtatwist.spool.sqlite import SqliteSpool

SIZES = st.sampled_from([0, 1, 5_000, 300_000])
OUTCOMES = st.sampled_from([State.DELIVERED, State.DEFERRED, State.FAILED])
DELAYS = st.integers(0, 50).map(float)

#: One recipient of the model: is it claimed, when is it due, how often was it tried.
Known = tuple[bool, float, int]


class Spools(RuleBasedStateMachine):
    """``known`` is the model: what is open, by the model's own numbers; ``names`` gives a spool's number for them."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.pump = Pump()
        self.now = AT
        self.known: dict[tuple[int, int], Known] = {}
        self.warned: set[tuple[int, int]] = set()
        self.bodies: dict[int, bytes] = {}
        self.names: dict[int, int] = {}
        self.memory = MemorySpool()
        self.sqlite = self._open()

    def _open(self) -> SqliteSpool:
        spool = SqliteSpool(self.directory / "data", reactor=self.pump, metrics=Instruments())  # type: ignore[arg-type]
        spool.start()
        return spool

    def teardown(self) -> None:
        self.sqlite.stop()
        shutil.rmtree(self.directory)

    def both(self, ask: Any) -> list[Any]:
        """Ask each spool: sqlite's answer, memory's answer."""
        answers: list[Deferred[Any]] = [ask(self.sqlite), ask(self.memory)]
        return [self.pump.wait(answer) for answer in answers]

    def number(self, spool: Any, model: int) -> int:
        return self.names[model] if spool is self.sqlite else model

    def stored(self, messages: list[Message], data: bytes) -> None:
        sqlite, memory = messages
        self.names[memory.number] = sqlite.number
        self.bodies[memory.number] = data
        for recipient in memory.envelope.recipients:
            self.known[memory.number, recipient.index] = (True, self.now, 0)

    @rule(target=claims, size=SIZES, recipients=st.integers(1, 3))
    def store(self, size: int, recipients: int) -> Any:
        data = body(size, len(self.names))

        def ask(spool: Any) -> Any:
            writer = spool.create(envelope(*(f"{n}@example.org" for n in range(recipients)), received_at=self.now))
            writer.write(data)
            return writer.commit()

        messages = self.both(ask)
        self.stored(messages, data)
        return multiple(*((messages[1].number, index) for index in range(recipients)))

    @rule(size=SIZES)
    def abort(self, size: int) -> None:
        for spool in (self.sqlite, self.memory):
            writer = spool.create(envelope(received_at=self.now))
            writer.write(body(size))
            writer.abort()

    @rule(claim=consumes(claims), outcome=OUTCOMES, delay=DELAYS, report=st.booleans(), warned=st.booleans())
    def settle(self, claim: tuple[int, int], outcome: State, delay: float, report: bool, warned: bool) -> None:
        model, index = claim
        size = 300 if report else 0

        def ask(spool: Any) -> Any:
            reports = [spool.create(envelope(reverse_path="", received_at=self.now))] if report else []
            for writer in reports:
                writer.write(body(size))
            message = Message(self.number(spool, model), envelope(), 0)
            return spool.settle([settled(message, index, outcome, self.now + delay, warned=warned)], reports)

        answers = self.both(ask)
        if report:
            self.stored([answers[0][0], answers[1][0]], body(size))
        claimed, _, attempts = self.known.get(claim, (False, 0.0, 0))
        if claimed and outcome is State.DEFERRED:
            self.known[claim] = (False, self.now + delay, attempts + 1)
            self.warned |= {claim} if warned else set()
        elif claimed:
            del self.known[claim]

    @rule(claim=consumes(claims), delay=DELAYS)
    def release(self, claim: tuple[int, int], delay: float) -> None:
        model, index = claim
        self.both(lambda spool: spool.release([(self.number(spool, model), index, self.now + delay)]))
        claimed, _, attempts = self.known.get(claim, (False, 0.0, 0))
        if claimed:
            self.known[claim] = (False, self.now + delay, attempts)

    @rule(target=claims)
    def claim(self) -> Any:
        """All that is due, and with its body."""
        answers = [claim_due(spool, self.pump.wait, self.now) for spool in (self.sqlite, self.memory)]
        due = sorted(claim for claim, (claimed, at, _) in self.known.items() if not claimed and at <= self.now)
        for spool, messages in zip((self.sqlite, self.memory), answers, strict=True):
            named = {self.number(spool, model): model for model in self.names}
            found = [(named[m.number], r.index, r.attempts, r.warned) for m in messages for r in m.envelope.recipients]
            assert sorted(found) == [(*claim, self.known[claim][2], claim in self.warned) for claim in due]
            for message in messages:
                whole = self.pump.wait(spool.read(message, 0, message.size + 1))
                assert whole == self.bodies[named[message.number]]
        for claim in due:
            self.known[claim] = (True, *self.known[claim][1:])
        return multiple(*due)

    @rule(seconds=DELAYS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        """All claims are void, and nothing else has changed. Memory can't do that, so its claims are taken away."""
        self.sqlite.stop()
        self.sqlite = self._open()
        self.memory.claims.clear()
        self.known = {claim: (False, at, attempts) for claim, (_, at, attempts) in self.known.items()}

    @invariant()
    def next_due(self) -> None:
        due = min((at for claimed, at, _ in self.known.values() if not claimed), default=None)
        assert self.both(lambda spool: spool.next_due(0.0)) == [due, due]


Spools.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSpools = Spools.TestCase
