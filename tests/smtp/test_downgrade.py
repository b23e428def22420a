"""Conversion to 7-bit: what needs it is encoded, what doesn't is left, and nothing depends on how the octets come."""

from __future__ import annotations

import pytest
from rigs.mime import converted, fit, parts, plan_for

from mtatwist.smtp.downgrade import Level, Obstacle
from mtatwist.smtp.entities import MAX_DEPTH, MAX_SECTIONS
from mtatwist.smtp.header import MAX_HEADER


def convert(message: bytes, level: Level = Level.SEVEN_BIT) -> bytes:
    """The result, whole and by single octets: which must be the same."""
    assert plan_for([message], level).needed
    whole = converted([message], level)
    assert converted([bytes([octet]) for octet in message], level) == whole
    return whole


PLAIN = b"Subject: plain\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"


def multipart(*contents: bytes, boundary: bytes = b"B", fields: bytes = b"", end: bytes = b"--B--\r\n") -> bytes:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=" + boundary + b"\r\n" + fields + b"\r\n"
    return head + b"".join(b"--" + boundary + b"\r\n" + content + b"\r\n" for content in contents) + end


# Messages that are one part.


def test_text_becomes_quoted_printable() -> None:
    result = convert(PLAIN + b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe = 1 \r\n\tund\t\r\n.\r\n")
    assert result == PLAIN + (
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe =3D 1=20\r\n\tund=09\r\n.\r\n"
    )


def test_other_types_become_base64() -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    octets = bytes(range(256)) * 3
    result = convert(head + octets)
    assert b"Content-Transfer-Encoding: base64\r\n\r\nAAECAwQF" in result
    assert result.endswith(b"\r\n")
    assert fit(result)
    assert parts(result) == [("image/png", octets)]


def test_a_message_without_mime_is_given_the_charset_that_nobody_knows() -> None:
    """RFC 1428 §4."""
    result = convert(b"Subject: old\r\n\r\nna\xefve\r\n")
    assert result == (
        b"Subject: old\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\nna=EFve\r\n"
    )


def test_a_message_without_any_header_gets_one() -> None:
    result = convert(b"\xe9 at the beginning\r\nno header\r\n")
    assert result.endswith(b"\r\n\r\n=E9 at the beginning\r\nno header\r\n")
    assert b"MIME-Version: 1.0\r\n" in result


def test_a_body_that_follows_without_an_empty_line_gets_one() -> None:
    result = convert(b"Subject: x\r\nthis is n\xf6 field\r\n")
    assert b"\r\n\r\nthis is n=F6 field\r\n" in result
    assert result.startswith(b"Subject: x\r\nContent-Type:")


def test_what_needs_nothing_is_not_touched() -> None:
    for message in (b"", b"\r\n", PLAIN, PLAIN + b"\r\nascii\r\n", multipart(b"\r\nx", b"Content-Type: a/b\r\n\r\ny")):
        plan = plan_for([message])
        assert (plan.needed, plan.obstacle, plan.signed) == (False, None, False)
        assert converted([message]) == message


def test_a_wrong_label_does_not_help() -> None:
    result = convert(PLAIN + b"Content-Transfer-Encoding: 7bit\r\n\r\n\xc3\xbc\r\n")
    assert result == PLAIN + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"


def test_a_label_said_twice_is_said_once() -> None:
    fields = b"Content-Transfer-Encoding: 8bit\r\ncontent-transfer-encoding:\r\n 8BIT (twice)\r\nX-Other: yes\r\n"
    result = convert(PLAIN + fields + b"\r\n\xc3\xbc\r\n")
    assert result == PLAIN + b"Content-Transfer-Encoding: quoted-printable\r\nX-Other: yes\r\n\r\n=C3=BC\r\n"


def test_long_lines_are_encoded_with_the_rest() -> None:
    result = convert(PLAIN + b"\r\n" + b"x" * 999 + b"\r\n\xc3\xbc\r\n")
    assert fit(result)
    assert parts(result) == [("text/plain", b"x" * 999 + b"\r\n\xc3\xbc\r\n")]


def test_bare_line_ends_and_nul_in_binary_text_survive() -> None:
    octets = b"\0 a\rb\nc\r\r\n\n\r\n\r"
    result = convert(PLAIN + b"Content-Transfer-Encoding: BINARY\r\n\r\n" + octets)
    assert result.endswith(b"=00 a=0Db=0Ac=0D\r\n=0A\r\n=0D=\r\n")
    assert fit(result)
    assert parts(result) == [("text/plain", octets)]


# What a peer with 8BITMIME, but without BINARYMIME, can take.


def test_eight_bit_lines_stay_for_a_peer_that_takes_them() -> None:
    message = multipart(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc",
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\xff",
        fields=b"Content-Transfer-Encoding: binary\r\n",
    )
    result = convert(message, Level.EIGHT_BIT)
    assert result == message.replace(b"Encoding: binary\r\n\r\n\0\xff", b"Encoding: base64\r\n\r\nAP8=").replace(
        b"binary", b"8bit"
    )
    eight_bit = message.replace(b"\0", b"")
    assert not plan_for([eight_bit], Level.EIGHT_BIT).needed
    assert plan_for([eight_bit]).needed


def test_a_header_that_is_not_ascii_is_no_matter_for_such_a_peer() -> None:
    message = b"Subject: \xc3\xbc\r\n" + PLAIN + b"\r\n\xc3\xbc\r\n"
    assert not plan_for([message], Level.EIGHT_BIT).needed
    assert plan_for([message]).obstacle is Obstacle.HEADER


# Messages of many parts.


def test_only_the_parts_that_need_it_are_encoded() -> None:
    clean = b'Content-Type: text/html;\r\n charset="us-ascii"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>  \r\n'
    encoded = b"Content-Transfer-Encoding: base64\r\nContent-Type: image/gif\r\n\r\nR0lG\r\nODlh"
    message = multipart(clean, b"Content-Type: text/plain\r\n\r\n\xe4", encoded, end=b"--B--\r\nepilogue\r\n")
    assert convert(message) == message.replace(
        b"text/plain\r\n\r\n\xe4", b"text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E4"
    )


def test_nested_messages_are_converted_inside_and_say_so_outside() -> None:
    inner = PLAIN + b"Content-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4"
    message = multipart(
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner,
        fields=b"Content-Transfer-Encoding: 8bit\r\n",
    )
    result = convert(message)
    assert result.count(b"Content-Transfer-Encoding: 7bit\r\n") == 2
    assert result.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 1
    assert parts(result) == parts(message)


def test_a_forwarded_message_without_mime_gets_its_own_version_field() -> None:
    message = multipart(b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n\xe9")
    result = convert(message)
    assert result.count(b"MIME-Version: 1.0\r\n") == 2
    assert b"Subject: in\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" in result


def test_in_a_digest_parts_are_messages() -> None:
    message = multipart(b"\r\nSubject: in\r\n\r\n\xe9").replace(b"multipart/mixed", b"multipart/digest")
    result = convert(message)
    assert b"--B\r\n\r\nSubject: in\r\nContent-Type: text/plain; charset=unknown-8bit\r\n" in result


@pytest.mark.parametrize(
    ("outer", "inner"), [(b"A", b"AB"), (b"AB", b"A"), (b"A", b"A--"), (b"=_x", b"=_x=_y"), (b"A", b"A")]
)
def test_a_boundary_may_be_the_beginning_of_another(outer: bytes, inner: bytes) -> None:
    nested = multipart(b"\r\none \xe9", b"\r\ntwo \xe9", boundary=inner, end=b"--" + inner + b"--")
    message = multipart(nested, b"\r\nthree \xe9", boundary=outer, end=b"--" + outer + b"--\r\n")
    result = convert(message)
    assert fit(result)
    assert parts(result) == parts(message)


@pytest.mark.parametrize("end", [b"", b"--B--", b"--B--   \t\r\n", b"--B \t\r\n\r\nlast \xe9", b"--B--\r\n\xe9 after"])
def test_the_end_of_a_multipart_in_every_form(end: bytes) -> None:
    message = multipart(b"\r\none \xe9", b"Content-Type: a/b\r\n\r\n\xff", end=end)
    result = convert(message)
    assert fit(result)
    # Where the end is missing, the email package takes the last CRLF for the boundary's.
    assert [(kind, (octets or b"").rstrip()) for kind, octets in parts(result)] == parts(message)


def test_a_part_may_lack_its_end_in_another() -> None:
    inner = multipart(b"\r\n\xe9", boundary=b"I", end=b"no end")
    message = multipart(inner, b"\r\nnext \xe9")
    assert parts(convert(message)) == parts(message)


def test_preamble_and_epilogue_are_made_ascii() -> None:
    message = multipart(b"\r\nx").replace(b"\r\n\r\n--B", b"\r\n\r\npr\xe9\r\n--B", 1) + b"\xe9pilogue\r\n"
    result = convert(message)
    assert result == message.replace(b"\xe9", b"=E9")


def test_nothing_that_is_encoded_looks_like_a_boundary() -> None:
    # A soft line break would put "--B" at the beginning of a line; so would decoding.
    text = b"\r\n" + b"\xe9" + b"x" * 72 + b"--B\r\n" + b"y" * 75 + b"--B--\r\n--\xe9\r\n" + b"-" * 2000 + b"\r\n"
    message = multipart(text, boundary=b"B", fields=b"X-Also: --=E9\r\n")
    result = convert(message)
    assert fit(result)
    assert parts(result) == parts(message)
    assert sum(line.startswith(b"--") for line in result.split(b"\r\n")) == 2


# What can't be converted.


@pytest.mark.parametrize(
    ("message", "obstacle"),
    [
        (b"Subject: \xc3\xbc\r\n\r\nascii\r\n", Obstacle.HEADER),
        (multipart(b"Content-Description: \xc3\xbc\r\n\r\nascii"), Obstacle.HEADER),
        (multipart(b"Content-Type: message/rfc822\r\n\r\nSubject: \xc3\xbc\r\n\r\nx"), Obstacle.HEADER),
        (b"Subject: x\ny\r\n\r\nascii\r\n", Obstacle.HEADER),
        (b"Subject: \0\r\n\r\nascii\r\n", Obstacle.HEADER),
        (PLAIN + b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n", Obstacle.BODY),
        (PLAIN + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n\xff\r\n", Obstacle.BODY),
        (PLAIN + b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xff\r\n", Obstacle.BODY),
        (
            PLAIN + b"Content-Transfer-Encoding: 8bit\r\n" * 2 + b"Content-Transfer-Encoding: 7bit\r\n\r\n\xff",
            Obstacle.BODY,
        ),
        (PLAIN + b"Content-Type: text/html\r\n\r\n\xff", Obstacle.BODY),
        (multipart(b"\r\n\xff", fields=b"Content-Transfer-Encoding: base64\r\n"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"boundary=C"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"charset=B"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"boundary=B; boundary=C"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"boundary*0=B; boundary=C"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"boundary=B(omb)"), Obstacle.BODY),
        (multipart(b"\r\n\xff").replace(b"boundary=B", b"boundary=" + b"B" * 251), Obstacle.BODY),
        (multipart(b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; \xe9"), Obstacle.BODY),
        (multipart(b"Content-Type: message/partial; id=x\r\n\r\n\xe9"), Obstacle.BODY),
        (multipart(b"Content-Type: message/external-body; x=y\r\n\r\nContent-Type: a/b\r\n\r\n\xe9"), Obstacle.BODY),
        (multipart(b"X: " + b"x" * MAX_HEADER + b"\r\n\r\n\xe9"), Obstacle.BODY),
    ],
)
def test_what_no_encoding_is_allowed_for_is_said(message: bytes, obstacle: Obstacle) -> None:
    for chunks in ([message], [bytes([octet]) for octet in message[:3000]] + [message[3000:]]):
        plan = plan_for(chunks)
        assert (plan.needed, plan.obstacle) == (True, obstacle)
        assert plan.why
        with pytest.raises(ValueError, match=plan.why):
            plan.converter()


def test_what_could_not_be_converted_is_left_alone_while_it_is_ascii() -> None:
    status = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x"
    odd = b"Content-Type: multipart/mixed; boundary=I\r\nContent-Transfer-Encoding: base64\r\n\r\n--I\r\n\r\nx\r\n--I--"
    message = multipart(status, odd, b"\r\n\xe9")
    result = convert(message)
    assert status in result
    assert odd in result


@pytest.mark.parametrize("subtype", [b"global", b"global-delivery-status", b"global-headers"])
def test_internationalised_messages_may_be_encoded(subtype: bytes) -> None:
    """RFC 6532 §3.7, RFC 6533 §4."""
    content = b"Subject: \xc3\xbc\r\n\r\n\xc3\xbc"
    message = multipart(b"Content-Type: message/" + subtype + b"\r\n\r\n" + content)
    result = convert(message)
    assert b"Content-Transfer-Encoding: quoted-printable\r\n\r\nSubject: =C3=BC\r\n\r\n=C3=BC\r\n--B--" in result


def nest(depth: int) -> bytes:
    message = b"\r\n\xe9"
    for number in range(depth):
        name = b"b%d" % number
        message = multipart(message, boundary=name, end=b"--" + name + b"--")
    return message


def test_nesting_is_bounded() -> None:
    assert fit(convert(nest(MAX_DEPTH)))
    assert plan_for([nest(MAX_DEPTH + 1)]).obstacle is Obstacle.BODY


def test_the_number_of_parts_is_bounded() -> None:
    assert fit(converted([multipart(*[b"\r\n\xe9"] * (MAX_SECTIONS - 10))]))
    assert plan_for([multipart(*[b"\r\n\xe9"] * (MAX_SECTIONS + 10))]).obstacle is Obstacle.BODY
    assert not plan_for([multipart(*[b"\r\nx"] * (MAX_SECTIONS + 10))]).needed


def test_a_large_header_is_read_to_its_bound() -> None:
    padding = b"X-Padding: " + b"x" * (MAX_HEADER - len(PLAIN) - 13) + b"\r\n"
    message = PLAIN + padding + b"\r\n\xe9\r\n"
    assert len(PLAIN + padding) == MAX_HEADER
    assert converted([message]) == converted([message[:65_537], message[65_537:]])
    longer = PLAIN + b"Y" + padding + b"\r\n\xe9\r\n"
    assert {plan_for([longer[:at], longer[at:]]).obstacle for at in range(MAX_HEADER - 3, MAX_HEADER + 6)} == {
        Obstacle.BODY
    }


# Signatures.


def test_it_is_said_that_a_signature_will_break() -> None:
    signed = multipart(b"\r\n\xe9", b"Content-Type: application/pgp-signature\r\n\r\nx")
    signed = signed.replace(b"multipart/mixed", b'multipart/signed; micalg="x"')
    dkim = b"DKIM-Signature: v=1; a=rsa-sha256;\r\n b=xyz\r\n" + PLAIN + b"\r\n\xe9\r\n"
    for message in (signed, dkim):
        assert plan_for([message]).signed
        assert fit(convert(message))
    assert not plan_for([dkim.replace(b"\xe9", b"e")]).signed
    assert not plan_for([multipart(signed.replace(b"\xe9", b"e"), b"\r\n\xe9", boundary=b"C", end=b"--C--")]).signed


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Transfer-Encoding:" + b" " * 60_000 + b"(",
        b"Content-Transfer-Encoding: 8bit " + b"(" * 60_000,
        b"Content-Type: a/" + b"b" * 30_000 + b" " * 30_000 + b"!",
        b"Content-Type: multipart/b; boundary=" + b'"\\' * 30_000,
        b"Content-Type: multipart/b" + b"; " * 30_000 + b"!",
        b"Content-Type" + b" " * 60_000 + b"x",
        b"X:" + b"\r\n a" * 15_000,
    ],
)
def test_a_header_made_to_keep_us_busy_is_read_in_no_time(line: bytes) -> None:
    # Were they tried in more ways than one, the test would run into its time limit.
    part = line + b"\r\n\r\n\xe9"
    message = multipart(*[part] * 50)
    plan = plan_for([message])
    assert plan.needed
    if plan.obstacle is None:
        assert converted([message]).isascii()
