"""The rigs themselves: a ledger that cannot see a loss would prove nothing."""

from __future__ import annotations

import dataclasses
import hashlib

from rigs.client import Client
from rigs.content import awkward
from rigs.ledger import Ledger, Load
from rigs.sink import Sink


def test_the_sink_takes_awkward_content_unchanged(sink: Sink) -> None:
    with Client(("127.0.0.1", sink.port)) as client:
        client.ehlo()
        for name, content in awkward():
            assert client.transaction("a@client.test", ["b@sink.test"], content).code == 250
            assert sink.arrivals.pop().digest == hashlib.sha256(content).hexdigest(), name


def test_the_ledger_counts_what_goes_wrong(sink: Sink) -> None:
    ledger = Ledger()
    with Load(ledger, sessions=4) as load:
        load.point_at(("127.0.0.1", sink.port))
        ledger.wait_for(100, 30)
    arrivals = list(sink.arrivals)
    account = ledger.account(arrivals)
    assert load.trouble == []
    assert account.acknowledged == account.received == sum(len(arrival.forward_paths) for arrival in arrivals)
    assert account.lost == []
    assert account.duplicates == account.spoiled == account.unknown == account.delivered_unacknowledged == 0

    missing, *others = arrivals
    lost = ledger.account(others).lost
    assert lost == sorted((missing.ledger_id, path) for path in missing.forward_paths)

    assert ledger.account([*arrivals, missing]).duplicates == len(missing.forward_paths)
    assert ledger.account([dataclasses.replace(missing, digest="?"), *others]).spoiled == 1
    assert ledger.account([dataclasses.replace(missing, ledger_id="?"), *arrivals]).unknown == 1
    assert ledger.account([dataclasses.replace(missing, queue_id="?"), *others]).other_queue_id == 1

    del ledger.acknowledged[missing.ledger_id]
    assert ledger.account(arrivals).delivered_unacknowledged == len(missing.forward_paths)
