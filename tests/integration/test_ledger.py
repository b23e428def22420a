"""A 250 is a promise: the server is killed again and again under load, and nothing it took may be missing."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from rigs.ledger import Account, Ledger, Load
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SABOTAGED = [sys.executable, str(Path(__file__).parents[1] / "rigs" / "sabotaged_twistd.py")]

#: New promises after each start before the next kill.
PROMISES = 200

#: Deliveries that one kill may repeat: on each of the twenty connections that a next hop gets, a message for three
#: recipients at most.
DUPLICATES = 20 * 3


def up(sink: Sink) -> Iterator[None]:
    """The next hop takes everything, all the time."""
    yield


def refusing(sink: Sink) -> Iterator[None]:
    """It takes nothing before the last kill: all promises rest on the spool alone."""
    sink.policy = lambda stage, what: "451 4.3.2 not yet"
    yield
    sink.policy = lambda stage, what: None


def down(sink: Sink) -> Iterator[None]:
    """It is not there before the last kill."""
    sink.go_down()
    yield
    sink.come_up()


def flapping(sink: Sink) -> Iterator[None]:
    """It comes and goes, and with it everything that was being said."""
    over = threading.Event()
    chance = random.Random(7)

    def flap() -> None:
        while not over.wait(chance.uniform(0.2, 1.0)):
            sink.go_down()
            over.wait(chance.uniform(0.1, 0.5))
            sink.come_up()

    thread = threading.Thread(target=flap, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(10)


NextHop = Callable[[Sink], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Result:
    kills: int
    messages: int
    account: Account
    trouble: Sequence[str]

    def __str__(self) -> str:
        return f"{self.kills} kills, {self.messages} messages with a 250; by recipient: {self.account}"


def run_campaign(mta: Mta, sink: Sink, kills: int, next_hop: NextHop, *, seed: int = 1) -> Result:
    """Load, kills at random moments, and in the end everything is drained into the sink."""
    chance = random.Random(seed)
    ledger = Ledger()
    with mta:
        with contextlib.contextmanager(next_hop)(sink), Load(ledger, seed=seed) as load:
            load.point_at(mta.address())
            for _ in range(kills):
                ledger.wait_for(len(ledger.acknowledged) + PROMISES, 60)
                # Not right after an acknowledgement, but at any moment.
                never = threading.Event()
                never.wait(chance.uniform(0, 0.3))
                load.point_at(None)
                mta.kill()
                mta.start()
                load.point_at(mta.address())
            ledger.wait_for(len(ledger.acknowledged) + PROMISES, 60)
        wait_until(lambda: mta.queued() == 0, 180, lambda: f"{mta.queued()} messages are still queued")
    result = Result(kills, len(ledger.acknowledged), ledger.account(sink.arrivals), load.trouble)
    print(result)
    assert result.trouble == []
    return result


@pytest.mark.campaign
@pytest.mark.parametrize("next_hop", [up, refusing, down, flapping], ids=lambda next_hop: next_hop.__name__)
def test_no_promise_is_broken(make_mta: MakeMta, sink: Sink, long_campaign: bool, next_hop: NextHop) -> None:
    kills = 20 if long_campaign else 4
    result = run_campaign(make_mta(relaying_to(sink.port)), sink, kills, next_hop)
    account = result.account
    assert result.messages > kills * PROMISES
    assert account.lost == []
    assert account.spoiled == 0
    assert account.unknown == 0
    assert account.other_queue_id == 0
    assert account.reused_queue_ids == 0
    # A crash between a delivery and its record repeats it: no more than was under way, at most.
    assert account.duplicates <= kills * DUPLICATES


@pytest.mark.campaign
def test_the_ledger_sees_a_spool_that_lies(tmp_path: Path, sink: Sink) -> None:
    """The control: a writer that answers before its commit must be caught. Its log may complain."""
    mta = Mta(tmp_path, relaying_to(sink.port), command=SABOTAGED)
    result = run_campaign(mta, sink, 3, refusing)
    assert result.account.lost
    assert result.account.spoiled == 0
