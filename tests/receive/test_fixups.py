"""What submitted messages lack, and get: at any border of chunks, and nothing else changed."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.receive.fixups import Fixups
from mtatwist.smtp.address import NULL, Address
from mtatwist.smtp.header import MAX_HEADER
from mtatwist.transaction import Account, Session, Transaction

PATH = Address("alice", "example.org")
ALICE = Account("alice", frozenset({"alice@example.org", "office@example.org"}))
AT = 1_700_000_000.7
WHOLE = b"Date: x\r\nmessage-id : <x@y>\r\nFrom: alice@example.org\r\nSubject: x\r\n\r\nhello\r\n"


def fixups(path: Address = PATH) -> Fixups:
    session = Session("0", "submission", "192.0.2.7", account=ALICE)
    return Fixups(Transaction(session, path), ALICE, hostname="mta.test", at=AT, delimiter="+")


def fixed(*chunks: bytes, path: Address = PATH) -> bytes:
    made = fixups(path)
    return b"".join(made.feed(chunk) for chunk in chunks) + made.end()


def added(message: bytes, path: Address = PATH) -> list[str]:
    """The names of the fields that it got; the rest must be as it was."""
    made = fixups(path)
    result = made.feed(message) + made.end()
    assert result.endswith(message)
    fields = result.removesuffix(message).decode()
    names = [line.partition(":")[0] for line in fields.split("\r\n")[:-1]]
    assert made.added == len(names)
    return names


def test_what_is_there_stays() -> None:
    assert fixed(WHOLE) == WHOLE


def test_date_and_message_id() -> None:
    text = fixed(b"From: alice@example.org\r\n\r\nhello").decode()
    match = re.fullmatch(
        r"Date: (.+)\r\nMessage-ID: <([0-9a-f]{32}@mta\.test)>\r\nFrom: alice@example.org\r\n\r\nhello", text
    )
    assert match
    assert parsedate_to_datetime(match[1]).timestamp() == 1_700_000_000
    assert match[2] not in fixed(b"From: alice@example.org\r\n\r\nhello").decode()


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (b"", ["Date", "Message-ID"]),
        (b"\r\n", ["Date", "Message-ID"]),
        (b"\r\nhello\r\n", ["Date", "Message-ID"]),
        (b"Subject: no body", ["Date", "Message-ID"]),
        (b"DATE:\r\n\r\n", ["Message-ID"]),
        (b"Message-Id: <>\r\nX-Date: x\r\nSubject: a\r\n Date: b\r\n\r\nDate: c\r\n", ["Date"]),
        (b"Resent-Date: x\r\nResent-Message-ID: <x@y>\r\n\r\n", ["Date", "Message-ID"]),
        (b"Date: x\r\nMessage-ID: <x@y>\r\n" + b"X: \xff\xfe\r\n\r\n\x00\xff\n\r", []),
        (b"Date: x\r\nMessage-ID: <x@y>\r\nX: \x00\r\n\r\n", ["Sender"]),
    ],
)
def test_what_is_added(message: bytes, names: list[str]) -> None:
    assert added(message) == names


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"From: alice@example.org\r\n", False),
        (b"From: office+x@example.org\r\n", False),
        (b"Subject: nobody\r\n", False),
        (b"From: boss@example.org\r\n", True),
        (b"From: alice@example.org, office@example.org\r\n", True),
        (b"From: alice@example.org\r\nFrom: boss@example.org\r\n", True),
        (b"From: who knows\r\n", True),
        (b"From: boss@example.org\r\nSender: x@y.test\r\n", False),
        (b"From: boss@example.org\r\nSENDER : x\r\n", False),
    ],
)
def test_who_has_really_sent_it(header: bytes, wanted: bool) -> None:
    message = b"Date: x\r\nMessage-ID: <x@y>\r\n" + header + b"\r\nhello\r\n"
    assert added(message) == (["Sender"] if wanted else [])
    if wanted:
        read = message_from_bytes(fixed(message, path=Address("alice+x", "example.org")), policy=policy.default)
        assert read["Sender"] == "alice+x@example.org"
    # Nothing that is not known to be theirs is put there.
    assert added(message, path=NULL) == []
    assert added(message, path=Address("boss", "example.org")) == []


def test_a_header_section_without_an_end_passes() -> None:
    for message in (b"X: y\r\n" * 20_000, b"X: " + b"y" * MAX_HEADER + b"\r\n\r\nhello"):
        assert added(message) == []
        made = fixups()
        given_back = [made.feed(message[at : at + 1000]) for at in range(0, len(message), 1000)]
        assert max(map(len, given_back)) <= MAX_HEADER + 1000
        assert b"".join(given_back) + made.end() == message


@given(
    st.lists(st.sampled_from([b"Date: x\r\n", b"From: a@b\r\n", b"X: y\r\n z\r\n", b"\r\n", b"\n", b"\x00", b"text"])),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_the_borders_of_chunks_mean_nothing(parts: list[bytes], borders: list[int]) -> None:
    message = b"Message-ID: <x@y>\r\n" + b"".join(parts)
    cuts = [0, *sorted(borders), len(message)]
    chunks = [message[start:end] for start, end in pairwise(cuts)]
    assert fixed(*chunks) == fixed(message)
    assert fixed(message).endswith(message)
