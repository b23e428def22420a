"""The failure report, read back by somebody else's parser."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.relay.dsn import Failed, failure_report
from mtatwist.smtp.reply import Reply

ORIGINAL = b"Received: from x\r\n\tby y; z\r\nSubject: the original\r\nTo: you\r\n\r\nsecret body\r\n"
GONE = Reply(550, "5.1.1", "no such user")


def report(
    *failed: Failed, original: bytes = ORIGINAL, reverse_path: str = "me@here.test", envid: str = ""
) -> tuple[bytes, EmailMessage]:
    envelope = Envelope(reverse_path, [one.recipient for one in failed], envid=envid, received_at=1_700_000_000.0)
    message = Message(7, envelope, len(original), original)
    raw = failure_report(message, failed, original, hostname="mta.test", boundary="b0undary", now=1_700_000_100.0)
    parsed = BytesParser(policy=policy.default).parsebytes(raw)
    assert isinstance(parsed, EmailMessage)
    return raw, parsed


def failed(
    address: str = "gone@there.test", reply: Reply = GONE, host: str = "mx.there.test", orcpt: str = ""
) -> Failed:
    return Failed(Recipient(0, address, address.rpartition("@")[2], orcpt=orcpt), reply, host, 1_700_000_050.0)


def groups(parsed: EmailMessage) -> list[EmailMessage]:
    """The groups of fields of the status part: first the message's, then each recipient's."""
    status = parsed.get_payload()[1]  # type: ignore[index]
    return status.get_payload()  # type: ignore[return-value, union-attr]


def test_its_three_parts_and_their_fields() -> None:
    raw, parsed = report(failed(), envid="id+20", reverse_path="me@here.test")
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert parsed["From"] == "Mail Delivery System <MAILER-DAEMON@mta.test>"
    assert parsed["To"] == "<me@here.test>" or parsed["To"] == "me@here.test"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["Date"]
    assert parsed["Message-ID"]
    words, status, header = parsed.get_payload()
    assert [part.get_content_type() for part in (words, status, header)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    text = words.get_content()
    assert "<gone@there.test>:" in text
    assert "mx.there.test said: 550 5.1.1 no such user" in text
    about, recipient = groups(parsed)
    assert about["Reporting-MTA"] == "dns; mta.test"
    assert about["Original-Envelope-Id"] == "id+20"
    assert about["Arrival-Date"]
    assert dict(recipient.items()) == {
        "Final-Recipient": "rfc822; gone@there.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.there.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": recipient["Last-Attempt-Date"],
    }
    assert b"Subject: the original\r\nTo: you" in raw
    assert b"secret body" not in raw
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert not parsed.defects


def test_each_failed_recipient_has_its_own_group() -> None:
    _, parsed = report(
        failed("one@a.test"),
        failed("two@b.test", Reply(552, "5.3.4", "too big"), "", orcpt="rfc822;alias@b.test"),
        failed("three@c.test", Reply(550, "", "no"), "mx.c.test"),
    )
    _, one, two, three = groups(parsed)
    assert [group["Final-Recipient"] for group in (one, two, three)] == [
        "rfc822; one@a.test",
        "rfc822; two@b.test",
        "rfc822; three@c.test",
    ]
    assert [group["Status"] for group in (one, two, three)] == ["5.1.1", "5.3.4", "5.0.0"]
    assert two["Original-Recipient"] == "rfc822;alias@b.test"
    # Nobody else said it: there is no remote server to name.
    assert two["Remote-MTA"] is None
    assert two["Diagnostic-Code"] is None


def test_an_8bit_header_goes_back_as_it_came() -> None:
    original = "Subject: blåbær\r\nTo: you\r\n\r\nbody".encode()
    raw, parsed = report(failed(), original=original)
    header = parsed.get_payload()[2]  # type: ignore[index]
    assert header.get_content_type() == "message/global-headers"  # type: ignore[union-attr]
    assert header["Content-Transfer-Encoding"] == "8bit"  # type: ignore[index]
    # What holds 8-bit parts says so (RFC 2045 §6.4).
    assert parsed["Content-Transfer-Encoding"] == "8bit"
    assert "Subject: blåbær\r\n".encode() in raw


@pytest.mark.parametrize(
    "original", [b"", b"\r\nno header\r\n", b"Subject: no end", b"X: " + b"y" * 200_000 + b"\r\n\r\nbody"]
)
def test_any_original_makes_a_whole_report(original: bytes) -> None:
    raw, parsed = report(failed(), original=original)
    assert len(parsed.get_payload()) == 3
    assert raw.endswith(b"\r\n--b0undary--\r\n")
    assert len(raw) < 80_000


HOSTILE = st.lists(
    st.sampled_from(
        ["\r", "\n", "\r\n", "Bcc: evil@x.test", "--b0undary", "é", "\0", "\x85", "\u2028", " ", "a", ":", "<", ">"]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_nothing_a_peer_says_becomes_a_field_or_a_part(
    text: str, address: str, host: str, reverse_path: str, envid: str
) -> None:
    """Whether or not such addresses and hosts can ever get here."""
    one = failed(f"a{address}@x.test", Reply(550, "5.1.1", text), f"mx{host}", orcpt=f"rfc822;{address}")
    raw, parsed = report(one, reverse_path=f"me{reverse_path}", envid=f"e{envid}")
    assert set(parsed.keys()) == {
        "Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert len(parsed.get_payload()) == 3
    assert raw.isascii()
    assert raw.replace(b"\r\n", b"").translate(None, bytes(range(32))) == raw.replace(b"\r\n", b"").replace(b"\t", b"")
    about, recipient = groups(parsed)
    assert set(about.keys()) == {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert set(recipient.keys()) == {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date",
    }  # fmt: skip


def test_an_endless_reply_makes_no_endless_report() -> None:
    raw, _ = report(failed(reply=Reply(550, "5.7.1", "\n".join(["x" * 2000] * 100))))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert len(raw) < 5000
