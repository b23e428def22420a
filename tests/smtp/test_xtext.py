"""xtext and the forms of addresses beyond ASCII: what is written is read again, and nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.xtext import (
    XtextError,
    decode_unitext,
    decode_xtext,
    encode_unicode_xtext,
    encode_unitext,
    encode_xtext,
)

ASCII = st.text(st.characters(max_codepoint=127))
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", ""),
        ("QQ314159", "QQ314159"),
        ("a+b=c", "a+2Bb+3Dc"),
        ("two words\x7f\0", "two+20words+7F+00"),
        ("+41", "+2B41"),
    ],
)
def test_xtext(text: str, encoded: str) -> None:
    assert encode_xtext(text) == encoded
    assert decode_xtext(encoded) == text


@pytest.mark.parametrize("bad", ["+", "+4", "+4g", "+2b", "a=b", "a b", "a\r\n", "a\n", "é", "+C3+A9", "+80", "\x7f"])
def test_what_is_no_xtext(bad: str) -> None:
    with pytest.raises(XtextError):
        decode_xtext(bad)


def test_xtext_has_no_form_for_more_than_ascii() -> None:
    with pytest.raises(XtextError):
        encode_xtext("blåbær")


@pytest.mark.parametrize(
    ("text", "xtext", "unitext"),
    [
        ("user@example.com", "user@example.com", "user@example.com"),
        ("blåbær@eks.no", r"bl\x{E5}b\x{E6}r@eks.no", "blåbær@eks.no"),
        ("a+b=c\\d e@x", r"a\x{2B}b\x{3D}c\x{5C}d\x{20}e@x", r"a\x{2B}b\x{3D}c\x{5C}d\x{20}e@x"),
        ("用户@例子.公司", r"\x{7528}\x{6237}@\x{4F8B}\x{5B50}.\x{516C}\x{53F8}", "用户@例子.公司"),
        ("\U0001f4e7@x", r"\x{1F4E7}@x", "\U0001f4e7@x"),
        ("\t\0", r"\x{09}\x{00}", r"\x{09}\x{00}"),
    ],
)
def test_addresses_beyond_ascii(text: str, xtext: str, unitext: str) -> None:
    assert encode_unicode_xtext(text) == xtext
    assert encode_unitext(text) == unitext
    assert decode_unitext(xtext) == decode_unitext(unitext) == text


def test_an_address_of_that_type_in_plain_xtext_is_read() -> None:
    assert decode_unitext("a+2Bb@x") == "a+b@x"
    # Once only: what a hexchar stands for does not begin another form.
    assert decode_unitext("+5Cx{41}") == r"\x{41}"


@pytest.mark.parametrize(
    "bad",
    ["a b", "a=b", "a+b", "\\", r"\x", r"\x{", r"\x{}", r"\x{e5}", r"\x{D800}", r"\x{DFFF}", r"\x{110000}",
     r"\x{1234567}", "a\r\n", "\x7f", "\0", "\ud800", r"\\x{41}", r"\x{\x{41}}"],
)  # fmt: skip
def test_what_is_no_such_address(bad: str) -> None:
    with pytest.raises(XtextError):
        decode_unitext(bad)


@given(ASCII)
def test_what_is_written_as_xtext_is_read_again(text: str) -> None:
    encoded = encode_xtext(text)
    assert re.fullmatch(r"[!-<>-~]*", encoded)
    assert decode_xtext(encoded) == text


@given(UNICODE)
def test_what_is_written_as_an_address_is_read_again(text: str) -> None:
    assert re.fullmatch(r"[!-<>-~]*", encode_unicode_xtext(text))
    assert decode_unitext(encode_unicode_xtext(text)) == text
    assert decode_unitext(encode_unitext(text)) == text


@given(st.text(st.sampled_from("+={}\\x4AaF \r\n\0éD80\x7f")) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for decode in (decode_xtext, decode_unitext):
        try:
            decoded = decode(text)
        except XtextError:
            continue
        assert len(decoded) <= len(text)
        decoded.encode()
