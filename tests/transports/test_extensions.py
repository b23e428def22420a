"""What a server offers is used, and what it does not offer is done without: never by a changed or lost message."""

from __future__ import annotations

import email
import email.policy
from typing import Any

import pytest
from transports.peer import Client, Peer, message

from mtatwist.envelope import Deferral, Delivered, Failure, Handed, Message

Patch = pytest.MonkeyPatch
BODY = b"Subject: x\r\n\r\n.dot\r\nhello\r\n"
EIGHT = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrün\r\n".encode()
PIPELINING = ("PIPELINING",)

both = pytest.mark.parametrize("extensions", [(), PIPELINING], ids=["lockstep", "pipelining"])


def outcome(monkeypatch: Patch, peer: Peer, what: Message) -> Any:
    """The outcome of the first recipient."""
    return Client(monkeypatch, peer).deliver(what)[0]


def binary(body: bytes, *to: str) -> Message:
    made = message(body, *to)
    made.envelope.body_type = "BINARYMIME"
    return made


# CHUNKING.


@both
@pytest.mark.parametrize("body", [BODY, b"", b"no line end", b".\r\n", b"x" * 700_000])
def test_a_chunk_is_the_message_octet_for_octet(monkeypatch: Patch, body: bytes, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=("CHUNKING", *extensions))
    assert type(outcome(monkeypatch, peer, message(body, "c@d.test", "e@d.test"))) is Delivered
    assert peer.messages == [body]
    assert peer.heard[-1] == f"BDAT {len(body)} LAST"
    assert "DATA" not in peer.heard


def test_a_message_from_the_spool_goes_in_one_chunk(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("CHUNKING", "8BITMIME"))
    client = Client(monkeypatch, peer)
    what = message(b"x" * 700_000)
    client.spool.messages[1] = what
    assert type(client.deliver(Message(1, what.envelope, what.size))[0]) is Delivered
    assert peer.messages == [what.body]
    assert peer.heard.count("BDAT 700000 LAST") == 1


@both
def test_no_chunk_is_sent_before_a_recipient_is_accepted(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """A server that refuses them all, and knows BDAT by name only, would take the message for commands."""
    peer = Peer(lambda command: "550 5.1.1 no" if command[:4] == "RCPT" else None, extensions=("CHUNKING", *extensions))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert type(client.over(delivery, message(BODY))[0]) is Failure
    assert peer.heard[-1] == "RSET"
    assert not any(line.startswith("BDAT") for line in peer.heard)
    assert delivery.usable


@both
@pytest.mark.parametrize(("said", "expected"), [("554 5.6.0 no", Failure), ("452 4.3.1 full", Deferral)])
def test_a_refused_chunk_is_reset(monkeypatch: Patch, said: str, expected: type, extensions: tuple[str, ...]) -> None:
    peer = Peer(lambda command: said if command[:4] == "BDAT" else None, extensions=("CHUNKING", *extensions))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert type(client.over(delivery, message(BODY))[0]) is expected
    assert peer.heard[-1] == "RSET"
    peer.say = lambda command: None
    assert type(client.over(delivery, message(BODY))[0]) is Delivered


# 8BITMIME and BINARYMIME.


@pytest.mark.parametrize("body_type", ["", "7BIT", "8BITMIME"])
def test_8bit_data_is_called_so(monkeypatch: Patch, body_type: str) -> None:
    peer = Peer(extensions=("8BITMIME",))
    what = message(EIGHT)
    what.envelope.body_type = body_type
    assert type(outcome(monkeypatch, peer, what)) is Delivered
    assert peer.heard[1] == "MAIL FROM:<a@b.test> BODY=8BITMIME"
    assert peer.messages == [EIGHT]


def test_what_is_not_called_8bit_and_is_not_stays_so(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    outcome(monkeypatch, peer, message(BODY))
    assert peer.heard[1] == "MAIL FROM:<a@b.test>"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("extensions", [(), ("CHUNKING", "PIPELINING", "SIZE")])
def test_8bit_data_is_converted_for_a_server_that_takes_none(
    monkeypatch: Patch, in_memory: bool, extensions: tuple[str, ...]
) -> None:
    monkeypatch.setattr("mtatwist.transports.body.READ_SIZE", 7)
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    what = message(EIGHT)
    what.envelope.body_type = "8BITMIME"
    client.spool.messages[1] = what
    if not in_memory:
        what = Message(1, what.envelope, what.size)
    assert type(client.deliver(what)[0]) is Delivered
    (sent,) = peer.messages
    assert sent.isascii()
    assert peer.heard[1] == "MAIL FROM:<a@b.test>"
    read = email.message_from_bytes(sent, policy=email.policy.default)
    assert read.get_content().splitlines() == ["grün"]
    assert client.metrics.conversions.value == 1


def test_ascii_is_never_converted(monkeypatch: Patch) -> None:
    """Not even lines that are too long for its parts to be encoded."""
    body = BODY + b"x" * 3000 + b"\r\n"
    for in_memory in (True, False):
        peer = Peer()
        client = Client(monkeypatch, peer)
        what = message(body)
        what.envelope.body_type = "8BITMIME"
        client.spool.messages[1] = what
        client.deliver(what if in_memory else Message(1, what.envelope, what.size))
        assert peer.messages == [body]
        assert client.metrics.conversions.value == 0


@pytest.mark.parametrize(
    ("body", "enhanced"),
    [
        (b"Subject: gr\xfcn\r\n\r\nx\r\n", "5.6.9"),
        (b"MIME-Version: 1.0\r\nContent-Type: message/partial; id=x; number=1\r\n\r\ngr\xfcn\r\n", "5.6.3"),
    ],
)
def test_what_cannot_be_converted_goes_back(monkeypatch: Patch, body: bytes, enhanced: str) -> None:
    peer = Peer()
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    (failed,) = client.over(delivery, message(body))
    assert isinstance(failed, Failure)
    assert (failed.reply.code, failed.reply.enhanced) == (554, enhanced)
    assert peer.heard == ["EHLO mta.test"]
    assert type(client.over(delivery, message(BODY))[0]) is Delivered


BINARY = b"MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\r\x0a\x0a."


def test_binary_data_goes_in_a_chunk(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("BINARYMIME", "CHUNKING"))
    assert type(outcome(monkeypatch, peer, binary(BINARY))) is Delivered
    assert peer.messages == [BINARY]
    assert peer.heard[1] == "MAIL FROM:<a@b.test> BODY=BINARYMIME"


@pytest.mark.parametrize("extensions", [(), ("8BITMIME",), ("CHUNKING", "8BITMIME"), ("BINARYMIME",)])
def test_binary_data_is_converted_elsewhere(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    assert type(outcome(monkeypatch, peer, binary(BINARY))) is Delivered
    (sent,) = peer.messages
    read = email.message_from_bytes(sent, policy=email.policy.default)
    assert read.get_payload(decode=True) == b"\x00\xff\r\n\n."
    assert "BINARYMIME" not in peer.heard[1]


# SMTPUTF8.


def utf8(body: bytes = BODY, *to: str, reverse_path: str = "a@b.test") -> Message:
    made = message(body, *to, reverse_path=reverse_path)
    made.envelope.smtputf8 = True
    return made


def test_smtputf8_is_passed_on(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("SMTPUTF8", "8BITMIME"))
    body = "Subject: grün\r\n\r\nx\r\n".encode()
    assert type(outcome(monkeypatch, peer, utf8(body, "ü@ä.test", reverse_path="ö@b.test"))) is Delivered
    assert peer.heard[1:3] == ["MAIL FROM:<ö@b.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<ü@ä.test>"]
    assert peer.messages == [body]


def test_a_message_that_does_not_need_smtputf8_goes_without(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    assert type(outcome(monkeypatch, peer, utf8(BODY + b"gr\xc3\xbcn\r\n"))) is Delivered
    assert peer.heard[1] == "MAIL FROM:<a@b.test> BODY=8BITMIME"


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("body", "reverse_path"), [("Subject: grün\r\n\r\nx\r\n".encode(), "a@b.test"), (BODY, "ö@b.test")]
)
def test_a_message_that_needs_smtputf8_goes_back(
    monkeypatch: Patch, body: bytes, reverse_path: str, in_memory: bool
) -> None:
    peer = Peer(extensions=("8BITMIME",))
    client = Client(monkeypatch, peer)
    what = utf8(body, "c@d.test", "e@d.test", reverse_path=reverse_path)
    client.spool.messages[1] = what
    outcomes = client.deliver(what if in_memory else Message(1, what.envelope, what.size))
    assert [(type(one), one.reply.enhanced) for one in outcomes] == [(Failure, "5.6.7")] * 2
    assert peer.heard == ["EHLO mta.test"]


def test_only_the_recipient_that_needs_smtputf8_fails(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    outcomes = Client(monkeypatch, peer).deliver(utf8(BODY, "c@d.test", "ü@d.test", "e@d.test"))
    assert [type(one) for one in outcomes] == [Delivered, Failure, Delivered]
    assert outcomes[1].reply.enhanced == "5.6.7"
    assert peer.heard[2:4] == ["RCPT TO:<c@d.test>", "RCPT TO:<e@d.test>"]


def test_with_only_such_recipients_the_server_hears_nothing(monkeypatch: Patch) -> None:
    peer = Peer()
    assert type(outcome(monkeypatch, peer, utf8(BODY, "ü@d.test"))) is Failure
    assert peer.heard == ["EHLO mta.test"]


def test_a_domain_has_another_form(monkeypatch: Patch) -> None:
    peer = Peer()
    assert type(outcome(monkeypatch, peer, utf8(BODY, "c@bücher.test", reverse_path="a@ä.test"))) is Delivered
    assert peer.heard[1:3] == ["MAIL FROM:<a@xn--4ca.test>", "RCPT TO:<c@xn--bcher-kva.test>"]


# DSN.


def with_dsn() -> Message:
    made = message(BODY, "c@d.test", "e@d.test")
    made.envelope.ret, made.envelope.envid = "HDRS", "QQ+2B314"
    made.envelope.recipients[0].notify = "SUCCESS,FAILURE"
    made.envelope.recipients[0].orcpt = "rfc822;C+40d.test"
    made.envelope.recipients[1].notify = "NEVER"
    return made


def test_what_was_said_about_reports_is_passed_on(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("DSN",))
    outcomes = Client(monkeypatch, peer).deliver(with_dsn())
    assert [one.handed for one in outcomes if isinstance(one, Delivered)] == [Handed.NOTIFYING] * 2
    assert peer.heard[1:4] == [
        "MAIL FROM:<a@b.test> RET=HDRS ENVID=QQ+2B314",
        "RCPT TO:<c@d.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;C+40d.test",
        "RCPT TO:<e@d.test> NOTIFY=NEVER",
    ]


def test_nothing_is_made_up_about_reports(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("DSN",))
    assert outcome(monkeypatch, peer, message(BODY)).handed is Handed.NOTIFYING
    assert peer.heard[1:3] == ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"]


def test_a_server_without_reports_is_told_nothing(monkeypatch: Patch) -> None:
    peer = Peer()
    assert outcome(monkeypatch, peer, with_dsn()).handed is Handed.RELAYED
    assert peer.heard[1:4] == ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "RCPT TO:<e@d.test>"]


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [(("DSN", "SMTPUTF8"), "utf-8;ü@d.test"), (("DSN",), "utf-8;\\x{FC}@d.test")],
)
def test_an_original_recipient_beyond_ascii(monkeypatch: Patch, extensions: tuple[str, ...], expected: str) -> None:
    peer = Peer(extensions=extensions)
    what = utf8()
    what.envelope.recipients[0].orcpt = "utf-8;ü@d.test"
    assert type(outcome(monkeypatch, peer, what)) is Delivered
    assert peer.heard[2] == f"RCPT TO:<c@d.test> ORCPT={expected}"
