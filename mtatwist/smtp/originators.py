"""Who a message says it is from: the mailboxes in its From and Sender fields (RFC 5322 §3.6.2, RFC 6854).

Made for judging, not for showing: what two readers could read in two ways counts in both, and what can't be read is
an error. The display name is not looked at, but for encoded words that hide addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mtatwist.smtp.address import MAX_DOMAIN, MAX_LOCAL_PART, Address, AddressError
from mtatwist.smtp.encoded_words import hidden_addresses
from mtatwist.smtp.header import field_values

MOST_MAILBOXES = 100
"""Mailboxes of one kind that a message may name; with more of them it can't be read."""

_TOKEN = re.compile(
    r"""[ \t]*(?:
        (?P<quoted>"(?:[^"\\\x00]|\\[^\x00])*")
      | (?P<literal>\[[^\[\]\\\x00-\x20\x7f]*\])
      | (?P<special>[<>,;:@.(])
      | (?P<atom>[^\x00-\x20\x7f()<>@,;:\\".\[\]]+)
      | $)""",
    re.VERBOSE,
)
_COMMENT_PART = re.compile(r"[^()\\]*(?:\\.[^()\\]*)*([()])")
_Tokens = list[tuple[str, str]]
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
# NEL, as UTF-8 and as a lone octet, and the separators of lines and paragraphs.
_LINE_ENDS = ("\x85", "\udc85", "\u2028", "\u2029")


def mailboxes(header: bytes, name: bytes) -> list[Address]:
    """Those of all fields called ``name`` in the header section; none when there is no such field.

    Local parts are without quotes; octets that are not UTF-8 become U+FFFD. Raises AddressError when a field can't be
    read or names nobody, and when anything in the header section could end a line, or a name, for some readers only.
    """
    _check_characters(header)
    found: list[Address] = []
    for value in field_values(header, name):
        text = value.decode("utf-8", "replace")
        named = _mailboxes(text)
        if not named:
            raise AddressError("it names nobody")
        found += named
        if "=?" in text:
            found += [_addr_spec(list(_tokens(each))) for each in hidden_addresses(text)]
        if len(found) > MOST_MAILBOXES:
            raise AddressError("there are too many mailboxes")
    return found


def _check_characters(header: bytes) -> None:
    if len(header.translate(None, _CONTROLS)) < len(header):
        raise AddressError("there is a control character in the header section")
    if not header.isascii():
        text = header.decode("utf-8", "surrogateescape")
        if text.startswith("\ufeff") or any(each in text for each in _LINE_ENDS):
            raise AddressError("there is something in the header section that may be the end of a line")


def _mailboxes(value: str) -> list[Address]:
    """Those of a list of mailboxes and groups; empty elements are skipped (RFC 5322 §4.4)."""
    found: list[Address] = []
    words: _Tokens = []
    bracketed = False  # just behind ">"
    tokens = _tokens(value)
    for kind, text in tokens:
        if kind == "special" and text in ",;":
            if words:
                found.append(_addr_spec(words))
            words, bracketed = [], False
        elif bracketed or text == ">":
            raise AddressError("a bracket where none can be, or something behind one")
        elif kind == "special" and text == "<":
            if ("special", "@") in words:
                # A display name that is an address, without the quotes it needs: some readers show that.
                found.append(_addr_spec(words))
            found.append(_addr_spec(_until_bracket(tokens)))
            words, bracketed = [], True
        elif kind == "special" and text == ":":
            if ("special", "@") in words:
                raise AddressError("a group is called like a mailbox")
            words = []
        else:
            words.append((kind, text))
        if len(found) > MOST_MAILBOXES:
            raise AddressError("there are too many mailboxes")
    if words:
        found.append(_addr_spec(words))
    return found


def _until_bracket(tokens: Iterator[tuple[str, str]]) -> _Tokens:
    inside: _Tokens = []
    for token in tokens:
        if token == ("special", ">"):
            return inside
        inside.append(token)
    raise AddressError("a bracket is not closed")


def _addr_spec(tokens: _Tokens) -> Address:
    """local-part "@" domain, blanks between its words allowed (RFC 5322 §4.4)."""
    at = next((index for index, token in enumerate(tokens) if token == ("special", "@")), -1)
    if at < 0:
        raise AddressError("not a mailbox")
    local, domain = tokens[:at], tokens[at + 1 :]
    literal = len(domain) == 1 and domain[0][0] == "literal"
    found = Address(_dotted(local, ("atom", "quoted")), domain[0][1] if literal else _dotted(domain, ("atom",)))
    # What comes next, such as composing characters, may take the square of their number.
    if len(found.local.encode()) > MAX_LOCAL_PART or len(found.domain.encode()) > MAX_DOMAIN:
        raise AddressError("an address is too long")
    return found


def _dotted(tokens: _Tokens, kinds: tuple[str, ...]) -> str:
    """Words of these kinds with a dot between each two."""
    dots = [text for kind, text in tokens[1::2] if kind == "special" and text == "."]
    if len(tokens) % 2 == 0 or len(dots) != len(tokens) // 2 or any(kind not in kinds for kind, _ in tokens[::2]):
        raise AddressError("not a mailbox")
    return ".".join(re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "quoted" else text for kind, text in tokens[::2])


def _tokens(value: str) -> Iterator[tuple[str, str]]:
    """What ``value`` is made of, without blanks and comments (RFC 5322 §3.2)."""
    at = 0
    while at < len(value):
        match = _TOKEN.match(value, at)
        if match is None:
            raise AddressError("a character that can't be there")
        at = match.end()
        if match["special"] == "(":
            at = _comment_end(value, at)
        elif match.lastgroup is not None:
            yield match.lastgroup, match[match.lastgroup]


def _comment_end(value: str, at: int) -> int:
    depth = 1
    while depth:
        match = _COMMENT_PART.match(value, at)
        if match is None:
            raise AddressError("a comment is not closed")
        depth += 1 if match[1] == "(" else -1
        at = match.end()
    return at
