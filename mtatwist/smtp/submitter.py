"""Who MAIL says a message was submitted by: its AUTH parameter (RFC 4954 §5)."""

from __future__ import annotations

from mtatwist.smtp.address import AddressError, parse_path
from mtatwist.smtp.command import CommandError
from mtatwist.smtp.reply import Reply
from mtatwist.smtp.xtext import XtextError, decode_xtext

MAX_SUBMITTER = 500
"""Characters of the parameter as it is sent (RFC 4954 §3, (5))."""


def parse_submitter(value: str) -> str:
    """The mailbox, "" for <>: nobody knows, or is sure. Raises CommandError."""
    if value == "<>":
        return ""
    try:
        if not 0 < len(value) <= MAX_SUBMITTER:
            raise AddressError("it is empty or too long")
        mailbox = decode_xtext(value)
        address, rest = parse_path(mailbox)
        if mailbox[:1] in " <" or not address.domain or rest:
            raise AddressError("it is not a mailbox")
    except (AddressError, XtextError):
        raise CommandError(Reply(501, "5.5.4", "AUTH is <> or a mailbox in xtext")) from None
    return mailbox
