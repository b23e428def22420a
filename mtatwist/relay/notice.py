"""What there is to tell a sender about a recipient, and whether it was asked for (RFC 3461 §4.1, §5.2)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mtatwist.envelope import Handed, Recipient
from mtatwist.smtp.notify import TypedAddress, decode_orcpt
from mtatwist.smtp.reply import Reply
from mtatwist.smtp.xtext import XtextError


class Kind(Enum):
    """What a DSN is about; each DSN is about one kind. The values are those of the field Action (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


class Notice(NamedTuple):
    """One recipient, the reply that decided about it, who gave that ("" for ourselves), and when.

    ``expired``: the reply would not have failed it, but it has been tried for too long. Times are the queue's.
    """

    recipient: Recipient
    reply: Reply
    host: str
    at: float
    expired: bool = False


_KEYWORDS = {Kind.FAILED: "FAILURE", Kind.DELAYED: "DELAY", Kind.DELIVERED: "SUCCESS", Kind.RELAYED: "SUCCESS"}
_CLASSES = {Kind.FAILED: "5", Kind.DELAYED: "4", Kind.DELIVERED: "2", Kind.RELAYED: "2"}
_SUCCESS = {Handed.MAILBOX: Kind.DELIVERED, Handed.RELAYED: Kind.RELAYED, Handed.NOTIFYING: None}


def is_wanted(kind: Kind, recipient: Recipient) -> bool:
    """Does the sender want to hear of it? Without NOTIFY, of failures and delays (RFC 3461 §5.2.1)."""
    if not recipient.notify:
        return kind in (Kind.FAILED, Kind.DELAYED)
    return _KEYWORDS[kind] in recipient.notify.split(",")


def success(handed: Handed) -> Kind | None:
    """What there is to say of a delivery: nothing when the next hop sends the reports (RFC 3461 §5.2.2)."""
    return _SUCCESS[handed]


def status(kind: Kind, notice: Notice) -> str:
    """The field Status (RFC 3464 §2.3.4): the reply's enhanced code, in the class that became of it."""
    if notice.expired:
        return "5.4.7"
    _, dot, detail = notice.reply.enhanced.partition(".")
    return f"{_CLASSES[kind]}.{detail if dot else '0.0'}"


def original_recipient(recipient: Recipient) -> TypedAddress | None:
    """The address that ORCPT gave; None when there is none, or none that can be read."""
    try:
        address = decode_orcpt(recipient.orcpt)
    except XtextError:
        return None
    return address if address.address else None
