"""Messages that others wrote come out as they went in: octet for octet, or for an old peer with the same parts.

What a client must do before SMTP is done by the corpus: lines end with CRLF. A message in which a bare CR is left goes
as binary (BDAT, BINARYMIME): by DATA it would be refused, or mended.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from email import message_from_bytes

import pytest
from rigs.client import Client
from rigs.corpus import RealMessage, corpus
from rigs.mime import fit, parts, plan_for
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Arrival, Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"

BY_DATA = [b"250-sink.test", b"250-PIPELINING", b"250 8BITMIME"]
BY_BDAT = [b"250-sink.test", b"250-PIPELINING", b"250-CHUNKING", b"250-BINARYMIME", b"250 8BITMIME"]
OLD = [b"250-sink.test", b"250 PIPELINING"]

#: What the process may have, whatever it converts.
MEMORY = 150_000_000

#: Written here, as nobody ships such files: what only BINARYMIME can carry.
BINARY = RealMessage(
    "binary", b"MIME-Version: 1.0\r\nContent-Type: image/x\r\n\r\n\0\r\0\n" + bytes(range(256)) + b"\n"
)


def test_there_are_a_few_hundred() -> None:
    messages = corpus()
    assert len(messages) > 250
    assert sum(not message.content.isascii() for message in messages) > 20
    assert sum(b"multipart/" in message.content for message in messages) > 100


def send(mta: Mta, messages: Sequence[RealMessage], by: str) -> None:
    """Each to a recipient whose local part is its number."""
    with Client(mta.address()) as client:
        client.ehlo()
        for number, message in enumerate(messages):
            body = "BINARYMIME" if message.binary else "7BIT" if message.content.isascii() else "8BITMIME"
            client.expect(250, f"MAIL FROM:<{SENDER}> BODY={body}")
            client.expect(250, f"RCPT TO:<{number}@sink.test>")
            if by == "DATA" and not message.binary:
                client.expect(354, "DATA")
                wire = message.content.replace(b"\r\n.", b"\r\n..")
                client.send((b"." if wire.startswith(b".") else b"") + wire + b".\r\n")
            else:
                client.send(b"BDAT %d LAST\r\n" % len(message.content) + message.content)
            reply = client.reply()
            assert reply.code == 250, (message.name, reply)


def by_number(arrivals: Sequence[Arrival]) -> dict[int, Arrival]:
    return {int(arrival.forward_paths[0].partition("@")[0]): arrival for arrival in arrivals if arrival.reverse_path}


def own(arrival: Arrival) -> bytes:
    """The content behind our Received field."""
    return re.sub(rb"\AReceived:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", arrival.content)


@pytest.mark.parametrize(("by", "extensions"), [("DATA", BY_DATA), ("BDAT", BY_BDAT)])
def test_they_arrive_as_they_were(make_mta: MakeMta, sink: Sink, by: str, extensions: list[bytes]) -> None:
    sink.extensions = extensions
    messages = [*corpus(), BINARY] if by == "BDAT" else [message for message in corpus() if not message.binary]
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, messages, by)
        arrivals = by_number(sink.wait_for(len(messages), 60))
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert sorted(arrivals) == list(range(len(messages)))
    changed = [
        message.name
        for number, message in enumerate(messages)
        if arrivals[number].digest != hashlib.sha256(message.content).hexdigest()
    ]
    assert changed == []


def test_an_old_server_gets_the_same_parts(make_mta: MakeMta, sink: Sink) -> None:
    """Without 8BITMIME: ASCII as it was, the rest converted, and what can't be is returned, and says why."""
    sink.extensions = OLD
    sink.kept = 8 * 2**20
    messages = [*corpus(), BINARY]
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, messages, "DATA")
        came = sink.wait_for(len(messages), 60)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert len(came) == len(messages)
    arrivals = by_number(came)
    returned = [message_from_bytes(arrival.content) for arrival in came if not arrival.reverse_path]
    reasons = {
        str(part["Final-Recipient"]).partition(";")[2].strip(): str(part["Status"])
        for report in returned
        for part in report.walk()
        if part["Final-Recipient"]
    }
    converted = 0
    for number, message in enumerate(messages):
        plan = plan_for([message.content])
        if message.content.isascii() and not message.binary:
            assert own(arrivals[number]) == message.content, message.name
        elif plan.obstacle is not None:
            assert reasons.pop(f"{number}@sink.test") == plan.obstacle.value, message.name
        else:
            converted += 1
            result = own(arrivals[number])
            assert fit(result), message.name
            assert parts(result) == parts(message.content), message.name
    assert reasons == {}
    print(f"{len(messages)} messages: {converted} converted, {len(returned)} returned")
    assert converted > 10


@pytest.mark.fresh_start
def test_a_large_message_is_converted_in_flat_memory(make_mta: MakeMta, sink: Sink) -> None:
    sink.extensions = OLD
    sink.kept = 64 * 2**20
    octets = bytes(range(256)) * 40_000
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"
    text = b"--B\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "Grüße, lange Grüße\r\n".encode() * 400_000
    image = b"--B\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets + b"\r\n--B--\r\n"
    message = RealMessage("large", head + text + image)
    assert 15_000_000 < len(message.content) < 25 * 2**20
    with make_mta(relaying_to(sink.port)) as mta:
        send(mta, [message], "BDAT")
        (arrival,) = sink.wait_for(1, 60)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        peak = mta.process.peak_memory()
    result = own(arrival)
    assert fit(result)
    assert parts(result) == parts(message.content)
    print(f"{len(message.content) / 1e6:.0f} MB became {len(result) / 1e6:.0f} MB: peak memory {peak / 1e6:.0f} MB")
    assert peak < MEMORY
