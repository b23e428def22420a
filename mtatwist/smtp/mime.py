"""What the header section of a message or body part says of its body, and how to say something else (RFC 2045, 2046).

Only what a transfer agent needs to find the parts of a message and to encode them. Where a header can be read in two
ways, it is not read at all: the part is then called :attr:`Kind.UNREADABLE`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

MAX_BOUNDARY = 250
"""Octets of a boundary; RFC 2046 §5.1.1 allows 70, and some programs write longer ones."""

_REST_OF_FIELD = re.compile(rb"[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+)(?:\r\n|\Z)")
# Possessive throughout: nothing in a header section makes these try twice.
_TYPE = re.compile(
    rb"[ \t]*+([!#$%&'*+.^_`{|}~0-9a-z-]++)/([!#$%&'*+.^_`{|}~0-9a-z-]++)[ \t]*+(?=[;(]|\Z)", re.IGNORECASE
)
_PARAMETER = re.compile(
    rb"[ \t]*+;[ \t]*+"
    rb'(?:([^ \t=;"()]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|([^ \t;"()\\]*+))[ \t]*+(?=;|\Z))?+',
    re.DOTALL,
)
_TOKEN = re.compile(rb"[ \t]*+([^ \t;(]*+)[ \t;]*+(?:\(.*\)[ \t]*+)?", re.DOTALL)

_ENCODING = b"content-transfer-encoding"
_IDENTITY = ("7bit", "8bit", "binary")

_ENCODABLE_MESSAGES = ("global", "global-headers", "global-delivery-status", "global-disposition-notification")
"""The subtypes of message that may be encoded (RFC 6532 §3.7, RFC 6533 §4 to §6); all others never (RFC 2045 §6.4)."""


class Kind(Enum):
    """What a part is to somebody who wants to encode it."""

    TEXT = "text"  # lines to be read: quoted-printable
    OTHER = "other"  # anything else that may be encoded: base64
    ENCODED = "encoded"  # is quoted-printable or base64 already, or in an encoding that we don't know
    MULTIPART = "multipart"
    MESSAGE = "message"  # message/rfc822
    UNENCODABLE = "unencodable"  # a type that no encoding is allowed for
    UNREADABLE = "unreadable"  # its header section says too much, or too little


class PartHeader(NamedTuple):
    """``kind`` says what the body is; ``label`` is its Content-Transfer-Encoding, "" if there is none.

    ``boundary`` is that of a multipart; ``subtype`` is lower case.
    """

    kind: Kind
    subtype: str
    label: str
    boundary: bytes = b""


class Field(NamedTuple):
    """Where a field stands in its header section, its CRLF included, and its value, in one line."""

    start: int
    end: int
    value: bytes


def find_fields(section: bytes, name: bytes) -> list[Field]:
    """The fields of this ``name`` (lower case). Hundreds of others cost little: none of them is looked at."""
    found = []
    lowered = b"\n" + section.lower()
    at = lowered.find(b"\n" + name)
    while at >= 0:
        if match := _REST_OF_FIELD.match(section, at + len(name)):
            found.append(Field(at, match.end(), match[1].replace(b"\r\n", b"")))
        at = lowered.find(b"\n" + name, at + 1)
    return found


def read_header(section: bytes, default: str = "text/plain") -> PartHeader:
    """What ``section`` says; ``default`` is the type of a part that gives none (RFC 2046 §5.1.5)."""
    types = [field.value for field in find_fields(section, b"content-type")]
    label = _label([field.value for field in find_fields(section, _ENCODING)])
    match = _TYPE.match(types[0] if types else default.encode())
    # RFC 2045 §5.2: what can't be read as a type is plain text.
    main, subtype = (match[1].lower().decode(), match[2].lower().decode()) if match else ("text", "plain")
    if label is None or (len(types) > 1 and len(set(types)) > 1):
        return PartHeader(Kind.UNREADABLE, subtype, label or "")
    if main == "multipart":
        boundary = _boundary(types[0][match.end() :]) if match and types else b""
        usable = 0 < len(boundary) <= MAX_BOUNDARY and label in ("", *_IDENTITY)
        return PartHeader(Kind.MULTIPART if usable else Kind.UNREADABLE, subtype, label, boundary)
    if main == "message" and subtype == "rfc822":
        return PartHeader(Kind.MESSAGE if label in ("", *_IDENTITY) else Kind.UNREADABLE, subtype, label)
    if label not in ("", *_IDENTITY):
        return PartHeader(Kind.ENCODED, subtype, label)
    if main == "message" and subtype not in _ENCODABLE_MESSAGES:
        return PartHeader(Kind.UNENCODABLE, subtype, label)
    return PartHeader(Kind.TEXT if main in ("text", "message") else Kind.OTHER, subtype, label)


def relabelled(section: bytes, label: str) -> bytes:
    """``section`` with its Content-Transfer-Encoding replaced by ``label``, or added at the end."""
    line = f"Content-Transfer-Encoding: {label}\r\n".encode()
    first, *others = find_fields(section, _ENCODING) or [Field(len(section), len(section), b"")]
    kept = [section[: first.start], line]
    at = first.end
    for field in others:
        kept.append(section[at : field.start])
        at = field.end
    return b"".join(kept) + section[at:]


def _label(values: list[bytes]) -> str | None:
    """The one label of all fields, or None when they don't agree or can't be read."""
    labels = set()
    for value in values:
        match = _TOKEN.fullmatch(value)
        if match is None:
            return None
        labels.add(match[1].lower().decode("ascii", "replace"))
    if len(labels) > 1:
        return None
    return labels.pop() if labels else ""


def _boundary(parameters: bytes) -> bytes:
    """The boundary in the parameters of a Content-Type, or nothing if there is not exactly one that is plain to see."""
    found = []
    at = 0
    while at < len(parameters) and (match := _PARAMETER.match(parameters, at)):
        at = match.end()
        name = (match[1] or b"").lower()
        # RFC 2231 would allow the pieces boundary*0, boundary*1; nobody writes them, unless to confuse.
        if name.startswith(b"boundary*"):
            return b""
        if name == b"boundary":
            quoted = match[2]
            found.append(match[3] if quoted is None else re.sub(rb"(?s)\\(.)", rb"\1", quoted))
    if at < len(parameters) or len(found) != 1:
        return b""
    # RFC 2046 §5.1.1: a boundary does not end with white space.
    return found[0].rstrip(b" \t")
