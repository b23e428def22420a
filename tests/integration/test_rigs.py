"""The rigs themselves: a ledger that cannot see a loss would prove nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.client import Client
from rigs.content import awkward
from rigs.forked import Forked, measured
from rigs.ledger import Ledger, Load
from rigs.mta import Mta, StartFailed, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]


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


def held(mta: Mta) -> list[str]:
    """The kinds of what it has open, but for its own files: its threads open the spool when they need it."""
    links = []
    for descriptor in Path(f"/proc/{mta.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(descriptor))
    return sorted(re.sub(r":\[.*", "", link) for link in links if not link.startswith(str(mta.directory)))


def test_a_forked_server_is_like_any_other(make_mta: MakeMta, tmp_path: Path) -> None:
    """It has nothing of those who forked it, and each of its ends is told."""
    fresh = Mta(tmp_path, relaying_to(9))
    with make_mta(relaying_to(9)) as forked, fresh:
        assert isinstance(forked.process.process, Forked) or measured()
        assert isinstance(fresh.process.process, subprocess.Popen)
        wait_until(lambda: held(forked) == held(fresh), 10, lambda: f"alike: {held(forked)}, {held(fresh)}")
        for each in (forked, fresh):
            each.stop()
            assert each.ended_well()
            assert each.process.process.returncode == -signal.SIGTERM
            each.start().kill()
            assert each.process.process.returncode == -signal.SIGKILL


def test_a_forked_server_that_does_not_start(make_mta: MakeMta) -> None:
    mta = make_mta(relaying_to(9, relay={"netwroks": []}))
    with pytest.raises(StartFailed, match=r"exit code 78[^$]*netwroks"):
        mta.start()
    assert isinstance(mta.process.process, Forked) or measured()


@pytest.mark.fresh_start
def test_whoever_wants_a_fresh_start_gets_it(make_mta: MakeMta) -> None:
    with make_mta(relaying_to(9)) as mta:
        assert isinstance(mta.process.process, subprocess.Popen)


def test_an_environment_of_its_own_takes_a_fresh_start(make_mta: MakeMta) -> None:
    with make_mta(relaying_to(9), environment={"SSL_CERT_FILE": "/nowhere"}) as mta:
        assert isinstance(mta.process.process, subprocess.Popen)
