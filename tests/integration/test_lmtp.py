"""The hand-over to a mailbox server: a real Dovecot, read back over IMAP."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client
from rigs.content import awkward
from rigs.dovecot import DOMAIN, Dovecot
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"
LARGE = 50_000_000


@pytest.fixture
def dovecot(tmp_path: Path) -> Iterator[Dovecot]:
    """alice and carol have room, bob has little."""
    with Dovecot(tmp_path, {"alice": LARGE, "bob": 20_000, "carol": LARGE}) as it:
        yield it


def handing_to(next_hop: str, sink: Sink, **tables: Any) -> Config:
    """Mail for Dovecot's domain goes there by LMTP, everything else to the sink."""
    config = relaying_to(sink.port, **tables)
    config["route"].insert(0, {"domain": DOMAIN, "transport": "lmtp", "next_hop": next_hop, "tls": "none"})
    return config


def address(user: str) -> str:
    return f"{user}@{DOMAIN}"


def note(number: int) -> bytes:
    return b"Subject: note\r\nX-Note: %d\r\n\r\nhello\r\n" % number


def send(mta: Mta, users: list[str], *contents: bytes) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        for content in contents:
            assert client.transaction(SENDER, [address(user) for user in users], content).code == 250


def drained(mta: Mta, seconds: float = 60) -> None:
    wait_until(lambda: mta.queued() == 0, seconds, lambda: f"the queue is empty: {mta.log()[-2000:]}")


def notes(dovecot: Dovecot, user: str) -> Counter[int]:
    found = [re.search(rb"^X-Note: (\d+)\r$", content, re.MULTILINE) for content in dovecot.mailbox(user)]
    assert all(found)
    return Counter(int(match[1]) for match in found if match)


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_one_transaction_and_each_ones_fate(make_mta: MakeMta, sink: Sink, dovecot: Dovecot, way: str) -> None:
    content = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 500
    with make_mta(handing_to(getattr(dovecot, way), sink)) as mta:
        send(mta, ["alice", "bob", "nobody", "carol"], content)
        report = sink.wait_for(1, 30)[0]
        drained(mta)
    events = [e for e in mta.events() if e["event"] in ("delivered", "failed") and DOMAIN in e["forward_path"]]
    assert dovecot.mailbox("alice") == dovecot.mailbox("carol") == [content]
    assert dovecot.mailbox("bob") == []
    assert {e["forward_path"]: (e["event"], e["code"]) for e in events} == {
        address("alice"): ("delivered", 250),
        address("bob"): ("failed", 552),
        address("nobody"): ("failed", 550),
        address("carol"): ("delivered", 250),
    }
    # One message to Dovecot, one report to the sender, about those two and nobody else.
    assert len(sink.arrivals) == 1
    assert (report.reverse_path, report.forward_paths) == ("", (SENDER,))
    said = re.findall(r"^Final-Recipient: *\S+; *(\S+)\r$", report.content.decode(), re.MULTILINE)
    assert sorted(said) == [address("bob"), address("nobody")]
    assert dovecot.log().count("saved mail to INBOX") == 2


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_every_octet_arrives(make_mta: MakeMta, sink: Sink, dovecot: Dovecot, way: str) -> None:
    # Dovecot stores no NUL, and what has no header section gets one.
    left_out = ("NUL", "empty", "one empty line", "only dots", "no header")
    contents = [content for name, content in awkward() if name not in left_out]
    with make_mta(handing_to(getattr(dovecot, way), sink)) as mta:
        send(mta, ["alice"], *contents)
        drained(mta)
    assert sorted(dovecot.mailbox("alice")) == sorted(contents)
    assert sink.arrivals == []


def test_connections_are_used_again(make_mta: MakeMta, sink: Sink, dovecot: Dovecot) -> None:
    config = handing_to(dovecot.unix, sink)
    config["route"][0]["connections"] = 1
    with make_mta(config) as mta:
        send(mta, ["alice", "carol"], *(note(number) for number in range(20)))
        drained(mta)
    connected = [event for event in mta.events() if event["event"] == "connected"]
    assert notes(dovecot, "alice") == notes(dovecot, "carol") == Counter(range(20))
    assert len(connected) == 1


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_stopped_and_started_again(make_mta: MakeMta, sink: Sink, dovecot: Dovecot, way: str) -> None:
    """While it is up, while it is down, and over connections that it has closed meanwhile."""
    with make_mta(handing_to(getattr(dovecot, way), sink)) as mta:
        send(mta, ["alice", "carol"], *(note(number) for number in range(20)))
        drained(mta)
        dovecot.stop()
        send(mta, ["alice", "carol"], *(note(number) for number in range(20, 40)))
        wait_until(lambda: "Cannot connect" in mta.log(), 20, "a failed attempt is logged")
        assert mta.queued() == 20
        dovecot.start()
        send(mta, ["alice", "carol"], *(note(number) for number in range(40, 60)))
        drained(mta)
    assert notes(dovecot, "alice") == notes(dovecot, "carol") == Counter(range(60))
    assert sink.arrivals == []


def test_stopped_in_the_middle(make_mta: MakeMta, sink: Sink, dovecot: Dovecot) -> None:
    """Nothing is lost, and nothing is there twice but what lost its reply."""
    with make_mta(handing_to(dovecot.unix, sink)) as mta:
        for round_ in range(3):
            with Client(mta.address()) as client:
                client.ehlo()
                for number in range(40):
                    content = note(round_ * 40 + number)
                    assert client.transaction(SENDER, [address("alice")], content).code == 250
                    if number == 20:
                        dovecot.stop()
            dovecot.start()
        drained(mta)
    uncertain = sum(event["event"] == "delivery_uncertain" for event in mta.events())
    found = notes(dovecot, "alice")
    assert set(found) == set(range(120))
    assert sum(found.values()) - 120 <= uncertain
    assert sink.arrivals == []
