"""Delivery status notifications: the message about what became of a message (RFC 3461 §6, RFC 3464, RFC 6533)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple

from mtatwist.domain import wire_domain
from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.relay.dsn_fields import delivery_status, fields, one_line
from mtatwist.relay.dsn_words import SUBJECTS, words
from mtatwist.relay.notice import Kind, Notice, original_recipient

_MESSAGE_ID = re.compile(rb"(?im)^message-id[ \t]*:(?:[ \t]|\r\n[ \t])*(<[!-;=?-~]{1,250}>)")


class Returned(NamedTuple):
    """What of the message goes back to its sender.

    ``header`` is the header section; with ``whole`` all of the message goes back. ``eight_bit``: what goes back has
    octets beyond ASCII. ``words`` say to people what it is.
    """

    header: bytes
    whole: bool
    eight_bit: bool
    words: str


@dataclass(frozen=True, slots=True)
class Dsn:
    """One DSN, of one kind, about some recipients of ``message``.

    It is :meth:`before`, what goes back, and :meth:`after`. Nobody may be able to guess ``boundary``, or what goes
    back could end its part. ``until`` is when a delayed message fails. Times are the queue's, in seconds since the
    epoch; ``shown`` turns them to the machine's.
    """

    kind: Kind
    message: Message
    notices: Sequence[Notice]
    returned: Returned
    hostname: str
    boundary: str
    now: float
    until: float
    shown: Callable[[float], float]

    def date(self, at: float) -> str:
        """A time as header fields and people read it (RFC 5322 §3.3)."""
        return formatdate(self.shown(at), localtime=True)

    def before(self) -> bytes:
        """All that stands before what goes back."""
        # What needs SMTPUTF8 to be read goes only to senders who use that.
        utf8 = self.message.envelope.smtputf8 and not self._has_ascii_addresses()
        text = words(self)
        status = delivery_status(self, utf8=utf8)
        eight_bit = self.returned.eight_bit or not (text.isascii() and status.isascii())
        opening = f"--{self.boundary}\r\n"
        parts = (
            self._header(eight_bit),
            opening + _part(f"text/plain; charset={'us-ascii' if text.isascii() else 'utf-8'}", not text.isascii()),
            text,
            opening + _part(f"message/{'global-' if utf8 else ''}delivery-status", not status.isascii()),
            status,
            opening + _part(self._returned_type(), self.returned.eight_bit),
            "",
        )
        return "\r\n".join(parts).encode()

    def after(self) -> bytes:
        """All that stands behind it."""
        return f"\r\n--{self.boundary}--\r\n".encode()

    def envelope(self, before: bytes) -> Envelope:
        """From nobody to the sender, and nobody is told of what becomes of it (RFC 3461 §6.1, RFC 5321 §6.1)."""
        reverse_path = sender(self.message.envelope.reverse_path)
        to = Recipient(0, reverse_path, _a_labels(reverse_path.rpartition("@")[2]), notify="NEVER")
        eight_bit = self.returned.eight_bit or not before.isascii()
        smtputf8 = not reverse_path.isascii()
        return Envelope("", [to], "8BITMIME" if eight_bit else "", smtputf8, received_at=self.now)

    def _header(self, eight_bit: bool) -> str:
        found = _MESSAGE_ID.search(self.returned.header)
        answered = found[1].decode("ascii") if found else ""
        return fields(
            Date=self.date(self.now),
            From=f"Mail Delivery System <MAILER-DAEMON@{self.hostname}>",
            To=f"<{one_line(sender(self.message.envelope.reverse_path), utf8=True)}>",
            Subject=SUBJECTS[self.kind],
            Message_ID=f"<{self.boundary}@{self.hostname}>",
            In_Reply_To=answered,
            References=answered,
            # It answers a message, whatever it has to say (RFC 3834 §5).
            Auto_Submitted="auto-replied",
            MIME_Version="1.0",
            Content_Type=f'multipart/report; report-type=delivery-status;\r\n\tboundary="{self.boundary}"',
            # What holds 8-bit parts says so (RFC 2045 §6.4).
            Content_Transfer_Encoding="8bit" if eight_bit else "",
        )

    def _returned_type(self) -> str:
        """RFC 6522 §3, and RFC 6533 §6 for header sections in UTF-8."""
        header, whole, _, _ = self.returned
        if header.isascii() or not is_utf8(header):
            return "message/rfc822" if whole else "text/rfc822-headers"
        return "message/global" if whole else "message/global-headers"

    def _has_ascii_addresses(self) -> bool:
        originals = [original_recipient(notice.recipient) for notice in self.notices]
        return all(notice.recipient.address.isascii() for notice in self.notices) and all(
            original is None or original.address.isascii() for original in originals
        )


def sender(reverse_path: str) -> str:
    """A reverse path as the address of a DSN: only a local part beyond ASCII needs SMTPUTF8."""
    local, at, domain = reverse_path.rpartition("@")
    return f"{local}{at}{_a_labels(domain)}" if local.isascii() and not domain.isascii() else reverse_path


def _a_labels(domain: str) -> str:
    """A domain as routes know it; as it stands if it can't be a name of the DNS."""
    try:
        return wire_domain(domain)
    except ValueError:
        return domain.lower()


def _part(content_type: str, eight_bit: bool) -> str:
    return fields(Content_Type=content_type, Content_Transfer_Encoding="8bit" if eight_bit else "")


def is_utf8(data: bytes) -> bool:
    """Is it valid UTF-8?"""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
