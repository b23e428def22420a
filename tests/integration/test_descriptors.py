"""Few file descriptors: the server says so politely, recovers, and loses nothing."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rigs.client import Client
from rigs.content import HEAD
from rigs.crowd import Crowd
from rigs.ledger import Ledger, Load
from rigs.mta import Mta, relaying_to, twistd
from rigs.processes import wait_until
from rigs.sink import Sink

from mtatwist.descriptors import KEPT, shares

MakeMta = Callable[..., Mta]

pytestmark = pytest.mark.fresh_start

LARGE = HEAD + b"x" * 78 + b"\r\n" + 10_000 * (b"y" * 78 + b"\r\n")


def limited(descriptors: int) -> Sequence[str]:
    """The command that runs twistd with so many descriptors."""
    return ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *twistd()]


def logged(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == name]


def test_a_crowd_is_told_that_there_is_no_room(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port), command=limited(100)) as mta:
        at_rest = mta.process.descriptors()
        with Crowd(mta.address(), 300) as crowd:
            codes = crowd.listen(60)
            assert set(codes) == {"220", "421"}
            assert codes["220"] == shares(100, 1000, 500, 1).sessions
            wait_until(lambda: len(logged(mta, "session_refused")) == codes["421"], 10, "each is logged")
            (few,) = logged(mta, "descriptors_limit")
            assert (few["limit"], few["sessions"], few["sessions_configured"]) == (100, codes["220"], 1000)
            refused = logged(mta, "session_refused")[0]
            assert (refused["limit"], refused["value"]) == ("limits.connections", codes["220"])
            # Those who are in can work, all of them at once, with large messages.
            wire = b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@sink.test>\r\nDATA\r\n" + LARGE + b".\r\nQUIT\r\n"
            guests = crowd.with_code("220")
            for guest in guests:
                guest.setblocking(True)
                guest.sendall(b"EHLO client.test\r\n")
            for guest in guests:
                guest.sendall(wire)
            for guest in guests:
                said = crowd.heard[guest]
                while b"\r\n221 " not in said:
                    data = guest.recv(65536)
                    assert data, said
                    said += data
                assert b"queued as" in said
        sink.wait_for(codes["220"])
        wait_until(lambda: mta.queued() == 0, 30, "the queue is empty")
        wait_until(lambda: mta.process.descriptors() <= at_rest + 16, 30, "the descriptors are free again")
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["later@sink.test"], LARGE).code == 250
        sink.wait_for(codes["220"] + 1)
        wait_until(lambda: mta.queued() == 0, 30, "the queue is empty")


def test_nothing_is_lost_under_load(make_mta: MakeMta, sink: Sink) -> None:
    """A crowd comes while as many senders as there is room for are busy, a fifth of their messages in files."""
    ledger = Ledger()
    with make_mta(relaying_to(sink.port), command=limited(100)) as mta:
        with Load(ledger, sessions=16) as load:
            load.point_at(mta.address())
            ledger.wait_for(20, 60)
            with Crowd(mta.address(), 300) as crowd:
                assert set(crowd.listen(60)) <= {"220", "421"}
                ledger.wait_for(len(ledger.acknowledged) + 100, 120)
        wait_until(lambda: mta.queued() == 0, 60, "the queue is empty")
    account = ledger.account(sink.arrivals)
    assert account.lost == []
    assert account.spoiled == account.duplicates == 0


def test_without_any_descriptor_left_it_neither_spins_nor_dies(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta, Client(mta.address()) as early:
        early.ehlo()
        pid = mta.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (mta.process.descriptors(), before[1]))
        with Crowd(mta.address(), 40) as crowd:
            # A few may get what the start has given back.
            codes = crowd.listen(30)
            assert set(codes) <= {"", "220"}
            assert codes[""] == len(crowd.ended) >= 20
            (warning,) = wait_until(lambda: logged(mta, "descriptors_exhausted"), 10, "it is logged")
            assert warning["level"] == "warn"
            # A round of accepting for each of them, at the most, and then it sleeps.
            assert mta.log().count("EMFILE encountered") <= 40
            # Whoever is in is served as far as that goes: what needs a file has to wait.
            reply = early.transaction("a@client.test", ["b@sink.test"], LARGE)
            assert (reply.code, reply.text[:5]) == (451, "4.3.0")
            assert early.transaction("a@client.test", ["c@sink.test"], HEAD).code == 250
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert early.transaction("a@client.test", ["d@sink.test"], LARGE).code == 250
        with Client(mta.address()) as late:
            late.ehlo()
            assert late.transaction("a@client.test", ["e@sink.test"], HEAD).code == 250
        sink.wait_for(3)
        wait_until(lambda: mta.queued() == 0, 30, "the queue is empty")
        assert {arrival.forward_paths[0][0] for arrival in sink.arrivals} == {"c", "d", "e"}


@pytest.mark.parametrize("limit", [0, 40, 64, 100, 256, 1024, 65536])
def test_shares_never_exceed_what_there_is(limit: int) -> None:
    sessions, deliveries = shares(limit, 1000, 500, 2)
    assert sessions >= 1
    assert deliveries >= 1
    if limit > KEPT + 8:
        assert 2 * sessions + deliveries + KEPT + 2 <= limit


def test_shares_are_what_was_asked_for_where_there_is_enough() -> None:
    assert shares(65536, 1000, 500, 2) == (1000, 500)
