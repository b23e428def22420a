"""The AUTH parameter of MAIL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.command import CommandError
from mtatwist.smtp.submitter import parse_submitter
from mtatwist.smtp.xtext import encode_xtext


@pytest.mark.parametrize(
    ("value", "mailbox"),
    [
        ("<>", ""),
        ("bob@example.org", "bob@example.org"),
        ("e+3Dmc2@example.com", "e=mc2@example.com"),
        ("bob+2Bsales@example.org", "bob+sales@example.org"),
        ('"a+20b"@example.org', '"a b"@example.org'),
        ("bob@[192.0.2.1]", "bob@[192.0.2.1]"),
    ],
)
def test_mailboxes(value: str, mailbox: str) -> None:
    assert parse_submitter(value) == mailbox


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bob",
        "bob@",
        "@example.org",
        "postmaster",
        "<bob@example.org>",
        "+3Cbob@example.org+3E",
        "+20bob@example.org",
        "bob@example.org+20x",
        "bob+zz@example.org",
        "bob+C3+BC@example.org",
        "bob=x@example.org",
        "b" * 490 + "@example.org",
    ],
)
def test_what_is_none(value: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_submitter(value)
    assert caught.value.reply[:2] == (501, "5.5.4")


@given(st.one_of(st.text(), st.text('abc@.<>+=" \\ü23B', max_size=20)))
def test_anything(value: str) -> None:
    """It is a mailbox, or refused."""
    try:
        mailbox = parse_submitter(value)
    except CommandError:
        return
    assert (value == "<>") == (mailbox == "")
    if mailbox:
        assert parse_submitter(encode_xtext(mailbox)) == mailbox
