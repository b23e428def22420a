"""The parameters about reports: what is taken, what is refused, and what they mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.command import CommandError
from mtatwist.smtp.notify import (
    TypedAddress,
    decode_envid,
    decode_orcpt,
    parse_envid,
    parse_notify,
    parse_orcpt,
    parse_ret,
)


@pytest.mark.parametrize(
    ("parse", "value", "result"),
    [
        (parse_ret, "FULL", "FULL"),
        (parse_ret, "hdrs", "HDRS"),
        (parse_envid, "QQ314159", "QQ314159"),
        (parse_envid, "a+20b", "a+20b"),
        (parse_envid, "x" * 100, "x" * 100),
        (parse_notify, "NEVER", "NEVER"),
        (parse_notify, "never", "NEVER"),
        (parse_notify, "Success,failure", "SUCCESS,FAILURE"),
        (parse_notify, "DELAY,SUCCESS,DELAY", "DELAY,SUCCESS"),
        (parse_orcpt, "rfc822;Bob@x.test", "rfc822;Bob@x.test"),
        (parse_orcpt, "RFC822;Bob+2Bhome@x.test", "RFC822;Bob+2Bhome@x.test"),
        (parse_orcpt, r"utf-8;bl\x{E5}@x.test", r"utf-8;bl\x{E5}@x.test"),
        (parse_orcpt, "x400;/c=us/".replace("=", "+3D"), "x400;/c+3Dus/"),
        (parse_orcpt, "rfc822;" + "x" * 493, "rfc822;" + "x" * 493),
    ],
)
def test_what_is_taken(parse: Callable[[str], str], value: str, result: str) -> None:
    assert parse(value) == result


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_ret, ""),
        (parse_ret, "BODY"),
        (parse_ret, "ﬀull"),
        (parse_envid, ""),
        (parse_envid, "x" * 101),
        (parse_envid, "+0D+0ABcc:"),
        (parse_envid, "a+zz"),
        (parse_notify, ""),
        (parse_notify, "NEVER,FAILURE"),
        (parse_notify, "SUCCESS,"),
        (parse_notify, "SUCCE\u017fS"),
        (parse_notify, "ALWAYS"),
        (parse_orcpt, ""),
        (parse_orcpt, "bob@x.test"),
        (parse_orcpt, ";bob@x.test"),
        (parse_orcpt, "rfc 822;bob"),
        (parse_orcpt, "rfc822;bob+0Ax"),
        (parse_orcpt, "rfc822;bob\x7f"),
        (parse_orcpt, "utf-8;blå@x.test"),
        (parse_orcpt, r"utf-8;\x{85}@x.test"),
        (parse_orcpt, r"utf-8;\x{2028}@x.test"),
        (parse_orcpt, "rfc822;" + "x" * 494),
    ],
)
def test_what_is_refused(parse: Callable[[str], str], value: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(value)
    assert caught.value.reply.code == 501
    assert caught.value.reply.enhanced == "5.5.4"


def test_raw_utf8_is_for_smtputf8_and_its_own_type() -> None:
    assert parse_orcpt("utf-8;blå@x.test", smtputf8=True) == "utf-8;blå@x.test"
    with pytest.raises(CommandError):
        parse_orcpt("rfc822;blå@x.test", smtputf8=True)


def test_what_they_stand_for() -> None:
    assert decode_envid("a+20b+2B") == "a b+"
    assert decode_orcpt("RFC822;Bob+2Bhome@x.test") == TypedAddress("rfc822", "Bob+home@x.test")
    assert decode_orcpt(r"UTF-8;bl\x{E5}@x.test") == TypedAddress("utf-8", "blå@x.test")
    assert decode_orcpt("rfc822;") == TypedAddress("rfc822", "")


@given(st.text() | st.text(st.sampled_from("rfc82;utf-+0DAx{}\\ \r\n\0é")))
def test_what_is_taken_holds_no_line_end(text: str) -> None:
    for parse, decode in (
        (lambda value: parse_orcpt(value, smtputf8=True), lambda value: decode_orcpt(value).address),
        (parse_envid, decode_envid),
    ):
        try:
            parse(text)
        except CommandError:
            continue
        assert len(decode(text).splitlines()) <= 1
