"""Replies: code, enhanced code and text are separate from start to DSN (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Reply(NamedTuple):
    """One SMTP reply.

    ``code`` is the three-digit reply code, ``enhanced`` the enhanced status code ("2.1.0") or "" where
    RFC 2034 §4 wants none (greeting, HELO, EHLO, 3xx); ``text`` may have several lines, parted by ``\\n``.
    """

    code: int
    enhanced: str
    text: str

    @lru_cache(maxsize=256)  # noqa: B019 - bounded, and most of what is said has been said before
    def encode(self) -> bytes:
        """The reply as it goes over the wire, multi-line where the text is (RFC 5321 §4.2.1)."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        *lines, last = self.text.split("\n")
        wire = "".join([f"{self.code}-{prefix}{line}\r\n" for line in lines])
        return f"{wire}{self.code} {prefix}{last}\r\n".encode("utf-8", "replace")

    @property
    def positive(self) -> bool:
        """True for 2xx and 3xx."""
        return self.code < 400

    @property
    def permanent(self) -> bool:
        """True for 5xx: trying again is no use."""
        return self.code >= 500

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}".replace("  ", " ").replace("\n", " / ")


def split_enhanced(code: int, text: str) -> Reply:
    """A Reply from a peer's ``text``: its enhanced code parted off, if it has one of the same class as ``code``.

    Each line of a multi-line reply repeats it (RFC 2034 §4).
    """
    lines = text.split("\n")
    match = _ENHANCED.match(lines[0])
    enhanced = match[1] if match and match[1][0] == str(code)[0] else ""
    if enhanced:
        lines = [line[len(enhanced) :].lstrip(" \t") if line.startswith(enhanced) else line for line in lines]
    return Reply(code, enhanced, "\n".join(_UNPRINTABLE.sub(" ", line) for line in lines))


# What we say more than once. The texts are for people; programs read the codes (design: reply rules).
OK = Reply(250, "2.0.0", "Ok")
BYE = Reply(221, "2.0.0", "Bye")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognised")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BARE_LINE_END = Reply(500, "5.5.2", "Lines end with <CR><LF>")
BAD_BYTES = Reply(550, "5.5.2", "Message has a bare <CR> or <LF>: lines end with <CR><LF>")
TOO_BIG = Reply(552, "5.3.4", "Message is larger than this server takes")
TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many hops: this message is in a loop")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients: send the others in another transaction")
NO_RELAY = Reply(550, "5.7.1", "We do not relay for that recipient")
NO_ROOM = Reply(452, "4.3.1", "Insufficient storage, try again later")
OUR_TROUBLE = Reply(451, "4.3.0", "Local trouble, try again later")
TIMEOUT = Reply(421, "4.4.2", "Timeout, closing the connection")
SHUTDOWN = Reply(421, "4.3.2", "Shutting down, try again later")
DRAINING = Reply(421, "4.3.2", "No mail is taken here now, try again later")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
AUTH_FIRST = Reply(530, "5.7.0", "Authentication required")
NOT_HTTP = Reply(421, "4.7.0", "This is SMTP, not HTTP")
