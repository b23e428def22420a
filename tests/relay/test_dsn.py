"""DSNs, read back by somebody else's parser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.relay.dsn import Dsn, Returned
from mtatwist.relay.notice import Kind, Notice
from mtatwist.smtp.reply import Reply

HEADER = b"Received: from x\r\n\tby y; z\r\nMessage-ID: <1@here.test>\r\nSubject: the original\r\nTo: you\r\n\r\n"
GONE = Reply(550, "5.1.1", "no such user")
BUSY = Reply(450, "4.2.1", "busy")
FINE = Reply(250, "2.0.0", "Ok: queued as 17")
ARRIVED, ATTEMPTED, NOW, UNTIL = 1_700_000_000.0, 1_700_000_050.0, 1_700_000_100.0, 1_700_432_000.0


def notice(
    address: str = "you@there.test", reply: Reply = GONE, host: str = "mx.there.test", orcpt: str = "", **more: Any
) -> Notice:
    recipient = Recipient(0, address, address.rpartition("@")[2], orcpt=orcpt)
    return Notice(recipient, reply, host, ATTEMPTED, **more)


class Read:
    """A DSN and its envelope, and what a parser makes of it."""

    def __init__(
        self,
        *notices: Notice,
        kind: Kind = Kind.FAILED,
        header: bytes = HEADER,
        whole: bytes | None = None,
        reverse_path: str = "me@here.test",
        envid: str = "",
        smtputf8: bool = False,
    ) -> None:
        recipients = [one.recipient for one in notices]
        envelope = Envelope(reverse_path, recipients, envid=envid, smtputf8=smtputf8, received_at=ARRIVED)
        back = header.rstrip(b"\r\n") + b"\r\n" if whole is None else whole
        returned = Returned(header, whole is not None, not back.isascii(), "The words.")
        dsn = Dsn(
            kind, Message(7, envelope, 1000), notices, returned, "mta.test", "b0undary", NOW, UNTIL, lambda at: at
        )
        before = dsn.before()
        self.envelope = dsn.envelope(before)
        self.raw = before + back + dsn.after()
        parsed = BytesParser(policy=policy.default).parsebytes(self.raw)
        assert isinstance(parsed, EmailMessage)
        self.top = parsed
        self.words, self.status, self.third = parsed.iter_parts() if len(parsed.get_payload()) == 3 else (parsed,) * 3

    @property
    def text(self) -> str:
        text: str = self.words.get_content()
        return text.replace("\r\n", "\n")

    def sentences(self) -> str:
        """The words, without their line ends."""
        return " ".join(self.text.split())

    @property
    def groups(self) -> Sequence[Any]:
        """The groups of fields of the part for programs: first the message's, then each recipient's."""
        if self.status.get_content_type() == "message/delivery-status":
            groups: Sequence[Any] = self.status.get_payload()
            return groups
        parser = BytesParser(policy=policy.SMTPUTF8)
        body = self.status.as_bytes(policy=policy.SMTPUTF8).partition(b"\n\n")[2].replace(b"\r", b"")
        body = body or self.status.as_bytes(policy=policy.SMTPUTF8).partition(b"\r\n\r\n")[2].replace(b"\r", b"")
        return [parser.parsebytes(group) for group in body.strip().split(b"\n\n")]


# A failure, in full.


def test_the_header_of_a_failure() -> None:
    read = Read(notice())
    assert dict(read.top.items()) == {
        "Date": read.top["Date"],
        "From": "Mail Delivery System <MAILER-DAEMON@mta.test>",
        "To": "me@here.test",
        "Subject": "Undelivered mail returned to sender",
        "Message-ID": "<b0undary@mta.test>",
        "In-Reply-To": "<1@here.test>",
        "References": "<1@here.test>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/report; report-type="delivery-status"; boundary="b0undary"',
    }
    assert parsedate_to_datetime(read.top["Date"]).timestamp() == NOW
    assert not read.top.defects
    assert b"\n" not in read.raw.replace(b"\r\n", b"")
    assert max(map(len, read.raw.split(b"\r\n"))) < 120


def test_the_parts_of_a_failure() -> None:
    read = Read(notice())
    assert [part.get_content_type() for part in (read.words, read.status, read.third)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert read.words.get_content_charset() == "us-ascii"
    assert read.third.get_content() == HEADER.decode().rstrip() + "\r\n"


def test_what_a_failure_says_to_people() -> None:
    text = Read(notice("gone@there.test")).text
    assert text.startswith("This is the mail system at mta.test.\n\nYour message could not be delivered")
    assert "<gone@there.test>:\n    mx.there.test said: 550 5.1.1 no such user\n    Please check the address:" in text
    assert "\nThe words.\n" in text
    assert "queue id here was 00000000000007." in text


def test_what_a_failure_says_to_programs() -> None:
    read = Read(notice("gone@there.test", orcpt="rfc822;first+2Bx@there.test"), envid="id+20x")
    about, recipient = read.groups
    assert dict(about.items()) == {
        "Original-Envelope-Id": "id x",
        "Reporting-MTA": "dns; mta.test",
        "Arrival-Date": about["Arrival-Date"],
    }
    assert parsedate_to_datetime(about["Arrival-Date"]).timestamp() == ARRIVED
    assert dict(recipient.items()) == {
        "Original-Recipient": "rfc822; first+x@there.test",
        "Final-Recipient": "rfc822; gone@there.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.there.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": recipient["Last-Attempt-Date"],
    }
    assert parsedate_to_datetime(recipient["Last-Attempt-Date"]).timestamp() == ATTEMPTED
    assert "<gone@there.test> (sent to <first+x@there.test>):" in read.text


def test_each_recipient_has_its_own_group() -> None:
    read = Read(
        notice("one@a.test"),
        notice("two@b.test", Reply(552, "5.3.4", "too big"), ""),
        notice("three@c.test", Reply(550, "", "no"), "mx.c.test"),
    )
    _, one, two, three = read.groups
    assert [group["Final-Recipient"] for group in (one, two, three)] == [
        "rfc822; one@a.test",
        "rfc822; two@b.test",
        "rfc822; three@c.test",
    ]
    assert [group["Status"] for group in (one, two, three)] == ["5.1.1", "5.3.4", "5.0.0"]
    # Nobody else said it: there is no remote server to name.
    assert two["Remote-MTA"] is None
    assert two["Diagnostic-Code"] == "x-mtatwist; 552 5.3.4 too big"
    assert "<two@b.test>:\n    552 5.3.4 too big\n    The message is too large" in read.text
    # No advice where the code tells nothing.
    assert "<three@c.test>:\n    mx.c.test said: 550 no\n\n" in read.text


def test_a_recipient_that_was_tried_for_too_long() -> None:
    read = Read(notice(reply=BUSY, expired=True))
    recipient = read.groups[1]
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.4.7"
    assert recipient["Diagnostic-Code"] == "smtp; 450 4.2.1 busy"
    assert "mx.there.test said: 450 4.2.1 busy" in read.text
    assert re.search(r"Delivery was tried until \w+, \d+ Nov 2023 \d\d:\d\d:\d\d [+-]\d{4}\.", read.sentences())


# The other kinds.


def test_a_delay() -> None:
    read = Read(notice(reply=BUSY), kind=Kind.DELAYED)
    recipient = read.groups[1]
    assert read.top["Subject"] == "Delivery of your mail is delayed"
    assert read.top["Auto-Submitted"] == "auto-replied"
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.2.1")
    assert parsedate_to_datetime(recipient["Will-Retry-Until"]).timestamp() == UNTIL
    assert recipient["Diagnostic-Code"] == "smtp; 450 4.2.1 busy"
    assert "has not been delivered" in read.text
    assert "need not send it again" in read.sentences()
    assert f"delivery is tried until {recipient['Will-Retry-Until']}." in read.sentences()
    assert "mx.there.test said: 450 4.2.1 busy" in read.text


@pytest.mark.parametrize(
    ("kind", "subject", "says"),
    [
        (Kind.DELIVERED, "Your mail was delivered", "was delivered to the mailboxes"),
        (Kind.RELAYED, "Your mail was passed on", "These send no reports"),
    ],
)
def test_a_success(kind: Kind, subject: str, says: str) -> None:
    read = Read(notice(reply=FINE), kind=kind)
    recipient = read.groups[1]
    assert read.top["Subject"] == subject
    assert (recipient["Action"], recipient["Status"]) == (kind.value, "2.0.0")
    assert recipient["Remote-MTA"] == "dns; mx.there.test"
    assert recipient["Will-Retry-Until"] is None
    assert says in read.sentences()
    assert "mx.there.test took it: 250 2.0.0 Ok: queued as 17" in read.text


def test_a_success_in_a_mailbox_here_names_no_other_server() -> None:
    read = Read(notice(reply=Reply(250, "2.0.0", "Delivered to the mailbox"), host=""), kind=Kind.DELIVERED)
    assert read.groups[1]["Remote-MTA"] is None
    assert "took it" not in read.text
    assert ">: It was delivered to the mailbox." in read.sentences()


@pytest.mark.parametrize(
    ("host", "remote", "says"),
    [
        ("mx.there.test", "dns; mx.there.test", "mx.there.test"),
        ("192.0.2.7", "dns; [192.0.2.7]", "192.0.2.7"),
        ("2001:db8::7", "dns; [IPv6:2001:db8::7]", "2001:db8::7"),
        ("unix:/run/secret/lmtp", None, "Our mailbox server"),
    ],
)
def test_who_said_it(host: str, remote: str | None, says: str) -> None:
    read = Read(notice(host=host))
    assert read.groups[1]["Remote-MTA"] == remote
    assert read.groups[1]["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert f"    {says} said: 550 5.1.1 no such user\n" in read.text
    assert b"secret" not in read.raw


@pytest.mark.parametrize(
    ("kind", "reply", "status"),
    [
        (Kind.FAILED, Reply(550, "5.7.1", ""), "5.7.1"),
        (Kind.FAILED, Reply(450, "4.7.1", ""), "5.7.1"),
        (Kind.FAILED, Reply(550, "", ""), "5.0.0"),
        (Kind.DELAYED, Reply(530, "5.7.0", ""), "4.7.0"),
        (Kind.DELAYED, Reply(450, "", ""), "4.0.0"),
        (Kind.DELIVERED, Reply(250, "", ""), "2.0.0"),
        (Kind.RELAYED, Reply(250, "2.6.0", ""), "2.6.0"),
    ],
)
def test_the_status_is_of_the_class_of_the_action(kind: Kind, reply: Reply, status: str) -> None:
    assert Read(notice(reply=reply), kind=kind).groups[1]["Status"] == status


@pytest.mark.parametrize(
    ("enhanced", "advice"),
    [
        ("5.1.1", "check the address"),
        ("5.1.2", "behind the @"),
        ("5.1.7", "Your own address"),
        ("5.1.8", "Your own address"),
        ("5.1.10", "takes no mail"),
        ("5.2.2", "mailbox can't take the message"),
        ("5.3.4", "too large"),
        ("5.4.4", "could not be reached"),
        ("5.4.6", "set up so that the message can't get there"),
        ("5.6.3", "message of this form"),
        ("5.6.7", "letters beyond ASCII"),
        ("5.7.1", "rule of its own"),
    ],
)
def test_a_failure_says_what_can_be_done(enhanced: str, advice: str) -> None:
    assert advice in Read(notice(reply=Reply(550, enhanced, "no"))).sentences()


# Its envelope, and that of the message.


def test_its_envelope() -> None:
    envelope = Read(notice(), envid="id", reverse_path="Me@Here.test").envelope
    (recipient,) = envelope.recipients
    assert (envelope.reverse_path, envelope.ret, envelope.envid) == ("", "", "")
    assert (recipient.address, recipient.domain, recipient.notify) == ("Me@Here.test", "here.test", "NEVER")
    assert (envelope.body_type, envelope.smtputf8, envelope.received_at) == ("", False, NOW)


@pytest.mark.parametrize("header", [b"", b"Message-ID: no\r\n\r\n", b"Message-ID: <a b>\r\n\r\n", b"X: <1@x>\r\n\r\n"])
def test_without_a_message_id_it_answers_none(header: bytes) -> None:
    read = Read(notice(), header=header)
    assert read.top["In-Reply-To"] is None
    assert read.top["References"] is None


@pytest.mark.parametrize(
    "field", [b"message-id:<1@x.test>", b"Message-ID:\r\n <1@x.test> (no)", b"MESSAGE-ID : \t<1@x.test>"]
)
def test_it_answers_the_message_id(field: bytes) -> None:
    assert Read(notice(), header=b"Subject: x\r\n" + field + b"\r\n\r\n").top["In-Reply-To"] == "<1@x.test>"


@pytest.mark.parametrize("envid", ["+zz", "+0D+0AX", "é", ""])
def test_an_envelope_id_that_is_none_is_left_out(envid: str) -> None:
    assert Read(notice(), envid=envid).groups[0]["Original-Envelope-Id"] is None


@pytest.mark.parametrize("orcpt", ["rfc822", "rfc822;", "rfc822;a+0Ab", ";x", "rfc822;" + "x" * 1000, "utf-8;\ud800"])
def test_an_original_recipient_that_is_none_is_left_out(orcpt: str) -> None:
    read = Read(notice(orcpt=orcpt))
    assert read.groups[1]["Original-Recipient"] is None
    assert "sent to" not in read.text or len(orcpt) > 1000


def test_an_original_recipient_of_another_mail_system() -> None:
    read = Read(notice(orcpt="X400;/c+3Dde/"))
    assert read.groups[1]["Original-Recipient"] == "x400; /c=de/"
    assert "sent to" not in read.text


# What goes back.


def test_the_whole_message() -> None:
    whole = HEADER + b"body\r\n--b\r\nno line end"
    read = Read(notice(), whole=whole)
    assert read.third.get_content_type() == "message/rfc822"
    assert read.third.get_content()["Subject"] == "the original"
    assert read.third.get_content().get_content() == "body\r\n--b\r\nno line end"
    assert read.envelope.body_type == ""


def test_a_whole_message_with_an_8bit_body() -> None:
    read = Read(notice(), whole=HEADER + "blåbær\r\n".encode())
    assert read.third.get_content_type() == "message/rfc822"
    assert read.third["Content-Transfer-Encoding"] == read.top["Content-Transfer-Encoding"] == "8bit"
    assert (read.envelope.body_type, read.envelope.smtputf8) == ("8BITMIME", False)


@pytest.mark.parametrize(("whole", "kind"), [(b"body\r\n", "message/global"), (None, "message/global-headers")])
def test_a_header_in_utf8(whole: bytes | None, kind: str) -> None:
    header = "Subject: blåbær\r\nTo: you\r\n\r\n".encode()
    read = Read(notice(), header=header, whole=None if whole is None else header + whole)
    assert read.third.get_content_type() == kind
    assert read.third["Content-Transfer-Encoding"] == read.top["Content-Transfer-Encoding"] == "8bit"
    assert (read.envelope.body_type, read.envelope.smtputf8) == ("8BITMIME", False)
    assert header.rstrip() in read.raw


def test_a_header_in_no_charset_that_is_known() -> None:
    read = Read(notice(), header=b"Subject: bl\xe5b\xe6r\r\n\r\n")
    assert read.third.get_content_type() == "text/rfc822-headers"
    assert read.third["Content-Transfer-Encoding"] == "8bit"
    assert read.envelope.body_type == "8BITMIME"


# Addresses beyond ASCII (RFC 6533).

BLÅ = "blå@bær.test"


def test_addresses_beyond_ascii_for_who_uses_them() -> None:
    read = Read(notice(BLÅ, orcpt=r"utf-8;gr\x{F8}nn@x.test"), smtputf8=True, reverse_path="rød@x.test")
    assert read.status.get_content_type() == "message/global-delivery-status"
    assert read.status["Content-Transfer-Encoding"] == "8bit"
    _, recipient = read.groups
    assert recipient["Final-Recipient"] == f"utf-8; {BLÅ}"
    assert recipient["Original-Recipient"] == "utf-8; grønn@x.test"
    assert read.words.get_content_charset() == "utf-8"
    assert f"<{BLÅ}> (sent to <grønn@x.test>):" in read.text
    assert "To: <rød@x.test>\r\n".encode() in read.raw
    assert (read.envelope.body_type, read.envelope.smtputf8) == ("8BITMIME", True)
    assert read.envelope.recipients[0].address == "rød@x.test"


def test_addresses_beyond_ascii_for_who_does_not() -> None:
    """ORCPT may name one in a transaction without SMTPUTF8."""
    read = Read(notice("you@there.test", orcpt=r"utf-8;gr\x{F8}nn@x.test"))
    assert read.status.get_content_type() == "message/delivery-status"
    assert read.groups[1]["Original-Recipient"] == r"utf-8; gr\x{F8}nn@x.test"
    assert not read.envelope.smtputf8


def test_a_sender_whose_domain_alone_is_beyond_ascii() -> None:
    """Its A-labels need no SMTPUTF8."""
    read = Read(notice(BLÅ), smtputf8=True, reverse_path="me@Grønn.test")
    assert read.top["To"] == "me@xn--grnn-hra.test"
    assert read.envelope.recipients[0].address == "me@xn--grnn-hra.test"
    assert read.envelope.recipients[0].domain == "xn--grnn-hra.test"
    assert (read.envelope.body_type, read.envelope.smtputf8) == ("8BITMIME", False)


def test_the_longest_addresses_stand_whole() -> None:
    address = "å" * 32 + "@" + ("å" * 31 + ".") * 4 + "test"
    assert f"utf-8; {address}" == Read(notice(address), smtputf8=True).groups[1]["Final-Recipient"]
    raw = Read(notice(address)).raw
    assert raw.count(rb"\x{E5}") == 32 + 31 * 4
    assert max(map(len, raw.split(b"\r\n"))) <= 998


# Whatever others say.


@pytest.mark.parametrize("header", [b"", b"\r\n", b"Subject: no end", b"X: " + b"y" * 65_000 + b"\r\n\r\n"])
def test_any_header_makes_a_whole_report(header: bytes) -> None:
    read = Read(notice(), header=header)
    assert len(read.top.get_payload()) == 3
    assert read.raw.endswith(b"\r\n--b0undary--\r\n")


WORDS = (
    "\r", "\n", "\r\n", "\r\n\r\n", "Bcc: evil@x.test", "--b0undary", "é", "\0", "\x85", "\u2028", "\u202e", " ",
    "a", ":", "<", ">", "+0D+0A", r"\x{D}", r"\x{2028}", "\ud800", "\x1b[2J", ";",
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@settings(max_examples=200, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.booleans(), st.sampled_from(Kind))
def test_nothing_others_say_becomes_a_field_or_a_part(
    text: str, address: str, host: str, reverse_path: str, envid: str, smtputf8: bool, kind: Kind
) -> None:
    """Whether or not such addresses and hosts can ever get here."""
    one = notice(f"a{address}@x.test", Reply(550, "5.1.1", text), f"mx{host}", orcpt=f"utf-8;{address}")
    read = Read(one, reverse_path=f"me{reverse_path}", envid=f"e{envid}", smtputf8=smtputf8, kind=kind)
    assert set(read.top.keys()) - {"Content-Transfer-Encoding"} == {
        "Date", "From", "To", "Subject", "Message-ID", "In-Reply-To", "References", "Auto-Submitted", "MIME-Version",
        "Content-Type",
    }  # fmt: skip
    assert len(read.top.get_payload()) == 3
    lines = read.raw.decode().split("\r\n")
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert [line for line in lines if line.startswith("--b0undary")] == ["--b0undary"] * 3 + ["--b0undary--"]
    assert max(len(line.encode()) for line in lines) <= 998
    about, recipient = read.groups
    assert set(about.keys()) - {"Original-Envelope-Id"} == {"Reporting-MTA", "Arrival-Date"}
    assert set(recipient.keys()) - {"Original-Recipient", "Will-Retry-Until"} == {
        "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
    }  # fmt: skip


def test_an_endless_reply_makes_no_endless_report() -> None:
    read = Read(notice(reply=Reply(550, "5.7.1", "\n".join(["x" * 2000] * 100))))
    assert max(map(len, read.raw.split(b"\r\n"))) <= 998
    assert len(read.raw) < 5000
