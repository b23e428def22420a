"""A 250 is a promise: the server is killed again and again under load, and nothing it took may be missing."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
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

#: Deliveries that one kill may repeat: every connection to the next hop with a message not yet recorded.
DUPLICATES = 100


@dataclass(frozen=True, slots=True)
class Result:
    kills: int
    messages: int
    account: Account
    trouble: Sequence[str]

    def __str__(self) -> str:
        return f"{self.kills} kills, {self.messages} messages with a 250; by recipient: {self.account}"


def run_campaign(mta: Mta, sink: Sink, kills: int, *, hold_back: bool, seed: int = 1) -> Result:
    """Load, kills at random moments, and in the end everything is drained into the sink.

    With ``hold_back`` the next hop takes nothing before the last kill: all promises rest on the spool alone.
    """
    chance = random.Random(seed)
    ledger = Ledger()
    if hold_back:
        sink.policy = lambda stage, what: "451 4.3.2 not yet"
    with mta:
        with Load(ledger, seed=seed) as load:
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
        sink.policy = lambda stage, what: None
        wait_until(lambda: mta.queued() == 0, 120, lambda: f"{mta.queued()} messages are still queued")
    result = Result(kills, len(ledger.acknowledged), ledger.account(sink.arrivals), load.trouble)
    print(result)
    assert result.trouble == []
    return result


@pytest.mark.campaign
@pytest.mark.parametrize("hold_back", [False, True], ids=["delivering", "only storing"])
def test_no_promise_is_broken(make_mta: MakeMta, sink: Sink, long_campaign: bool, hold_back: bool) -> None:
    kills = 20 if long_campaign else 4
    result = run_campaign(make_mta(relaying_to(sink.port)), sink, kills, hold_back=hold_back)
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
    result = run_campaign(mta, sink, 3, hold_back=True)
    assert result.account.lost
    assert result.account.spoiled == 0
