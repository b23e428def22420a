"""Aliases and groups at the door: who joins a message, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receive.whole import Whole
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.mail import smtp

from mtatwist.envelope import Recipient
from mtatwist.receive.delivery import Delivery
from mtatwist.smtp.address import Address
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Session, Transaction

ALIASES = """\
team: ann, bob, carol@away.test
all: team, dan, ann@HERE.test
postmaster: ann, bob
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    (tmp_path / "aliases").write_text(ALIASES)
    return Whole(monkeypatch, tmp_path, {"relay.aliases": '"aliases"', "relay.expansion": "4"})


def got(server: Whole) -> list[tuple[str, str, str]]:
    """Address, NOTIFY and ORCPT of those who get the message."""
    return [(one.address, one.notify, one.orcpt) for one in server.recipients()]


def test_each_gets_one_copy(server: Whole) -> None:
    """By whatever ways it is reached; the wishes of the first way count."""
    client = server.connect()
    client.say("EHLO client.test", "MAIL FROM:<me@away.test>")
    client.say(
        "RCPT TO:<bob@HERE.test> NOTIFY=NEVER", "RCPT TO:<Team@here.test> NOTIFY=FAILURE", "RCPT TO:<team@here.test>"
    )
    client.say("DATA", b"Subject: x\r\n\r\n.\r\n")
    assert got(server) == [
        ("bob@HERE.test", "NEVER", ""),
        ("ann@here.test", "FAILURE", "rfc822;Team@here.test"),
        ("carol@away.test", "FAILURE", "rfc822;Team@here.test"),
    ]
    assert [one.index for one in server.recipients()] == [0, 1, 2]


@pytest.mark.parametrize("aliases", [True, False])
def test_case_makes_no_second_copy_at_our_domains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aliases: bool
) -> None:
    """With and without anybody who looks recipients up. Elsewhere it may make a second mailbox."""
    (tmp_path / "aliases").write_text(ALIASES)
    server = Whole(monkeypatch, tmp_path, {"relay.aliases": '"aliases"'} if aliases else {})
    client = server.connect(peer="198.51.100.7")
    paths = ["user2@here.test", "USER2@HERE.test", "É@here.test", "e\u0301@here.test", "a@away.test", "A@away.test"]
    client.begin(*paths, mail="MAIL FROM:<me@away.test> SMTPUTF8")
    client.say("DATA", b"Subject: x\r\n\r\n.\r\n")
    assert [one.address for one in server.recipients()] == [
        "user2@here.test",
        "É@here.test",
        "a@away.test",
        "A@away.test",
    ]


def test_what_was_named_is_told(server: Whole) -> None:
    """To the log always, to the receivers only where it is no secret of theirs."""
    with capturedLogs() as events:
        server.connect().send("team@here.test")
        server.connect().send("team@here.test", "ann@here.test")
        server.connect().send("ann@here.test")
    accepted = [event for event in events if event["log_format"] == "accepted"]
    assert [event.get("named") for event in accepted] == [
        ["team@here.test"],
        ["team@here.test", "ann@here.test"],
        None,
    ]
    assert accepted[0]["forward_paths"] == ["ann@here.test", "bob@here.test", "carol@away.test"]
    bodies = [message.body for message in server.spool.messages.values()]
    assert [b"for <" in body for body in bodies] == [True, False, True]
    assert b"for <team@here.test>" in bodies[0]


@pytest.mark.parametrize("address", ["postmaster", "Postmaster@here.test"])
def test_postmaster_is_an_alias_too(server: Whole, address: str) -> None:
    server.connect().send(address)
    assert [one.address for one in server.recipients()] == ["ann@here.test", "bob@here.test"]


def test_a_group_that_is_too_much_with_the_others_is_offered_again(server: Whole) -> None:
    replies = server.connect().begin("x@here.test", "y@here.test", "team@here.test", "z@here.test")
    assert [line[:9] for line in replies.splitlines()[1:]] == ["250 2.1.5", "250 2.1.5", "452 4.5.3", "250 2.1.5"]


def test_a_group_alone_may_fill_the_limit(server: Whole) -> None:
    assert server.connect().begin("all@here.test").splitlines()[-1].startswith("250")


def test_the_limit_counts_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aliases").write_text(ALIASES)
    server = Whole(monkeypatch, tmp_path, {"relay.aliases": '"aliases"', "limits.recipients": "2"})
    # The same ones over and over are no way around it.
    replies = server.connect().begin("team@here.test", "ann@here.test", "ann@here.test", "bob@here.test")
    assert [line[:3] for line in replies.splitlines()[1:]] == ["250", "250", "452", "452"]


def test_commands_wait_for_a_recipient_that_is_looked_up(server: Whole) -> None:
    asked: list[Deferred[Any]] = []

    def slowly(recipient: Recipient) -> Deferred[Any]:
        asked.append(Deferred())
        return asked[-1]

    client = server.connect()
    client.say("EHLO client.test", "MAIL FROM:<me@away.test>")
    object.__setattr__(door_of(client), "resolve", slowly)
    assert client.say("RCPT TO:<a@here.test>", "RCPT TO:<b@here.test>", "DATA") == ""
    asked[0].callback([Recipient(0, "x@away.test", "away.test")])
    assert client.heard() == "250 2.1.5 Recipient ok\r\n"
    asked[1].callback(Reply(550, "5.1.1", "no"))
    assert client.heard().splitlines()[0] == "550 5.1.1 no"
    client.say(b"Subject: x\r\n\r\n.\r\n")
    assert [one.address for one in server.recipients()] == ["x@away.test"]


def test_an_exception_in_looking_up_is_our_trouble(server: Whole) -> None:
    async def crash(recipient: Recipient) -> Any:
        raise RuntimeError("a secret")

    client = server.connect()
    client.begin("a@here.test")
    object.__setattr__(door_of(client), "resolve", crash)
    with capturedLogs():
        said = client.say("RCPT TO:<b@here.test>")
    assert said.startswith("451 4.3.0")
    assert "secret" not in said
    assert server.metrics.recipient_crashes.value == 1


def test_any_protocol_of_twisted_mail_expands(server: Whole) -> None:
    client = server.connect()
    client.begin("ann@here.test")
    delivery = Delivery(door_of(client), Session("0", "mx", "192.0.2.7"))
    delivery.validateFrom((b"client.test", b""), smtp.Address(b"me@away.test"))
    user = smtp.User(b"team@here.test", (b"client.test", b""), None, smtp.Address(b"me@away.test"))
    made: list[Any] = []
    delivery.validateTo(user).addCallback(made.append)
    message = made[0]()
    message.lineReceived(b"Subject: x")
    message.eomReceived()
    assert [one.address for one in server.recipients()] == ["ann@here.test", "bob@here.test", "carol@away.test"]


def test_without_tables_recipients_are_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Whole(monkeypatch, tmp_path)
    client = server.connect()
    client.begin("ann@here.test")
    delivery = Delivery(door_of(client), Session("0", "mx", "192.0.2.7"))
    transaction = Transaction(Session("0", "mx", "192.0.2.7"), Address("me", "away.test"))
    assert delivery.rcpt(transaction, Recipient(0, "bob@here.test", "here.test")) is None


def door_of(client: Any) -> Any:
    """What the session's deliveries share."""
    return client.protocol.delivery._door
