"""The mechanisms, without a session around them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin
from twisted.mail.interfaces import IChallengeResponse
from zope.interface.verify import verifyObject

from mtatwist.auth.credentials import ILogin, Login
from mtatwist.auth.mechanisms import REGISTRY, BadResponse, IMechanism, decode, encode


def exchange(name: str, *responses: bytes) -> Any:
    """The mechanism after these responses; asks for as many as there are."""
    mechanism: Any = REGISTRY[name]()
    for index, response in enumerate(responses):
        mechanism.getChallenge()
        mechanism.setResponse(response)
        assert mechanism.moreChallenges() == (index + 1 < len(responses))
    return mechanism


@pytest.mark.parametrize("name", REGISTRY)
def test_each_is_what_twisted_mail_expects(name: str) -> None:
    mechanism = REGISTRY[name]()
    assert verifyObject(IMechanism, mechanism)
    assert IChallengeResponse.providedBy(mechanism)


@pytest.mark.parametrize(("name", "responses"), [("PLAIN", [b"\0Alice\0Secret"]), ("LOGIN", [b"Alice", b"Secret"])])
def test_a_login(name: str, responses: Sequence[bytes]) -> None:
    mechanism = exchange(name, *responses)
    assert mechanism.claimed == "Alice"
    login = mechanism.login("192.0.2.7", "s1")
    assert login == Login("alice", "Secret", "192.0.2.7", "s1")
    assert ILogin.providedBy(login)
    assert "Secret" not in repr(login)
    assert "Secret" not in repr(mechanism)


def test_challenges() -> None:
    """Clients look at LOGIN's; PLAIN has none."""
    assert REGISTRY["PLAIN"]().getChallenge() == b""  # type: ignore[no-untyped-call]
    assert exchange("LOGIN").getChallenge() == b"Username:"
    mechanism: Any = REGISTRY["LOGIN"]()
    mechanism.setResponse(b"alice")
    assert mechanism.getChallenge() == b"Password:"


@pytest.mark.parametrize("message", [b"", b"alice", b"alice\0secret", b"\0alice\0secret\0", b"a\0b\0c\0d"])
def test_no_message_of_plain(message: bytes) -> None:
    with pytest.raises(BadResponse):
        exchange("PLAIN", message)


@pytest.mark.parametrize(
    ("name", "responses"),
    [
        ("PLAIN", [b"\0\0secret"]),
        ("PLAIN", [b"\0alice\0"]),
        ("PLAIN", [b"bob\0alice\0secret"]),
        ("PLAIN", [b"\xff\0alice\0secret"]),
        ("PLAIN", [b"\0" + b"a" * 65536 + b"\0secret"]),
        ("LOGIN", [b"", b"secret"]),
        ("LOGIN", [b"alice", b""]),
        ("LOGIN", [b"ali\0ce", b"secret"]),
        ("LOGIN", [b"alice", b"sec\0ret"]),
    ],
)
def test_what_is_wrong_whoever_is_asked(name: str, responses: Sequence[bytes]) -> None:
    with pytest.raises(UnauthorizedLogin):
        exchange(name, *responses).login("", "")


@pytest.mark.parametrize("identity", [b"", b"alice", b"ALICE", "\uff41lice".encode()])
def test_ones_own_identity(identity: bytes) -> None:
    assert exchange("PLAIN", identity + b"\0alice\0secret").login("", "").user == "alice"


@given(st.binary(max_size=60))
def test_plain_takes_anything(message: bytes) -> None:
    """It is a login, a wrong one, or no message: nothing else happens."""
    try:
        login = exchange("PLAIN", message).login("", "")
    except (BadResponse, UnauthorizedLogin):
        return
    assert login.user
    assert login.secret


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_login_takes_anything(name: bytes, password: bytes) -> None:
    try:
        login = exchange("LOGIN", name, password).login("", "")
    except UnauthorizedLogin:
        return
    assert login.user
    assert login.secret


@given(st.binary(max_size=60))
def test_base64_there_and_back(data: bytes) -> None:
    assert decode(encode(data).encode()) == data


@given(st.one_of(st.binary(max_size=24), st.text("QUFB=+/-_ \r\n*é", max_size=12).map(str.encode)))
def test_base64_is_canonical_or_refused(text: bytes) -> None:
    """No two texts mean the same octets, and nothing is skipped."""
    try:
        decoded = decode(text)
    except BadResponse:
        return
    assert base64.b64encode(decoded) == text


@pytest.mark.parametrize(
    "text", [b"=", b"====", b"QQ", b"QQ=", b"QR==", b"QQ==QQ==", b"=AAA", b"AAA=BBB=", b"Q Q=", b"Q-==", b"*"]
)
def test_no_base64(text: bytes) -> None:
    with pytest.raises(BadResponse):
        decode(text)
