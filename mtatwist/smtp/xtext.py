"""Text inside parameters: xtext (RFC 3461 §4), and the forms of an address beyond ASCII (RFC 6533 §3)."""

from __future__ import annotations

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{1,6})\}")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_NOT_QUCHAR = re.compile(r"[^!-*,-<>-\[\]-~\x80-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class XtextError(ValueError):
    """The text is not what it claims to be encoded as; the message says so, for a person."""


def encode_xtext(text: str) -> str:
    """ASCII ``text`` as xtext. Raises XtextError when it is not ASCII: xtext has no form for that."""
    if not text.isascii():
        raise XtextError("xtext can only hold ASCII")
    return _NOT_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text)


def decode_xtext(text: str) -> str:
    """What xtext stands for. Raises XtextError when it is malformed, or stands for more than ASCII."""
    if not _XTEXT.fullmatch(text):
        raise XtextError("not valid xtext")
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    if not decoded.isascii():
        raise XtextError("xtext can only hold ASCII")
    return decoded


def encode_unicode_xtext(text: str) -> str:
    """An address as utf-8-addr-xtext: ASCII only, for servers and reports without SMTPUTF8. No surrogates."""
    return _embed(_NOT_QCHAR, text)


def encode_unitext(text: str) -> str:
    """An address as utf-8-addr-unitext, for servers and reports with SMTPUTF8. No surrogates."""
    return _embed(_NOT_QUCHAR, text)


def decode_unitext(text: str) -> str:
    """What utf-8-addr-xtext or utf-8-addr-unitext stands for. Raises XtextError.

    A hexchar of xtext is understood too: some senders encode an address of this type like any other.
    """
    bare = _HEXCHAR.sub("", _EMBEDDED.sub("", text))
    if _NOT_QUCHAR.search(bare):
        raise XtextError("not a valid UTF-8 address")
    # In one pass: what one form decodes to is not the beginning of the other.
    decoded = re.sub(rf"{_HEXCHAR.pattern}|{_EMBEDDED.pattern}", lambda match: _character(match[1] or match[2]), text)
    if _SURROGATE.search(decoded):
        raise XtextError("half of a character is no character")
    return decoded


def _embed(unsafe: re.Pattern[str], text: str) -> str:
    return unsafe.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def _character(digits: str) -> str:
    point = int(digits, 16)
    if point > 0x10FFFF:
        raise XtextError("Unicode has no such character")
    return chr(point)
