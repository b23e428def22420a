"""What is the same name, what is the same password, and what can be neither."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin

from mtatwist.auth.prepare import NAME_LIMIT, PASSWORD_LIMIT, Unprepared, prepare_name, prepare_password

PREPARE: list[Callable[[bytes | str], str]] = [prepare_name, prepare_password]


@pytest.mark.parametrize(
    ("name", "prepared"),
    [
        ("alice", "alice"),
        ("Alice@Example.ORG", "alice@example.org"),
        ("EXAMPLE\\alice", "example\\alice"),
        ("*)(uid=*", "*)(uid=*"),
        ("GRU\u0308N", "grün"),
        ("\uff41\uff42", "ab"),
        ("Straße", "straße"),
        ("Ann Other", "ann other"),
        ("Ann   Other", "ann other"),
        ("n" * NAME_LIMIT, "n" * NAME_LIMIT),
    ],
)
def test_names(name: str, prepared: str) -> None:
    assert prepare_name(name) == prepared
    assert prepare_name(name.encode()) == prepared


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("secret", "secret"),
        ("Secret 1 ", "Secret 1 "),
        ("a\u00a0b\u3000c", "a b c"),
        ("u\u0308", "ü"),
        ("\uff41", "\uff41"),
        ("🐎🔋", "🐎🔋"),
        ("p" * PASSWORD_LIMIT, "p" * PASSWORD_LIMIT),
    ],
)
def test_passwords(password: str, prepared: str) -> None:
    """Only their Unicode form changes, and the kinds of spaces."""
    assert prepare_password(password) == prepared


@pytest.mark.parametrize("name", ["", " ", " alice", "alice ", "a\u2163", "a\u00a0b", "alice\u200d", "אa"])
def test_names_of_nobody(name: str) -> None:
    with pytest.raises(Unprepared):
        prepare_name(name)


@pytest.mark.parametrize("prepare", PREPARE)
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a\0b",
        b"\0",
        b"a\tb",
        b"a\r\nb",
        b"\x7f",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        "\ud800",
        "a\u202eb",
        "a\ufffeb",
        "x" * 65536,
        "ü" * 513,
    ],
    ids=ascii,
)
def test_what_is_neither(prepare: Callable[[bytes | str], str], value: bytes | str) -> None:
    """It is a wrong login, and a ValueError for those who read a file; it says what is wrong, and not what it was."""
    with pytest.raises(UnauthorizedLogin) as caught:
        prepare(value)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value)
    text = value if isinstance(value, str) else value.decode("latin-1")
    assert len(text) < 2 or text not in str(caught.value)


@pytest.mark.parametrize("prepare", PREPARE)
@given(value=st.one_of(st.binary(max_size=80), st.text(max_size=40)))
def test_anything(prepare: Callable[[bytes | str], str], value: bytes | str) -> None:
    """It is prepared, once and for all, or refused; nothing else happens."""
    try:
        prepared = prepare(value)
    except Unprepared:
        return
    assert prepared
    assert prepare(prepared) == prepared
    assert "\0" not in prepared
    assert unicodedata.is_normalized("NFC", prepared)
