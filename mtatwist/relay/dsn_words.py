"""The part of a DSN for people: what happened to their message, who said so, and what they can do now."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mtatwist.relay.dsn_fields import one_line
from mtatwist.relay.notice import Kind, Notice, original_recipient, status

if TYPE_CHECKING:
    from mtatwist.relay.dsn import Dsn

SUBJECTS = {
    Kind.FAILED: "Undelivered mail returned to sender",
    Kind.DELAYED: "Delivery of your mail is delayed",
    Kind.DELIVERED: "Your mail was delivered",
    Kind.RELAYED: "Your mail was passed on",
}

_OPENING = {
    Kind.FAILED: "Your message could not be delivered to the recipients below. Nothing more will be tried for them.",
    Kind.DELAYED: "Your message has not been delivered to the recipients below yet. You need not send it again: "
    "delivery is tried until {until}. If it does not succeed by then, you will be told.",
    Kind.DELIVERED: "Your message was delivered to the mailboxes of the recipients below.",
    Kind.RELAYED: "Your message was passed on to the mail servers of the recipients below. These send no reports, so "
    "you will hear of it again only if they return it.",
}

# By subject and detail of the enhanced code (RFC 3463 §3), or by subject alone.
_ADVICE = {
    "1": "Please check the address: the server that takes mail for it does not know it.",
    "1.10": "This domain takes no mail. Please check the part of the address behind the @.",
    "1.2": "Please check the part of the address behind the @: there is no mail server for it.",
    "1.7": "Your own address was refused. Please check it in the settings of your mail program.",
    "1.8": "Your own address was refused: there is no mail server for it. Please check it in the settings of your mail "
    "program.",
    "2": "The mailbox can't take the message at present. Please try again later, or reach the recipient another way.",
    "3.4": "The message is too large for the recipient's mail server. Please send less at once.",
    "2.3": "The message is too large for the recipient's mailbox. Please send less at once.",
    "4": "The recipient's mail server could not be reached. Please check the part of the address behind the @, or try "
    "again later.",
    "4.6": "The mail servers for the recipient's domain are set up so that the message can't get there. Please tell "
    "the postmaster of that domain.",
    "4.7": "Delivery was tried until {at}. Please send the message again if it still matters, or reach the recipient "
    "another way.",
    "6": "The recipient's mail server can't take a message of this form. Please send it as plain text, or with another "
    "program.",
    "6.7": "The recipient's mail server can't take addresses with letters beyond ASCII. Please use another address, or "
    "send to this recipient from another.",
    "7": "The recipient's mail server refuses the message by a rule of its own. Its words above may say which; its "
    "postmaster can say more.",
}


def words(dsn: Dsn) -> str:
    """The text, in lines that end in CRLF; with what peers said as they said it, as far as it can be shown."""
    opening = _OPENING[dsn.kind].format(until=dsn.date(dsn.until))
    lines = [f"This is the mail system at {dsn.hostname}.", "", *_wrap(opening), ""]
    for notice in dsn.notices:
        lines += [*_about(dsn, notice), ""]
    lines += [*_wrap(dsn.returned.words), ""]
    lines += [f"The message's queue id here was {dsn.message.id}.", ""]
    return "\r\n".join(lines)


def _about(dsn: Dsn, notice: Notice) -> Iterator[str]:
    kind, address = dsn.kind, notice.recipient.address
    original = original_recipient(notice.recipient)
    line = f"<{one_line(address, utf8=True)}>"
    if original and original.kind in ("rfc822", "utf-8") and original.address != address:
        line += f" (sent to <{one_line(original.address, utf8=True)}>)"
    yield f"{line}:"
    said = one_line(str(notice.reply), utf8=True)
    host = one_line(notice.host) if not notice.host.startswith("unix:") else "Our mailbox server"
    if kind in (Kind.FAILED, Kind.DELAYED):
        yield from _wrap(f"{host} said: {said}" if host else said, "    ")
    elif host:
        yield from _wrap(f"{host} took it: {said}", "    ")
    elif kind is Kind.DELIVERED:
        yield "    It was delivered to the mailbox."
    if kind is Kind.FAILED:
        detail = status(kind, notice).partition(".")[2]
        advice = _ADVICE.get(detail) or _ADVICE.get(detail.partition(".")[0])
        if advice:
            yield from _wrap(advice.format(at=dsn.date(notice.at)), "    ")


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, 78, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
