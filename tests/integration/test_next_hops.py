"""What next hops offer, used for real: a Postfix, and a second server of ours."""

from __future__ import annotations

import email
import email.policy
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs.client import Client
from rigs.content import HEAD, awkward
from rigs.mta import Mta, relaying_to
from rigs.postfix import Postfix
from rigs.processes import wait_until
from rigs.sink import Arrival, Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"
RECIPIENT = "someone@sink.test"

#: What the messages of content.awkward() that other servers leave alone are called: Postfix folds long lines.
HARMLESS = [name for name, _ in awkward() if name.startswith("dots around") or "white space" in name]


def through(*lines: str, mta: Mta, chunk: bytes) -> None:
    """A transaction with these lines, and the message by BDAT."""
    with Client(mta.address()) as client:
        client.ehlo()
        for line in lines:
            client.expect(250, line)
        client.send(b"BDAT %d LAST\r\n" % len(chunk) + chunk)
        assert client.reply().code == 250


def behind_trace(content: bytes) -> bytes:
    """The message behind its Received fields."""
    match = re.match(rb"(?:Received:[^\n]*\n(?:[ \t][^\n]*\n)*)+", content)
    assert match
    return content[match.end() :]


def drained(*servers: Mta) -> None:
    wait_until(lambda: not any(server.queued() for server in servers), 30, "the queues are empty")


@pytest.fixture
def postfix(sink: Sink) -> Iterator[Postfix]:
    """Hands everything on to the sink. Its processes have users of their own, who can't enter a test's directory."""
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        with Postfix(Path(directory), sink.port) as it:
            yield it


def test_through_postfix(make_mta: MakeMta, sink: Sink, postfix: Postfix) -> None:
    """It offers CHUNKING, so everything goes there by BDAT."""
    contents = [content for name, content in awkward() if name in HARMLESS]
    with make_mta(relaying_to(postfix.relay[1])) as mta:
        for content in contents:
            through(f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", mta=mta, chunk=content)
        came = sink.wait_for(len(contents))
        drained(mta)
    kept = [behind_trace(arrival.content) for arrival in came if arrival.content]
    assert sorted(kept) == sorted(content for content in contents if content in kept)
    assert len(kept) >= 3


def test_postfix_reports_when_it_was_told_to(make_mta: MakeMta, sink: Sink, postfix: Postfix) -> None:
    """And it alone: what is handed to a server that reports needs no report of ours."""
    sink.extensions = [line for line in sink.extensions[:-1] if b"DSN" not in line] + [b"250 8BITMIME"]
    with make_mta(relaying_to(postfix.relay[1])) as mta:
        through(
            f"MAIL FROM:<{SENDER}> RET=HDRS ENVID=QQ314",
            f"RCPT TO:<{RECIPIENT}> NOTIFY=SUCCESS ORCPT=rfc822;first@client.test",
            mta=mta,
            chunk=HEAD,
        )
        came = sink.wait_for(2)
        drained(mta)
    (report,) = [arrival for arrival in came if arrival.reverse_path == ""]
    assert report.forward_paths == (SENDER,)
    text = report.content.decode()
    assert "Reporting-MTA: dns; postfix.test" in text
    assert "Original-Envelope-Id: QQ314" in text
    assert re.search(r"Original-Recipient: rfc822; ?first@client\.test", text)
    assert "Action: relayed" in text
    assert len(sink.arrivals) == 2


def test_addresses_beyond_ascii_through_postfix(make_mta: MakeMta, sink: Sink, postfix: Postfix) -> None:
    sink.extensions = [b"250-sink.test", b"250-8BITMIME", b"250 SMTPUTF8"]
    content = "Subject: grün\r\n\r\nx\r\n".encode()
    with make_mta(relaying_to(postfix.relay[1])) as mta:
        through("MAIL FROM:<jörg@client.test> SMTPUTF8", "RCPT TO:<günther@sink.test>", mta=mta, chunk=content)
        (arrival,) = sink.wait_for(1)
        drained(mta)
    assert (arrival.reverse_path, arrival.forward_paths) == ("jörg@client.test", ("günther@sink.test",))
    assert arrival.content.endswith(content)


BINARY = b"From: <sender@client.test>\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
BINARY += b"Content-Transfer-Encoding: binary\r\n\r\n" + bytes(range(256)) * 40 + b"\r.\n.\r\n.\r\n\0"


def test_binary_data_goes_as_it_is_as_far_as_it_can(make_mta: MakeMta, sink: Sink) -> None:
    """From one server to the other octet for octet; the sink takes 8-bit lines at most, and gets base64."""
    with make_mta(relaying_to(sink.port)) as second, make_mta(relaying_to(second.address()[1])) as first:
        through(f"MAIL FROM:<{SENDER}> BODY=BINARYMIME", f"RCPT TO:<{RECIPIENT}>", mta=first, chunk=BINARY)
        (arrival,) = sink.wait_for(1)
        drained(first, second)
    assert payload(arrival) == BINARY.partition(b"\r\n\r\n")[2]
    assert not [event for event in first.events() if event["event"] == "converted"]
    assert [event["signature_broken"] for event in second.events() if event["event"] == "converted"] == [False]


def test_8bit_data_to_a_server_that_takes_none(make_mta: MakeMta, sink: Sink) -> None:
    sink.extensions = [b"250 sink.test"]
    content = HEAD[:-2] + b"DKIM-Signature: v=1; a=x\r\nMIME-Version: 1.0\r\n"
    content += "Content-Type: text/plain; charset=utf-8\r\n\r\ngrün\r\n".encode()
    with make_mta(relaying_to(sink.port)) as mta:
        through(f"MAIL FROM:<{SENDER}> BODY=8BITMIME", f"RCPT TO:<{RECIPIENT}>", mta=mta, chunk=content)
        (arrival,) = sink.wait_for(1)
        drained(mta)
    assert arrival.content.isascii()
    assert payload(arrival) == "grün\r\n".encode()
    assert [event["signature_broken"] for event in mta.events() if event["event"] == "converted"] == [True]


def payload(arrival: Arrival) -> bytes:
    read = email.message_from_bytes(arrival.content, policy=email.policy.SMTP)
    decoded = read.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    return decoded


@pytest.mark.parametrize(
    ("lines", "content", "status"),
    [
        ((f"MAIL FROM:<{SENDER}> SMTPUTF8", "RCPT TO:<günther@sink.test>"), HEAD, "5.6.7"),
        ((f"MAIL FROM:<{SENDER}> SMTPUTF8", f"RCPT TO:<{RECIPIENT}>"), "Subject: grün\r\n\r\n".encode(), "5.6.7"),
    ],
)
def test_what_the_next_hop_cannot_take_goes_back(
    make_mta: MakeMta, sink: Sink, lines: tuple[str, ...], content: bytes, status: str
) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        through(*lines, mta=mta, chunk=content)
        (report,) = sink.wait_for(1)
        drained(mta)
    assert (report.reverse_path, report.forward_paths) == ("", (SENDER,))
    assert f"Status: {status}" in report.content.decode()
