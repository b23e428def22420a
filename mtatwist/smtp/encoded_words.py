"""Encoded words (RFC 2047) where addresses stand: what a reader sees that decodes before it looks for addresses."""

from __future__ import annotations

import binascii
import re

from mtatwist.smtp.address import MAX_DOMAIN, MAX_LOCAL_PART, AddressError

MOST_RUNS = 100
"""Places of one field with encoded words; a field with more of them can't be read."""

_WORD = r"=\?([^?]*)\?([bBqQ])\?([^?]*)\?="
_ONE = re.compile(_WORD)
_RUN = re.compile(rf"{_WORD}(?:[ \t]*{_WORD})*")
_BETWEEN = re.compile(r'[\s<>,;:"()]+')
_IN_BRACKETS = re.compile(r"<([^<>]*)>")
_LONGEST = MAX_LOCAL_PART + MAX_DOMAIN + 1

# Never what the peer names: Python remembers each unknown name for ever, and some of its codecs take their time. In all
# others that readers know, the characters of an address are those of ASCII.
_CHARSETS = {
    "utf-7": "utf-7",
    "utf-16": "utf-16",
    "utf-16be": "utf-16-be",
    "utf-16le": "utf-16-le",
    "utf-32": "utf-32",
    "iso-8859-1": "latin-1",
    "windows-1252": "latin-1",
}


def hidden_addresses(value: str) -> list[str]:
    """What looks like an address once the encoded words in a field's value are decoded, wherever they stand.

    That is what has "@" and no blanks, or has "@" and stands in angle brackets: "Alice @ Home" is a name. Raises
    AddressError when there are too many encoded words.
    """
    found: list[str] = []
    for count, run in enumerate(_RUN.finditer(value), 1):
        if count > MOST_RUNS:
            raise AddressError("there are too many encoded words")
        # What touches it belongs to it.
        before = _BETWEEN.split(value[max(0, run.start() - _LONGEST) : run.start()])[-1]
        behind = _BETWEEN.split(value[run.end() : run.end() + _LONGEST])[0]
        text = before + "".join(_decoded(*word) for word in _ONE.findall(run[0])) + behind
        if "@" in text:
            found += [each for each in _IN_BRACKETS.findall(text) if "@" in each]
            found += [each for each in _BETWEEN.split(_IN_BRACKETS.sub(" ", text)) if "@" in each.strip("@")]
    return found


def _decoded(charset: str, encoding: str, text: str) -> str:
    """Whatever it is, it gives some text."""
    raw = text.encode("utf-8", "replace")
    if encoding in "qQ":
        raw = binascii.a2b_qp(raw, header=True)
    else:
        try:
            raw = binascii.a2b_base64(raw + b"==")
        except binascii.Error:
            return "\ufffd"
    return raw.decode(_CHARSETS.get(charset.partition("*")[0].lower(), "utf-8"), "replace")
