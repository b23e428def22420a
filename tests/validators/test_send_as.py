"""Who may send as whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import NULL, Address, parse_path
from mtatwist.smtp.header import MAX_HEADER
from mtatwist.transaction import Account, Session, Transaction
from mtatwist.validators.send_as import FROM_NOT_YOURS, NOT_YOURS, SendAs, owns

ADDRESSES = {
    "Alice@example.org",
    "alice.smith@example.org",
    "info@xn--bcher-kva.test",
    "grün@example.org",
    '"a b"@example.org',
    "no address at all",
    "broken@-.test",
}
ALICE = Account("alice", frozenset(ADDRESSES))
SHARED = Account("list", frozenset({"a-b@example.org", "plus+one@example.org"}))


def path(text: str) -> Address:
    return parse_path(f"<{text}>")[0]


@pytest.mark.parametrize(
    ("text", "owned"),
    [
        ("alice@example.org", True),
        ("ALICE@EXAMPLE.ORG", True),
        ("alice+lists@example.org", True),
        ("alice+a+b@example.org", True),
        ("alice.smith+x@example.org", True),
        ("info@bücher.test", True),
        ("INFO@BÜCHER.test", True),
        ("info@XN--BCHER-KVA.test", True),
        ("gr\u00fcn@example.org", True),
        ("gru\u0308n@example.org", True),
        ("GRÜN@example.org", True),
        ('"alice"@example.org', True),
        ('"a b"@example.org', True),
        ("bob@example.org", False),
        ("alice@sub.example.org", False),
        ("alice@example.org.evil.test", False),
        ("alicex@example.org", False),
        ("alice-x@example.org", False),
        ("+alice@example.org", False),
        ("grun@example.org", False),
        ('"alice@example.org"@evil.test', False),
        # A detail with room for anything.
        ('"alice+ <ceo@bank.test>"@example.org', False),
        ('"alice+\\"<ceo@bank.test>"@example.org', False),
        ('"alice+a..b"@example.org', False),
        ("alice+@example.org", True),
        ('"a b+lists"@example.org', True),
        ("alice@\u2603\ufe0f.test", False),
    ],
)
def test_what_is_theirs(text: str, owned: bool) -> None:
    assert owns(ALICE, path(text), "+") == owned


def test_the_delimiter_is_a_setting() -> None:
    assert not owns(ALICE, path("alice+x@example.org"), "")
    assert not owns(ALICE, path("alice+x@example.org"), "-")
    assert owns(ALICE, path("alice-x@example.org"), "-")
    # What is theirs as it is needs no detail stripped.
    assert owns(SHARED, path("a-b@example.org"), "-")
    assert owns(SHARED, path("plus+one@example.org"), "+")
    assert not owns(SHARED, path("a@example.org"), "-")


def test_who_has_no_addresses_has_none() -> None:
    assert not owns(Account("bob"), path("bob@example.org"), "+")
    assert not owns(Account("x", frozenset({"", "@", "a@"})), NULL, "+")


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_nobodys_address(local: str, domain: str) -> None:
    assert not owns(ALICE, Address(local, f"{domain}.away.test"), "+")


def transaction(reverse_path: str, account: Account | None = ALICE) -> Transaction:
    session = Session("0", "submission", "192.0.2.7", account=account)
    return Transaction(session, path(reverse_path) if reverse_path else NULL)


def validator(policy: str = "log") -> tuple[SendAs, Instruments]:
    metrics = Instruments()
    return SendAs(recipient_delimiter="+", from_mismatch=policy, metrics=metrics), metrics


def test_the_reverse_path_has_to_be_theirs() -> None:
    made, metrics = validator()
    assert made.mail(transaction("alice+x@example.org")) is None
    assert made.mail(transaction("")) is None
    assert metrics.send_as_refused.value == 0
    assert made.mail(transaction("bob@example.org")) is NOT_YOURS
    assert (NOT_YOURS.code, NOT_YOURS.enhanced) == (553, "5.7.1")
    assert metrics.send_as_refused.value == 1


def test_who_has_not_logged_in_is_judged_by_others() -> None:
    made, _ = validator("reject")
    stranger = transaction("bob@example.org", account=None)
    assert made.mail(stranger) is None
    assert made.header(stranger, b"From: bob@example.org\r\n\r\n") is None


OWN = b"From: Alice <alice+x@example.org>\r\n\r\n"
FOREIGN = b"From: Bob <bob@example.org>\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (OWN, True),
        (b"Sender: alice@example.org\r\n" + OWN, True),
        (b"From: alice@example.org, info@b\xc3\xbccher.test\r\n\r\n", True),
        (FOREIGN, False),
        (FOREIGN + OWN, False),
        (b"Sender: bob@example.org\r\n" + OWN, False),
        (b"From: alice@example.org, bob@example.org\r\n\r\n", False),
        (b"From: bob@example.org <alice@example.org>\r\n\r\n", False),
        (b"From: Alice\r\n\r\n", False),
        (b"From: \xff\xfe@example.org\r\n\r\n", False),
        (b"X: " + b"x" * MAX_HEADER, False),
        (b"From: =?utf-8?q?=3Cceo=40bank.test=3E=2C?= <alice@example.org>\r\n\r\n", False),
        (b"From: =?utf-8?q?alice=40example.org?= <alice@example.org>\r\n\r\n", True),
        (b"From\0: bob@example.org\r\n" + OWN, False),
        (b"X: y\x0cFrom: bob@example.org\r\n" + OWN, False),
        # Nobody is told anything wrong.
        (b"Subject: x\r\n\r\n", True),
        (b"", True),
    ],
)
def test_the_from_field_beside_a_reverse_path_of_theirs(header: bytes, fits: bool) -> None:
    header = header[:MAX_HEADER]
    for policy, expected in (("off", None), ("log", None), ("reject", FROM_NOT_YOURS)):
        made, metrics = validator(policy)
        assert made.header(transaction("alice@example.org"), header) is (None if fits else expected)
        assert metrics.from_mismatches.value == (not fits and policy != "off")
        assert metrics.send_as_refused.value == (not fits and policy == "reject")


@pytest.mark.parametrize("policy", ["off", "log", "reject"])
def test_without_a_reverse_path_the_from_field_counts(policy: str) -> None:
    made, _ = validator(policy)
    assert made.header(transaction(""), OWN) is None
    for header in (FOREIGN, b"Subject: x\r\n\r\n", b"", b"Sender: alice@example.org\r\n\r\n", b"From:\r\n\r\n"):
        assert made.header(transaction(""), header) is FROM_NOT_YOURS
