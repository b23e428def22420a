"""What MAIL and RCPT say about reports: RET, ENVID, NOTIFY and ORCPT (RFC 3461 §4), for both ways they travel."""

from __future__ import annotations

import re
from typing import NamedTuple

from mtatwist.smtp.command import CommandError
from mtatwist.smtp.reply import Reply
from mtatwist.smtp.xtext import XtextError, decode_unitext, decode_xtext

MAX_ENVID = 100
"""Characters of an ENVID as it is sent (RFC 3461 §4.4)."""

MAX_ORCPT = 500
"""Characters of an ORCPT as it is sent (RFC 3461 §5, (5))."""

_WANTED = ("SUCCESS", "FAILURE", "DELAY")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_TYPED = re.compile(rf"({_ATOM});(.*)", re.DOTALL)
# Graphic characters and white space, as RFC 3461 §4.2 and §4.4 have it; beyond ASCII, no C1 controls and no line ends.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class TypedAddress(NamedTuple):
    """An address of any mail system: ``kind`` ("rfc822", "utf-8", "x400") in lower case, ``address`` decoded."""

    kind: str
    address: str


def parse_ret(value: str) -> str:
    """RET's value in upper case. Raises CommandError."""
    if value.upper() not in ("FULL", "HDRS"):
        raise _error("RET is FULL or HDRS")
    return value.upper()


def parse_envid(value: str) -> str:
    """ENVID's value, as it came. Raises CommandError."""
    if not 0 < len(value) <= MAX_ENVID:
        raise _error(f"ENVID has 1 to {MAX_ENVID} characters")
    try:
        decode_envid(value)
    except XtextError as error:
        raise _error(f"ENVID: {error}") from None
    return value


def parse_notify(value: str) -> str:
    """NOTIFY's value in upper case, without repetitions: "NEVER" or a list parted by commas. Raises CommandError."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if not value.isascii() or any(word not in _WANTED for word in words):
        raise _error("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return ",".join(dict.fromkeys(words))


def parse_orcpt(value: str, *, smtputf8: bool = False) -> str:
    """ORCPT's value, as it came. Raw UTF-8 is for transactions with SMTPUTF8 (RFC 6533 §3). Raises CommandError."""
    if len(value) > MAX_ORCPT:
        raise _error(f"ORCPT has at most {MAX_ORCPT} characters")
    if not smtputf8 and not value.isascii():
        raise _error("ORCPT beyond ASCII takes SMTPUTF8")
    try:
        decode_orcpt(value)
    except XtextError as error:
        raise _error(f"ORCPT: {error}") from None
    return value


def decode_envid(value: str) -> str:
    """The envelope id that an ENVID stands for. Raises XtextError."""
    return _printable(decode_xtext(value))


def decode_orcpt(value: str) -> TypedAddress:
    """The address that an ORCPT stands for. Raises XtextError."""
    match = _TYPED.fullmatch(value)
    if match is None:
        raise XtextError("not of the form type;address")
    kind = match[1].lower()
    return TypedAddress(kind, _printable((decode_unitext if kind == "utf-8" else decode_xtext)(match[2])))


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise XtextError("control characters are not allowed")
    return text


def _error(text: str) -> CommandError:
    return CommandError(Reply(501, "5.5.4", text))
