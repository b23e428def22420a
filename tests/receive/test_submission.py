"""A session of somebody who has logged in: what its messages become, and when they count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from receive.whole import ALICE, HELD, SUBMISSION, Session, Whole
from twisted.mail.smtp import Address, User

from mtatwist.receive.delivery import Delivery

MAIL, RCPT = "MAIL FROM:<alice@example.org>", "RCPT TO:<you@away.test>"
TWO = {**SUBMISSION, "submission.messages": '["2/h"]'}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Whole:
    return Whole(monkeypatch, tmp_path, TWO)


def alice(server: Whole, *lines: str) -> Session:
    session = server.connect()
    session.say("EHLO client.test", ALICE, *lines)
    return session


def code(said: str) -> int:
    return int(said.splitlines()[-1][:3])


def stored(server: Whole, number: int = 1) -> bytes:
    """The message behind its Received field."""
    body: bytes = server.spool.messages[number].body
    return re.sub(rb"\AReceived:.*\r\n(?:\t.*\r\n)*", b"", body)


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        (b"From: alice@example.org\r\n\r\nhi\r\n", b"From: alice@example.org\r\n\r\nhi\r\n"),
        # What would read as the rest of another field is kept apart.
        (b" hi\r\n", b"\r\n hi\r\n"),
        (b"\r\nhi\r\n", b"\r\nhi\r\n"),
        (b"", b""),
        # Bare line ends are mended first.
        (b"Subject: x\n\nhi\r\n", b"Subject: x\r\n\r\nhi\r\n"),
    ],
)
def test_fields_are_added_on_top(server: Whole, sent: bytes, rest: bytes) -> None:
    session = alice(server, MAIL, RCPT, "DATA")
    assert code(session.say(sent + b".\r\n" if sent else b".\r\n")) == 250
    assert re.fullmatch(rb"Date: .+\r\nMessage-ID: .+\r\n" + re.escape(rest), stored(server))
    assert server.metrics.fields_added.value == 2


def test_by_the_byte_and_by_bdat(server: Whole) -> None:
    sent = b"From: boss@example.org\r\nSubject: x\r\n\r\nhi\r\n"
    session = alice(server, MAIL, RCPT, "DATA")
    for octet in sent + b".\r\n":
        session.protocol.dataReceived(bytes([octet]))
    assert code(session.heard()) == 250
    session.say(MAIL, RCPT)
    for octet in sent:
        session.say(b"BDAT 1\r\n" + bytes([octet]))
    assert code(session.say("BDAT 0 LAST")) == 250
    for number in (1, 2):
        assert re.fullmatch(
            rb"Date: .+\r\nMessage-ID: .+\r\nSender: alice@example.org\r\n" + sent, stored(server, number)
        )


def test_strangers_messages_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Whole(monkeypatch, tmp_path)
    server.connect().send(body=b"Subject: x\r\n\r\nhi\r\n")
    assert stored(server) == b"Subject: x\r\n\r\nhi\r\n"


def sent(server: Whole) -> list[int]:
    """The replies to two messages."""
    session = alice(server)
    return [code(session.say(MAIL, RCPT, "DATA", ".")) for _ in range(2)]


def test_what_comes_to_nothing_does_not_count(server: Whole) -> None:
    # A session that ends in the middle.
    session = alice(server, MAIL, RCPT, "DATA")
    session.say("Subject: x")
    session.protocol.connectionLost()
    # A message that is refused at its end,
    assert code(alice(server, "MAIL FROM:<>", RCPT, "DATA").say(".")) == 553
    # one that can't be stored,
    server.spool.trouble = "the disk is broken"
    assert code(alice(server, MAIL, RCPT, "DATA").say(".")) == 451
    server.spool.trouble = ""
    # and one that never came.
    alice(server, MAIL, RCPT).say("RSET")
    assert sent(server) == [250, 250]
    assert code(alice(server).say(MAIL)) == 450


def test_the_limit_is_that_of_all_sessions(server: Whole) -> None:
    create, writers = server.spool.create, []

    def noted(envelope: object) -> object:
        writers.append(create(envelope))
        return writers[-1]

    server.spool.create = noted
    sessions = [alice(server, MAIL, RCPT) for _ in range(3)]
    assert [code(each.say("DATA")) for each in sessions] == [354, 354, 450]
    assert [writer._aborted for writer in writers] == [False, False, True]
    assert sessions[2].say(MAIL).startswith("450 4.7.1 Too many messages for now: you may send 2/h")
    sessions[0].protocol.connectionLost()
    assert code(sessions[2].say(MAIL, RCPT, "DATA")) == 354


def test_a_session_that_ends_while_its_message_is_being_stored_holds_nothing(server: Whole) -> None:
    for _ in range(2):
        server.spool.trouble = HELD
        session = alice(server, MAIL, RCPT, "DATA")
        session.say(".")
        assert code(alice(server).say(MAIL)) == 250
        session.protocol.connectionLost()
    server.spool.trouble = ""
    assert sent(server) == [250, 250]


def test_by_way_of_twisteds_own_interface(server: Whole) -> None:
    """Each recipient's message is one."""
    session = alice(server, MAIL)
    delivery = session.protocol.delivery
    assert isinstance(delivery, Delivery)
    helo = (b"client.test", b"192.0.2.7")
    origin = Address(b"alice@example.org")
    delivery._session.account = session.protocol.session.account
    delivery.validateFrom(helo, origin)
    results: list[object] = []
    for to in (b"you@away.test", b"me@away.test", b"us@away.test"):
        delivery.validateTo(User(to, helo, None, origin)).addCallback(lambda make: make()).addBoth(results.append)
        if len(results) <= 2:
            results[-1].lineReceived(b"From: alice@example.org")  # type: ignore[attr-defined]
            results[-1].eomReceived()  # type: ignore[attr-defined]
    assert "450" in str(results[2])
    assert re.fullmatch(rb"Date: .+\r\nMessage-ID: .+\r\nFrom: alice@example.org\r\n", stored(server, 2))
