"""Who a message is from, as a hostile hand may have written it."""

from __future__ import annotations

import contextlib
from email.headerregistry import Address as LibraryAddress
from email.headerregistry import Group
from email.message import EmailMessage
from email.policy import SMTPUTF8

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.address import AddressError
from mtatwist.smtp.originators import MOST_MAILBOXES, mailboxes


def authors(header: bytes | str) -> list[str]:
    raw = header if isinstance(header, bytes) else header.encode()
    return [f"{each.local}@{each.domain}" for each in mailboxes(raw, b"From")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Subject: x\r\n\r\n", []),
        ("X-From: me@x.test\r\n\r\n", []),
        ("From: me@x.test\r\n\r\n", ["me@x.test"]),
        ("FROM:me@x.test", ["me@x.test"]),
        ("From : me@x.test\r\n\r\n", ["me@x.test"]),
        ("Subject: x\r\nfrom: Me <me@x.test>\r\n\r\n", ["me@x.test"]),
        ("From: J. R. \"Bob\" Dobbs <Bob@X.test>\r\n\r\n", ["Bob@X.test"]),
        ("From: =?utf-8?q?M=C3=BCller=2C_A?= <a@x.test>\r\n\r\n", ["a@x.test"]),
        ("From: =?utf-8?q?Alice_=40_Home?= <a@x.test>\r\n\r\n", ["a@x.test"]),
        ("From: =?utf-8?q?=3CAlice=3E=2C_=40lice?= <a@x.test>\r\n\r\n", ["a@x.test"]),
        ("From: Müller <mü@bücher.test>\r\n\r\n", ["mü@bücher.test"]),
        ("From: me@x.test (a (nested\\) comment), no@y.test)\r\n\r\n", ["me@x.test"]),
        ("From: (no@y.test) me (x) @ (y) x.test\r\n\r\n", ["me@x.test"]),
        ('From: "no@y.test, \\"q\\"" <me@x.test>\r\n\r\n', ["me@x.test"]),
        ('From: "me"@x.test, "a b"@x.test, "a\\"b"@x.test\r\n\r\n', ["me@x.test", "a b@x.test", 'a"b@x.test']),
        ("From: me@[192.0.2.1], you@[IPv6:2001:db8::1]\r\n\r\n", ["me@[192.0.2.1]", "you@[IPv6:2001:db8::1]"]),
        ("From: a@x.test,\r\n\tB <b@y.test>,,\r\n c@z.test\r\n\r\n", ["a@x.test", "b@y.test", "c@z.test"]),
        ("From: Us: a@x.test, B <b@y.test>;\r\n\r\n", ["a@x.test", "b@y.test"]),
        # Several fields: each reader chooses another.
        ("From: a@x.test\r\nTo: t@x.test\r\nFrom: b@y.test\r\n\r\n", ["a@x.test", "b@y.test"]),
        # What some readers take for the end of a line.
        (b"Subject: x\rFrom: b@y.test\r\n\r\n", ["b@y.test"]),
        (b"Subject: x\nFrom: b@y.test\r\n\r\n", ["b@y.test"]),
        # A name that looks like an address, and is shown as such.
        ("From: b@y.test <a@x.test>\r\n\r\n", ["b@y.test", "a@x.test"]),
        # What a reader sees that decodes first.
        ("From: =?utf-8?q?b=40y=2Etest?= <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: =?utf-8?q?=3Cb=40y.test=3E=2C?= <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: =?utf-8*en?Q?B_=3Cb_=40_y.test=3E?=\r\n <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: =?x-none?b?PGJAeS50ZXN0Piw?= <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: =?utf-16be?b?AGIAQAB5AC4AdABlAHMAdA==?= <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: =?utf-8?q?b=40?=  =?utf-8?q?y.test=2C?= <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: b=?utf-8?q?=40?=y.test <a@x.test>\r\n\r\n", ["a@x.test", "b@y.test"]),
        ("From: a@x.test (=?utf-8?q?=29=2C_b=40y.test?=)\r\n\r\n", ["a@x.test", "b@y.test"]),
        ('From: "=?utf-8?q?b=40y.test?=" <a@x.test>\r\n\r\n', ["a@x.test", "b@y.test"]),
        ("From:\r\n \r\n a@x.test\r\n\r\n", ["a@x.test"]),
        (b"From: \xff@x.test\r\n\r\n", ["\ufffd@x.test"]),
    ],
)  # fmt: skip
def test_the_mailboxes_are_found(header: bytes | str, expected: list[str]) -> None:
    assert authors(header) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", "   ", "me", "Me", "<>", "Me <>", "undisclosed-recipients:;", "@x.test", "me@", "a@b@x.test",
        "<a@b@x.test>",
        "a@x.test b@y.test", "a@x.test <b@y.test", "<a@x.test> <b@y.test>", "<a@x.test> b@y.test", "a@x.test>",
        '"me@x.test', "me@x.test (", "me@x.test )", "me..you@x.test", ".me@x.test", "me@x..test", "me@.x.test",
        "a b@x.test", "me@x y.test", "me\x00@x.test", "me@x.test\x0b", "me\\@x.test", "<@y.test:me@x.test>",
        "ceo@y.test: me@x.test;", "ceo@y.test <<me@x.test>>", "me@[x", "me@[1]x", "me@\"x.test\"",
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_not_read(value: str) -> None:
    with pytest.raises(AddressError):
        authors(f"From: {value}\r\n\r\n")
    with pytest.raises(AddressError):
        authors(f"From: me@x.test\r\nFrom: {value}\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [
        "From: a@x.test\r\nFrom\0: b@y.test\r\n", "\0From: b@y.test\r\nFrom: a@x.test\r\n",
        "From: a@x.test\r\nFrom\x0b: b@y.test\r\n", "X: y\x0cFrom: b@y.test\r\nFrom: a@x.test\r\n",
        "X: y\x1eFrom: b@y.test\r\nFrom: a@x.test\r\n", "X: y\x7f\r\nFrom: a@x.test\r\n",
        "X: y\x85From: b@y.test\r\nFrom: a@x.test\r\n", "X: y\u2028From: b@y.test\r\nFrom: a@x.test\r\n",
        "X: y\u2029From: b@y.test\r\nFrom: a@x.test\r\n", b"X: y\x85From: b@y.test\r\nFrom: a@x.test\r\n",
        "\ufeffFrom: b@y.test\r\nFrom: a@x.test\r\n",
    ],
)  # fmt: skip
def test_a_line_that_only_some_readers_see_is_not_read(header: str | bytes) -> None:
    with pytest.raises(AddressError):
        authors(header)


def test_letters_that_have_the_octet_of_a_line_end_are_letters() -> None:
    assert authors("Subject: \u00c5\tb\r\nFrom: a@x.test\r\n") == ["a@x.test"]


def test_no_address_is_longer_than_a_path_may_be() -> None:
    label = "y" * 63
    assert authors(f"From: {'x' * 64}@{label}.{label}.{label}.{label}")
    assert authors(f'From: "{"x" * 64}"@[192.0.2.1]')
    for local, domain in (("x" * 65, "x.test"), ("\u00fc" * 33, "x.test"), ("x", "y." * 127 + "yy")):
        with pytest.raises(AddressError):
            authors(f"From: {local}@{domain}")
    with pytest.raises(AddressError):
        authors("From: a" + "\u0301\u0316" * 16000 + "@x.test")


def test_there_is_a_limit() -> None:
    assert len(authors("From: " + ",".join(["a@x.test"] * MOST_MAILBOXES))) == MOST_MAILBOXES
    for many in (",".join(["a@x.test"] * (MOST_MAILBOXES + 1)), "a@x.test\r\nFrom: b@x.test\r\n" * MOST_MAILBOXES):
        with pytest.raises(AddressError):
            authors(f"From: {many}")


@pytest.mark.parametrize(
    "part",
    [
        b"(",
        b")",
        b'"',
        b"\\",
        b"<",
        b",",
        b"a@b,",
        b"\r\n ",
        b"\r\nFrom:",
        b"[",
        b'"\\"',
        b"@",
        b"=?",
        b"=?u?q?",
        b"=?u?q??=x",
    ],
)
def test_a_header_section_full_of_anything_takes_no_time(part: bytes) -> None:
    """The longest that is ever looked at; what grew with the square of it would be seen as a time-out."""
    for start in (b"From: ", b"From: (", b'From: "', b"From: <"):
        with contextlib.suppress(AddressError):
            mailboxes((start + part * 65536)[:65536], b"From")


@given(st.binary(max_size=300) | st.text('()<>@,;:\\".[] \t\r\naFrom:', max_size=60).map(str.encode))
def test_anything_is_read_or_refused(value: bytes) -> None:
    try:
        found = mailboxes(b"From:" + value, b"From")
    except AddressError:
        return
    assert found


ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~ü日", min_size=1, max_size=6)
LOCAL = st.lists(ATOM, min_size=1, max_size=3).map(".".join) | st.text(
    # The library leaves dots without quotes wherever they stand.
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="."),
    min_size=1,
    max_size=10,
)
DOMAIN = st.lists(st.text("abcXYZ019-ü", min_size=1, max_size=8), min_size=1, max_size=3).map(".".join)
MAILBOX = st.builds(
    lambda name, local, domain: LibraryAddress(name, local, domain),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x3000, exclude_categories=("C", "Z")), max_size=20),
    LOCAL,
    DOMAIN,
)


@given(st.lists(MAILBOX, min_size=1, max_size=5), st.booleans())
def test_what_the_library_writes_is_read(named: list[LibraryAddress], grouped: bool) -> None:
    message = EmailMessage(policy=SMTPUTF8)
    message["From"] = [Group("Some of us", tuple(named))] if grouped else named
    header = b"From: " + SMTPUTF8.fold_binary("From", message["From"]).partition(b":")[2]
    assert authors(header) == [f"{each.username}@{each.domain}" for each in named]
