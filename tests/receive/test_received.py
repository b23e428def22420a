"""The Received field."""

from __future__ import annotations

import re
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.receive.received import received_field
from mtatwist.transaction import Account, Session


def field(sole: str = "", **facts: object) -> str:
    session = Session("0" * 12, "mx", **{"peer": "192.0.2.7", "helo": "client.test", "extended": True, **facts})  # type: ignore[arg-type]
    return received_field(
        session, protocol=session.protocol, by="mta.test", id="0A", at=1_700_000_000.7, sole_recipient=sole
    ).decode()


def test_the_whole_field() -> None:
    text = field("you@here.test")
    match = re.fullmatch(
        r"Received: from client\.test \(\[192\.0\.2\.7\]\)\r\n\tby mta\.test with ESMTP id 0A"
        r"\r\n\tfor <you@here\.test>;\r\n\t(.+)\r\n",
        text,
    )
    assert match
    assert parsedate_to_datetime(match[1]).timestamp() == 1_700_000_000


def named(user: str) -> str:
    session = Session("0" * 12, "submission", "192.0.2.7", helo="client.test", extended=True)
    text = received_field(session, protocol="ESMTPA", by="b", id="0", at=0, sole_recipient="", user=user)
    return text.decode("ascii")


@pytest.mark.parametrize(
    ("user", "comment"),
    [("alice", "alice"), ("alice@example.org", "alice@example.org"), ("a(b)\\c", "a\\(b\\)\\\\c")],
)
def test_the_user_is_named_where_that_is_wanted(user: str, comment: str) -> None:
    assert f"\r\n\t(authenticated user {comment})\r\n\tby " in named(user)


@given(st.text(min_size=1, max_size=400))
def test_no_name_breaks_the_field(user: str) -> None:
    text = named(user)
    lines = text.removesuffix("\r\n").split("\r\n")
    assert all(line.startswith("\t") and len(line) < 600 for line in lines[1:])
    (comment,) = re.findall(r"\t\((authenticated.*)\)\r\n\tby", text, re.DOTALL)
    if not user.isascii():
        shown = str(make_header(decode_header(comment)))
        assert "".join(shown.split()) == "".join(f"authenticated user {user[:255]}".split())


def test_several_recipients_do_not_hear_of_each_other() -> None:
    assert " for " not in field("").replace("\t", " ")


@pytest.mark.parametrize(
    ("extended", "tls", "user", "keyword"),
    [
        (False, "", "", "SMTP"),
        (True, "", "", "ESMTP"),
        (True, "TLSv1.3", "", "ESMTPS"),
        (True, "", "me", "ESMTPA"),
        (True, "TLSv1.3", "me", "ESMTPSA"),
    ],
)
def test_with_keywords(extended: bool, tls: str, user: str, keyword: str) -> None:
    text = field(extended=extended, tls=tls, account=Account(user) if user else None)
    assert f" with {keyword} id " in text
    assert ("(using TLSv1.3)" in text) == bool(tls)
    assert " me" not in text


@pytest.mark.parametrize(
    ("peer", "literal"), [("2001:db8::1", "[IPv6:2001:db8::1]"), ("192.0.2.7", "[192.0.2.7]"), ("", "[unknown]")]
)
def test_where_it_came_from(peer: str, literal: str) -> None:
    assert field(peer=peer).startswith(f"Received: from client.test ({literal})\r\n")


@given(st.text(st.sampled_from('a.-_[]():;<>\r\n\t \0é"\\@'), max_size=12))
def test_a_hostile_name_is_not_repeated(helo: str) -> None:
    first = field(helo=helo).split("\r\n")[0]
    match = re.fullmatch(r"Received: from (\S+) \(\[192\.0\.2\.7\]\)", first)
    assert match
    assert re.fullmatch(r"[A-Za-z0-9._\[\]:-]+", match[1])
    assert len(field(helo=helo).split("\r\n")) == 4
