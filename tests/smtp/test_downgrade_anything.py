"""Conversion of any octets, however they come: no dependence on chunks, nothing unfit left, the same content."""

from __future__ import annotations

import quopri
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st
from rigs.mime import converted, cut, fit, parts, plan_for

from mtatwist.smtp.downgrade import Level
from mtatwist.smtp.encodings import Base64, Encoder, QuotedPrintable

AT = st.lists(st.integers(0, 100_000), max_size=8)
LEVELS = st.sampled_from(list(Level))

# Pieces of which messages are made that are right, wrong and on purpose misleading.
PIECES = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b"=",
        b"-",
        b"--",
        b"\xe9",
        b"\xff\x80",
        b"text",
        b"x" * 80,
    ),
    *(
        b"--A",
        b"--AB",
        b"\r\n--A\r\n",
        b"\r\n--AB\r\n",
        b"\r\n--A--\r\n",
        b"\r\n--AB--\r\n",
        b"\r\n--A \t\r\n",
        b"x" * 1000,
    ),
    *(b"Content-Type: ", b"text/plain", b"image/png", b"message/rfc822", b"multipart/digest", b"multipart/mixed"),
    *(b"; boundary=A", b'; boundary="AB"', b"Content-Type: multipart/mixed; boundary=A\r\n\r\n"),
    *(b"Content-Type: multipart/signed; boundary=AB\r\n\r\n", b"Content-Type: message/rfc822\r\n\r\n"),
    *(b"Content-Transfer-Encoding: 8bit\r\n", b"Content-Transfer-Encoding: base64\r\n", b"MIME-Version: 1.0\r\n"),
]
MESSAGES = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join) | st.binary(max_size=300)


@given(MESSAGES, AT, AT, LEVELS)
def test_the_result_does_not_depend_on_the_chunks(
    message: bytes, at: list[int], again: list[int], level: Level
) -> None:
    plan = plan_for([message], level)
    assert plan_for(cut(message, at), level) == plan
    if plan.obstacle is None:
        result = converted([message], level)
        assert converted(cut(message, at), level, scanned=cut(message, again)) == result
        assert plan.needed or result == message
        # What was done is enough: a second conversion finds nothing, lines of header sections left aside.
        assert not plan_for([result], level).needed


def encoded(encoder: Encoder, chunks: list[bytes], at_end: bool) -> bytes:
    body = b"".join(encoder.feed(chunk) for chunk in chunks)
    return body + (encoder.end_of_message() if at_end else encoder.end())


@given(MESSAGES, AT)
def test_quoted_printable_is_undone_by_the_standard_library(data: bytes, at: list[int]) -> None:
    for at_end in (True, False):
        text = encoded(QuotedPrintable(), cut(data, at), at_end)
        assert quopri.decodestring(text) == data
        lines = text.split(b"\r\n")
        assert max(map(len, lines)) <= 76
        assert not any(line.startswith(b"--") or line.endswith((b" ", b"\t")) for line in lines)
        assert text.isascii()
        assert not at_end or text[-2:] in (b"", b"\r\n")


@given(MESSAGES, AT)
def test_base64_is_undone_by_the_standard_library(data: bytes, at: list[int]) -> None:
    text = encoded(Base64(), cut(data, at), False)
    assert b64decode(text) == data
    lines = text.split(b"\r\n")
    assert all(len(line) == 76 for line in lines[:-1])
    assert len(lines[-1]) <= 76
    assert encoded(Base64(), cut(data, at), True) == text + (b"\r\n" if text else b"")


# Messages whose structure is right, so that there is no doubt about what their parts are.

LINES = st.lists(st.sampled_from([b"caf\xc3\xa9", b"= x", b"", b". ", b"-- ", b"--", b"\xff" * 90, b"y" * 999, b"\t"]))
OCTETS = LINES.map(b"\r\n".join)
LABELS = st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n", b"content-transfer-encoding:binary (c)\r\n"])
TYPES = st.sampled_from(
    [b"", b"Content-Type: text/html\r\n", b"CONTENT-TYPE:image/png; name=x\r\n", b"X-A: b\r\n c\r\n"]
)
LEAF = st.builds(lambda kind, label, octets: kind + label + b"\r\n" + octets, TYPES, LABELS, OCTETS)
ENCODED = st.builds(
    lambda octets: b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded(Base64(), [octets], False), OCTETS
)


def in_multipart(parts: list[bytes], number: int, label: bytes, preamble: bytes, end: bytes) -> bytes:
    # The boundaries of the multiparts in this one are longer: each is the beginning of others.
    boundary = b"=_" + b"x" * (number + max([part.count(b"boundary") for part in parts], default=0) * 40)
    head = b'Content-Type: multipart/mixed;\r\n\tboundary="' + boundary + b'"\r\n' + label + b"\r\n" + preamble
    return head + b"".join(b"\r\n--" + boundary + b"\r\n" + part for part in parts) + b"\r\n--" + boundary + end


ENDS = st.sampled_from([b"--", b"--\r\nend", b"-- \t\r\n\xe9"])
TREES = st.recursive(
    LEAF | ENCODED,
    lambda tree: (
        st.builds(in_multipart, st.lists(tree, min_size=1, max_size=4), st.integers(1, 30), LABELS, OCTETS, ENDS)
        | st.builds(
            lambda label, message: b"Content-Type: message/rfc822\r\n" + label + b"\r\n" + message, LABELS, tree
        )
    ),
    max_leaves=8,
)


@given(TREES, st.sampled_from([b"", b"MIME-Version: 1.0\r\n"]), AT)
def test_the_parts_are_the_same_afterwards(tree: bytes, version: bytes, at: list[int]) -> None:
    message = version + b"Subject: x\r\n" + tree + b"\r\n"
    assert plan_for([message]).obstacle is None
    result = converted(cut(message, at))
    assert fit(result)
    assert parts(result) == parts(message)


@given(TREES)
def test_what_is_eight_bit_may_stay_for_a_peer_that_takes_it(tree: bytes) -> None:
    message = b"MIME-Version: 1.0\r\nSubject: x\r\n" + tree + b"\r\n"
    result = converted([message], Level.EIGHT_BIT)
    assert max(map(len, result.split(b"\r\n"))) <= 998
    assert parts(result) == parts(message)
    assert (result == message) == (max(map(len, message.split(b"\r\n"))) <= 998)
