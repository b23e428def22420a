"""Command lines: verb, path and parameters (RFC 5321 §4.1)."""

from __future__ import annotations

import re
from functools import lru_cache

from mtatwist.smtp.address import Address, AddressError, parse_path
from mtatwist.smtp.reply import SYNTAX, Reply

MAX_COMMAND_LINE = 4096
"""Octets with the CRLF: 512 (RFC 5321 §4.5.3.1.4) and room for every parameter of every extension."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?")
_BDAT = re.compile(r" *(\d{1,19})(?: +(LAST))? *", re.ASCII | re.IGNORECASE)
_BDAT_TOO_LONG = re.compile(r" *\d{19,}(?: .*)?", re.ASCII)
MAX_CHUNK = 2**63 - 1


class CommandError(Exception):
    """The command can't be read; ``reply`` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class ChunkTooLarge(CommandError):
    """A BDAT size that nobody can count to: where the next command begins can't be known."""


def split(line: bytes) -> tuple[str, str]:
    """Part a line (without CRLF) into the upper-case verb and the rest. Raises CommandError."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise CommandError(Reply(500, "5.5.2", "Command is neither ASCII nor UTF-8")) from None
    if not text.isprintable() and _CONTROL.search(text):
        text = text.replace("\t", " ")
        if _CONTROL.search(text):
            raise CommandError(Reply(500, "5.5.2", "Control characters are not allowed in commands"))
    verb, _, rest = text.partition(" ")
    # Not all that is upper-cased to ASCII was ASCII before.
    return verb.upper() if verb.isascii() else verb, rest


def parse_path_command(keyword: str, rest: str) -> tuple[Address, dict[str, str]]:
    """Read what follows MAIL (``keyword`` "FROM:") or RCPT ("TO:"). Raises CommandError.

    Gives the path, and the parameters with upper-case names ("" where one has no value).
    """
    path, end, parameters = rest.partition("> ")
    if end and '"' not in path:
        # What follows differs from message to message: it must not keep us from remembering the path.
        address, _ = _path(keyword, path + ">")
    else:
        address, parameters = _path(keyword, rest)
    return address, parse_parameters(parameters) if parameters else {}


@lru_cache(maxsize=1024)
def _path(keyword: str, rest: str) -> tuple[Address, str]:
    """The path, and what follows it. People and machines write again and again to the same: it is remembered."""
    if rest[: len(keyword)].upper() != keyword:
        rest = rest.lstrip(" ")
        if rest[: len(keyword)].upper() != keyword:
            raise CommandError(
                Reply(501, "5.5.4", f"Syntax: {'MAIL' if keyword == 'FROM:' else 'RCPT'} {keyword}<address>")
            )
    try:
        address, parameters = parse_path(rest[len(keyword) :].rstrip(" "))
    except AddressError as error:
        raise CommandError(Reply(501, "5.1.7" if keyword == "FROM:" else "5.1.3", f"Bad address: {error}")) from None
    if keyword == "FROM:" and address.local and not address.domain:
        # Only a forward path may be a bare postmaster: a reverse path has to lead back (RFC 5321 §4.1.1.2).
        raise CommandError(Reply(501, "5.1.7", "Bad address: the domain is missing"))
    return address, parameters


def names_path(line: bytes) -> bool:
    """Is the line a MAIL or RCPT command that can be read?"""
    try:
        verb, rest = split(line)
        keyword = {"MAIL": "FROM:", "RCPT": "TO:"}.get(verb)
        return keyword is not None and bool(parse_path_command(keyword, rest))
    except CommandError:
        return False


def parse_parameters(text: str) -> dict[str, str]:
    """Read ``KEY=value KEY``; raises CommandError on bad syntax and on duplicates (RFC 5321 §4.1.2)."""
    parameters: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise CommandError(SYNTAX)
        key = match[1].upper()
        if key in parameters:
            raise CommandError(Reply(501, "5.5.4", f"Parameter {key} was given twice"))
        parameters[key] = match[2] or ""
    return parameters


def parse_bdat(rest: str) -> tuple[int, bool]:
    """Read a chunk's size and whether it is the last (RFC 3030 §2). Raises CommandError."""
    match = _BDAT.fullmatch(rest)
    if match is None and not _BDAT_TOO_LONG.fullmatch(rest):
        raise CommandError(Reply(501, "5.5.4", "Syntax: BDAT size [LAST]"))
    if match is None or int(match[1]) > MAX_CHUNK:
        raise ChunkTooLarge(Reply(501, "5.5.4", "No chunk is that large"))
    return int(match[1]), match[2] is not None
