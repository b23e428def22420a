"""What the next hop says decides, for each recipient by its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

from rigs.client import Client
from rigs.content import HEAD
from rigs.mta import Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"


def send(mta: Mta, *forward_paths: str, content: bytes = HEAD) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        assert client.transaction(SENDER, forward_paths, content).code == 250


def test_a_refusal_becomes_a_dsn(make_mta: MakeMta, sink: Sink) -> None:
    sink.policy = lambda stage, what: "550 5.1.1 no such user here" if what == "gone@sink.test" else None
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, "gone@sink.test")
        report = sink.wait_for(1)[0]
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert (report.reverse_path, report.forward_paths) == ("", (SENDER,))
    text = report.content.decode()
    assert "multipart/report" in text
    assert "report-type=delivery-status" in text.replace('"', "")
    assert "Final-Recipient: rfc822; gone@sink.test" in text.replace("rfc822;gone", "rfc822; gone")
    assert "Action: failed" in text
    assert "Status: 5.1.1" in text
    assert "550 5.1.1 no such user here" in text
    assert "Subject: awkward" in text


def test_a_refused_dsn_ends_there(make_mta: MakeMta, sink: Sink) -> None:
    sink.policy = lambda stage, what: "550 5.7.1 nobody"
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, "gone@sink.test")
        wait_until(lambda: mta.queued() == 0, 20, "the queue is empty")
    assert sink.arrivals == []


def test_trouble_of_the_next_hop_is_tried_again(make_mta: MakeMta, sink: Sink) -> None:
    asked: Counter[str] = Counter()

    def policy(stage: str, what: str) -> str | None:
        asked[stage] += 1
        return "451 4.3.0 later" if asked[stage] == 1 else None

    sink.policy = policy
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, "a@sink.test")
        assert sink.wait_for(1, 30)[0].digest == hashlib.sha256(HEAD).hexdigest()
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    # Refused at RCPT, then at the end of data, then taken.
    assert asked == {"RCPT": 3, "DATA": 2}
    assert len(sink.arrivals) == 1


def test_each_recipient_has_its_own_outcome(make_mta: MakeMta, sink: Sink) -> None:
    later = Counter({"later@sink.test": 1})

    def policy(stage: str, what: str) -> str | None:
        if what == "gone@sink.test":
            return "550 5.1.1 gone"
        if later[what] > 0:
            later[what] -= 1
            return "450 4.2.1 busy"
        return None

    sink.policy = policy
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, "good@sink.test", "later@sink.test", "gone@sink.test")
        sink.wait_for(3, 30)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    came = Counter(path for arrival in sink.arrivals for path in arrival.forward_paths)
    assert came == {"good@sink.test": 1, "later@sink.test": 1, SENDER: 1}
    report = next(arrival for arrival in sink.arrivals if arrival.reverse_path == "")
    assert b"gone@sink.test" in report.content
    assert b"Final-Recipient: rfc822; good@sink.test" not in report.content


def test_a_next_hop_that_is_down_and_comes_up(make_mta: MakeMta) -> None:
    port = free_port()
    with make_mta(relaying_to(port)) as mta:
        send(mta, "a@sink.test", content=HEAD + b"patience\r\n")
        wait_until(lambda: "refused" in mta.log(), 20, "the failed attempt is logged")
        assert mta.queued() == 1
        with Sink(port=port) as sink:
            assert sink.wait_for(1, 30)[0].size == len(HEAD) + 10
            wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")


def test_a_message_too_old_goes_back(make_mta: MakeMta, sink: Sink) -> None:
    sink.policy = lambda stage, what: "450 4.2.1 busy" if what == "busy@sink.test" else None
    with make_mta(relaying_to(sink.port, relay={"retry": "1s", "max_age": "2s"})) as mta:
        send(mta, "busy@sink.test")
        report = sink.wait_for(1, 30)[0]
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert report.forward_paths == (SENDER,)
    assert b"Action: failed" in report.content
    assert b"450 4.2.1 busy" in report.content
