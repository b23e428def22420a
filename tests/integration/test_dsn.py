"""DSNs as a sender finds them in a mailbox, from a real server."""

from __future__ import annotations

import mailbox
import re
from collections import defaultdict
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client, stuffed
from rigs.content import HEAD
from rigs.dovecot import DOMAIN, Dovecot
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"
NO_DSN = [b"250-sink.test", b"250-PIPELINING", b"250 8BITMIME"]
MIB = 2**20


def config(port: int, mailboxes: Path, **tables: Any) -> Config:
    """Mail for the clients goes into Maildirs, everything else to the sink."""
    made = relaying_to(port, **tables)
    made["route"].insert(
        0, {"domain": "client.test", "transport": "maildir", "next_hop": str(mailboxes / "{local}"), "tls": "none"}
    )
    return made


def send(mta: Mta, *rcpt: str, mail: str = f"<{SENDER}>", content: bytes = HEAD + b"the body\r\n") -> None:
    """``mail`` and ``rcpt``: paths and parameters, as they stand behind the colons."""
    with Client(mta.address()) as client:
        client.ehlo()
        client.expect(250, f"MAIL FROM:{mail}")
        for path in rcpt:
            client.expect(250, f"RCPT TO:{path}")
        client.expect(354, "DATA")
        client.send(stuffed(content))
        assert client.reply().code == 250


def drained(mta: Mta) -> None:
    wait_until(lambda: mta.queued() == 0, 30, lambda: f"the queue is empty: {mta.log()[-2000:]}")


class Dsn:
    """One that has arrived."""

    def __init__(self, raw: bytes) -> None:
        parsed = BytesParser(policy=policy.default).parsebytes(raw)
        assert isinstance(parsed, EmailMessage)
        self.raw = raw
        self.top = parsed
        self.words, self.status, self.third = parsed.iter_parts()
        if self.status.get_content_type() == "message/delivery-status":
            groups: Any = self.status.get_payload()
        else:
            part = raw.split(b"global-delivery-status", 1)[1].partition(b"\n\n")[2].partition(b"\n\n--")[0]
            groups = [BytesParser(policy=policy.SMTPUTF8).parsebytes(group) for group in part.split(b"\n\n")]
        self.about, *self.recipients = groups
        self.text = " ".join(str(self.words.get_content()).split())

    @property
    def actions(self) -> list[tuple[str, str, str]]:
        return [(one["Final-Recipient"], one["Action"], one["Status"]) for one in self.recipients]


def arrived(mailboxes: Path, count: int, local: str = "sender") -> list[Dsn]:
    """The DSNs in a mailbox, once there are so many."""
    path = mailboxes / local

    def found() -> list[bytes]:
        raws = [file.read_bytes() for file in path.glob("new/*")]
        return raws if len(raws) >= count else []

    raws = wait_until(found, 60, lambda: f"{count} DSNs in {path}")
    assert len(raws) == count
    return [Dsn(raw) for raw in raws]


def test_a_failure_with_all_that_was_asked_for(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    sink.policy = lambda stage, what: "550 5.1.1 no such user here" if what.startswith("gone") else None
    with make_mta(config(sink.port, tmp_path)) as mta:
        send(
            mta,
            "<gone@sink.test> NOTIFY=FAILURE ORCPT=rfc822;first+2Bx@sink.test",
            "<gone-too@sink.test>",
            "<gone-quietly@sink.test> NOTIFY=NEVER",
            "<gone-unasked@sink.test> NOTIFY=SUCCESS,DELAY",
            "<there@sink.test>",
            mail=f"<{SENDER}> RET=FULL ENVID=QQ+2B314159",
            content=b"Message-ID: <17@client.test>\r\n" + HEAD + b"the body\r\n",
        )
        (dsn,) = arrived(tmp_path, 1)
        drained(mta)
    assert dsn.actions == [
        ("rfc822; gone@sink.test", "failed", "5.1.1"),
        ("rfc822; gone-too@sink.test", "failed", "5.1.1"),
    ]
    assert dsn.about["Original-Envelope-Id"] == "QQ+314159"
    assert dsn.about["Reporting-MTA"] == "dns; mta.test"
    assert dsn.recipients[0]["Original-Recipient"] == "rfc822; first+x@sink.test"
    assert dsn.recipients[0]["Remote-MTA"] == "dns; [127.0.0.1]"
    assert dsn.recipients[0]["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user here"
    assert dsn.top["To"] == SENDER
    assert dsn.top["In-Reply-To"] == "<17@client.test>"
    assert dsn.top["Auto-Submitted"] == "auto-replied"
    assert dsn.top["Return-Path"] == "<>"
    assert "127.0.0.1 said: 550 5.1.1 no such user here" in dsn.text
    assert dsn.third.get_content_type() == "message/rfc822"
    assert dsn.third.get_content().get_content() == "the body\n"
    assert len(sink.arrivals) == 1


def test_a_delay_is_told_once_and_the_message_arrives(make_mta: MakeMta, tmp_path: Path) -> None:
    port = free_port()
    relay = {"retry": "1s", "warn_after": "2s", "max_age": "1h"}
    with make_mta(config(port, tmp_path, relay=relay)) as mta:
        send(mta, "<a@sink.test>", "<b@sink.test> NOTIFY=FAILURE")
        (dsn,) = arrived(tmp_path, 1)
        attempts = mta.log().count('"deferred"')
        wait_until(lambda: mta.log().count('"deferred"') > attempts, 60, "another attempt fails")
        with Sink(port=port) as sink:
            sink.wait_for(1, 60)
            drained(mta)
        arrived(tmp_path, 1)
    assert dsn.actions == [("rfc822; a@sink.test", "delayed", "4.4.1")]
    until, arrival = (
        parsedate_to_datetime(d) for d in (dsn.recipients[0]["Will-Retry-Until"], dsn.about["Arrival-Date"])
    )
    assert (until - arrival).total_seconds() == 3600
    assert "need not send it again" in dsn.text
    assert dsn.third.get_content_type() == "text/rfc822-headers"
    assert b"the body" not in dsn.raw


def test_a_delay_survives_a_crash(make_mta: MakeMta, tmp_path: Path) -> None:
    """It is remembered with the DSN: a server that starts again sends no second one."""
    relay = {"retry": "1s", "warn_after": "1s", "max_age": "1h"}
    mta = make_mta(config(free_port(), tmp_path, relay=relay))
    with mta:
        send(mta, "<a@sink.test>")
        arrived(tmp_path, 1)
        # Or the crash would have the DSN delivered again.
        wait_until(lambda: mta.queued() == 1, 10, "its delivery is recorded")
        mta.kill()
    with mta:
        wait_until(lambda: (log := mta.process.output()) and '"deferred"' in log, 60, "an attempt fails")
        arrived(tmp_path, 1)


def test_success_is_told_by_who_answers_for_it(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    with make_mta(config(sink.port, tmp_path)) as mta:
        # The next hop was told, and tells the sender.
        send(mta, "<a@sink.test> NOTIFY=SUCCESS")
        sink.wait_for(1)
        drained(mta)
        send(mta, "<friend@client.test> NOTIFY=SUCCESS,FAILURE", "<other@client.test>")
        (delivered,) = arrived(tmp_path, 1)
    sink.extensions = NO_DSN
    with make_mta(config(sink.port, tmp_path)) as mta:
        send(mta, "<b@sink.test> NOTIFY=SUCCESS", "<c@sink.test>")
        drained(mta)
        relayed = next(dsn for dsn in arrived(tmp_path, 2) if dsn.raw != delivered.raw)
    assert delivered.actions == [("rfc822; friend@client.test", "delivered", "2.0.0")]
    assert relayed.actions == [("rfc822; b@sink.test", "relayed", "2.0.0")]
    assert relayed.recipients[0]["Diagnostic-Code"] == "smtp; 250 2.0.0 taken"


def test_success_by_lmtp_is_a_delivery(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """To a real Dovecot, which sends no reports."""
    with Dovecot(tmp_path, {"alice": 100 * MIB, "bob": 2_000}) as dovecot:
        settings = config(sink.port, tmp_path / "mailboxes")
        settings["route"].insert(0, {"domain": DOMAIN, "transport": "lmtp", "next_hop": dovecot.unix, "tls": "none"})
        with make_mta(settings) as mta:
            wishes = [f"<alice@{DOMAIN}> NOTIFY=SUCCESS,FAILURE", f"<bob@{DOMAIN}> NOTIFY=SUCCESS,FAILURE"]
            send(mta, *wishes, content=HEAD + (b"x" * 98 + b"\r\n") * 500)
            dsns = arrived(tmp_path / "mailboxes", 2)
            drained(mta)
    delivered, failed = sorted(dsns, key=lambda dsn: dsn.actions)
    assert delivered.actions == [(f"rfc822; alice@{DOMAIN}", "delivered", "2.0.0")]
    assert re.search(r"Our mailbox server took it: 250 2\.0\.0 <alice@dovecot\.test> \S+ Saved", delivered.text)
    assert failed.actions[0][:2] == (f"rfc822; bob@{DOMAIN}", "failed")
    assert "Our mailbox server said: 552 5.2.2" in failed.text
    assert b"unix:" not in delivered.raw + failed.raw


def test_nothing_is_ever_told_to_nobody(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    sink.policy = lambda stage, what: "550 5.7.1 no"
    with make_mta(config(sink.port, tmp_path)) as mta:
        send(mta, "<gone@sink.test> NOTIFY=FAILURE,SUCCESS", "<friend@client.test> NOTIFY=SUCCESS", mail="<>")
        drained(mta)
    # All is written once it has stopped.
    assert '"undeliverable_report_dropped"' in mta.log()
    assert not (tmp_path / "sender").exists()
    assert len(mailbox.Maildir(tmp_path / "friend")) == 1


def test_what_can_be_no_mailbox_is_refused_and_not_returned(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    with make_mta(config(sink.port, tmp_path)) as mta, Client(mta.address()) as client:
        client.ehlo()
        client.expect(250, f"MAIL FROM:<{SENDER}>")
        reply = client.expect(550, 'RCPT TO:<"../friend"@client.test>')
        assert reply.lines == ["5.1.3 This address can't be a mailbox here"]


def test_a_sender_beyond_ascii(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """The sink takes no such recipients: that is what the sender is told, in UTF-8."""
    with make_mta(config(sink.port, tmp_path)) as mta:
        header = "From: <rød@client.test>\r\nSubject: blåbær\r\n\r\n".encode()
        send(mta, "<blå@sink.test>", mail="<rød@client.test> SMTPUTF8 BODY=8BITMIME", content=header)
        (dsn,) = arrived(tmp_path, 1, "rød")
        drained(mta)
    assert dsn.status.get_content_type() == "message/global-delivery-status"
    assert dsn.actions == [("utf-8; blå@sink.test", "failed", "5.6.7")]
    assert dsn.third.get_content_type() == "message/global-headers"
    assert "To: <rød@client.test>\n".encode() in dsn.raw
    assert "Subject: blåbær\n".encode() in dsn.raw
    assert "letters beyond ASCII" in dsn.text


@pytest.mark.fresh_start
def test_a_large_message_goes_back_whole_and_is_never_in_memory(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    sink.policy = lambda stage, what: "550 5.1.1 gone" if what == "gone@sink.test" else None
    content = HEAD + (b"x" * 98 + b"\r\n") * (24 * MIB // 100)
    with make_mta(config(sink.port, tmp_path, relay={"return_size": "25MiB"})) as mta:
        before = mta.process.peak_memory()
        send(mta, "<gone@sink.test>", mail=f"<{SENDER}> RET=FULL", content=content)
        (dsn,) = arrived(tmp_path, 1)
        drained(mta)
        grown = mta.process.peak_memory() - before
    assert content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n") in dsn.raw
    assert grown < 12 * MIB, f"{grown / MIB:.1f} MiB more"


def test_a_message_too_large_to_go_back_sends_its_header(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    sink.policy = lambda stage, what: "550 5.1.1 gone" if what == "gone@sink.test" else None
    with make_mta(config(sink.port, tmp_path)) as mta:
        send(mta, "<gone@sink.test>", mail=f"<{SENDER}> RET=FULL", content=HEAD + (b"x" * 98 + b"\r\n") * 11_000)
        (dsn,) = arrived(tmp_path, 1)
    assert dsn.third.get_content_type() == "text/rfc822-headers"
    assert "All of it would be more than the 1 MiB that are returned from here." in dsn.text
    assert "Subject: awkward" in dsn.third.as_string()


def test_every_failure_is_told_once_whatever_crashes(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """A DSN that is delivered twice is still one DSN, with one Message-ID."""
    sink.policy = lambda stage, what: "550 5.1.1 gone" if what == "gone@sink.test" else None
    mta = make_mta(config(sink.port, tmp_path))
    sent: set[str] = set()
    for kill in range(4):
        with mta:
            for number in range(40):
                name = f"{kill}-{number}"
                send(mta, "<gone@sink.test>", mail=f"<{SENDER}> ENVID={name}")
                sent.add(name)
            # In the middle of whatever it is doing.
            if kill < 3:
                mta.kill()
            else:
                drained(mta)
    made = defaultdict(set)
    for file in (tmp_path / "sender" / "new").iterdir():
        dsn = Dsn(file.read_bytes())
        assert dsn.actions == [("rfc822; gone@sink.test", "failed", "5.1.1")]
        made[str(dsn.about["Original-Envelope-Id"])].add(str(dsn.top["Message-ID"]))
    assert set(made) == sent
    assert {len(ids) for ids in made.values()} == {1}
