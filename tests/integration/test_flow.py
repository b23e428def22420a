"""Mail goes through whole and unchanged, at load, and memory stays flat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.client import Client
from rigs.content import HEAD, awkward
from rigs.loadpair import SmtpSink, smtp_source
from rigs.mta import Mta, relaying_to
from rigs.processes import need, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

pytestmark = pytest.mark.fresh_start

MEMORY = 150_000_000
AWKWARD = dict(awkward())


def bodies(mta: Mta) -> list[Path]:
    """The files in which large bodies wait."""
    return [path for path in (mta.data_dir / "bodies").rglob("*") if path.is_file()]


@pytest.mark.parametrize("reuse", [True, False], ids=["reused sessions", "a session a message"])
def test_load_arrives_in_our_sink(make_mta: MakeMta, sink: Sink, tmp_path: Path, reuse: bool) -> None:
    need("smtp-source")
    with make_mta(relaying_to(sink.port)) as mta:
        smtp_source(mta.address(), tmp_path, messages=2000, size=5120, reuse=reuse)
        arrivals = sink.wait_for(2000)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert len(arrivals) == 2000
    assert len({arrival.queue_id for arrival in arrivals}) == 2000
    assert {arrival.forward_paths for arrival in arrivals} == {("someone@sink.test",)}


@pytest.mark.parametrize("reuse", [True, False], ids=["reused sessions", "a session a message"])
def test_load_arrives_in_smtp_sink(make_mta: MakeMta, tmp_path: Path, reuse: bool) -> None:
    need("smtp-source", "smtp-sink")
    with SmtpSink(tmp_path) as next_hop, make_mta(relaying_to(next_hop.port)) as mta:
        smtp_source(mta.address(), tmp_path, messages=2000, size=5120, reuse=reuse)
        next_hop.wait_for(2000, 60)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        assert next_hop.count() == 2000


@pytest.mark.parametrize("chunk", [0, 7, 4096], ids=["whole", "by 7 bytes", "by 4096 bytes"])
def test_awkward_content_is_unchanged(make_mta: MakeMta, sink: Sink, chunk: int) -> None:
    with make_mta(relaying_to(sink.port)) as mta, Client(mta.address()) as client:
        client.ehlo()
        for number, (name, content) in enumerate(AWKWARD.items()):
            if chunk == 7 and len(content) > 300_000:
                continue
            reply = client.transaction("a@client.test", [f"{number}@sink.test"], content, chunk)
            assert reply.code == 250, (name, reply)
            arrivals = sink.wait_for(1, 20)
            assert arrivals[0].digest == hashlib.sha256(content or b"").hexdigest(), name
            assert arrivals[0].forward_paths == (f"{number}@sink.test",)
            arrivals.clear()


@pytest.mark.campaign
def test_many_megabyte_messages_in_flat_memory(make_mta: MakeMta, tmp_path: Path, long_campaign: bool) -> None:
    need("smtp-source", "smtp-sink")
    messages = 1000 if long_campaign else 60
    with SmtpSink(tmp_path) as next_hop, make_mta(relaying_to(next_hop.port)) as mta:
        smtp_source(mta.address(), tmp_path, messages=messages, size=1_000_000)
        next_hop.wait_for(messages, 240)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        peak = mta.process.peak_memory()
        print(f"{messages} x 1 MB: peak memory {peak / 1e6:.0f} MB")
        assert peak < MEMORY
        wait_until(lambda: not bodies(mta), 10, "no body is left on disk")


def test_one_message_just_below_the_limit(make_mta: MakeMta, sink: Sink) -> None:
    content = HEAD + b"0123456789" * 7 + b"\r\n"
    content += (b"y" * 76 + b"\r\n.\r\n") * 300_000
    assert 24_000_000 < len(content) < 25 * 2**20
    with make_mta(relaying_to(sink.port)) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], content).code == 250
        assert sink.wait_for(1, 60)[0].digest == hashlib.sha256(content).hexdigest()
        peak = mta.process.peak_memory()
        print(f"one message of {len(content) / 1e6:.0f} MB: peak memory {peak / 1e6:.0f} MB")
        assert peak < MEMORY
        wait_until(lambda: not bodies(mta), 10, "the body's file is gone")


def test_a_message_over_the_limit_leaves_nothing(make_mta: MakeMta, sink: Sink) -> None:
    content = HEAD + (b"y" * 998 + b"\r\n") * (26 * 2**20 // 1000)
    with make_mta(relaying_to(sink.port)) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            reply = client.transaction("a@client.test", ["b@sink.test"], content)
            assert (reply.code, reply.text[:5]) == (552, "5.3.4")
            declared = client.command(f"MAIL FROM:<a@client.test> SIZE={26 * 2**20}")
            assert (declared.code, declared.text[:5]) == (552, "5.3.4")
            # The session goes on, and what comes next is taken.
            assert client.transaction("a@client.test", ["c@sink.test"], HEAD).code == 250
        assert [a.forward_paths for a in sink.wait_for(1)] == [("c@sink.test",)]
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        wait_until(lambda: not bodies(mta), 10, "no body is left on disk")
        assert mta.process.peak_memory() < MEMORY


def test_an_aborted_message_leaves_nothing(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        client = Client(mta.address())
        client.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        client.send(HEAD + (b"y" * 998 + b"\r\n") * 3000)
        wait_until(lambda: bodies(mta), 10, "the body goes to a file")
        client.close()
        wait_until(lambda: not bodies(mta), 10, "the file is gone")
        assert mta.queued() == 0
    assert sink.arrivals == []
