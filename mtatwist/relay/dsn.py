"""Delivery status notifications: the message about a failed delivery (RFC 3461 §6, RFC 3464)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from typing import NamedTuple

from mtatwist.envelope import Envelope, Message, Recipient
from mtatwist.smtp.header import MAX_HEADER, header_end
from mtatwist.smtp.reply import Reply

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

MAX_TEXT = 800
"""Characters of a reply that are repeated: a field must fit into a line (RFC 5322 §2.1.1), and a DSN be no bomb."""


class Failed(NamedTuple):
    """One recipient that failed, with the reply that says why, who gave it ("" for ourselves), and when."""

    recipient: Recipient
    reply: Reply
    host: str
    at: float


def failure_report(
    message: Message, failures: Sequence[Failed], original: bytes, *, hostname: str, boundary: str, now: float
) -> bytes:
    """The DSN for the recipients of ``message`` that failed together.

    ``original`` is the beginning of the message, of which the header section is returned to the sender. Goes to
    the message's reverse path with a null reverse path, so that it can never cause another (RFC 5321 §6.1). Nobody
    may be able to guess ``boundary``, or the header could end its part.
    """
    envelope = message.envelope
    kind = "" if header_is_ascii(original) else "message/global-headers"
    parts = [
        _fields(
            Date=formatdate(now, localtime=True),
            From=f"Mail Delivery System <MAILER-DAEMON@{hostname}>",
            To=f"<{_printable(envelope.reverse_path)}>",
            Subject="Undelivered mail returned to sender",
            Message_ID=f"<{boundary}@{hostname}>",
            Auto_Submitted="auto-replied",
            MIME_Version="1.0",
            Content_Type=f'multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
            Content_Transfer_Encoding="8bit" if kind else "",
        ),
        f"--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{_words(message, failures, hostname)}",
        f"--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n{_status(message, failures, hostname)}",
        f"--{boundary}\r\nContent-Type: {kind or 'text/rfc822-headers'}\r\n"
        f"{'Content-Transfer-Encoding: 8bit' + chr(13) + chr(10) if kind else ''}\r\n",
    ]
    end = header_end(original)
    header = original[: end if 0 <= end <= MAX_HEADER else MAX_HEADER]
    return "\r\n".join(parts).encode() + header.rstrip(b"\r\n") + f"\r\n\r\n--{boundary}--\r\n".encode()


def report_envelope(message: Message, original: bytes, now: float) -> Envelope:
    """From nobody to the sender, and as 8-bit as what goes back."""
    reverse_path = message.envelope.reverse_path
    to = Recipient(0, reverse_path, reverse_path.rpartition("@")[2].lower())
    return Envelope("", [to], "" if header_is_ascii(original) else "8BITMIME", received_at=now)


def header_is_ascii(original: bytes) -> bool:
    """Can the header section be returned as text/rfc822-headers (RFC 6533 §6 has the other kind)?"""
    end = header_end(original)
    return original[: end if end >= 0 else MAX_HEADER].isascii()


def _words(message: Message, failures: Sequence[Failed], hostname: str) -> str:
    """The part for people."""
    lines = [
        f"This is the mail system at {hostname}.",
        "",
        "Your message could not be delivered to the recipients below.",
        "Nothing more will be tried for them.",
        "",
    ]
    for failed in failures:
        said = f"{_printable(failed.host)} said: " if failed.host else ""
        lines += [f"<{_printable(failed.recipient.address)}>:", f"    {said}{_printable(str(failed.reply))}", ""]
    lines += [f"The message's queue id here was {message.id}.", ""]
    return "\r\n".join(lines)


def _status(message: Message, failures: Sequence[Failed], hostname: str) -> str:
    """The part for programs (RFC 3464 §2)."""
    envelope = message.envelope
    arrival = formatdate(envelope.received_at, localtime=True)
    text = _fields(
        Original_Envelope_Id=_printable(envelope.envid),
        Reporting_MTA=f"dns; {hostname}",
        Arrival_Date=arrival,
    )
    for failed in failures:
        reply = failed.reply
        text += "\r\n" + _fields(
            Original_Recipient=_printable(failed.recipient.orcpt),
            Final_Recipient=f"rfc822; {_printable(failed.recipient.address)}",
            Action="failed",
            Status=reply.enhanced if reply.enhanced.startswith("5") else "5.0.0",
            Remote_MTA=f"dns; {_printable(failed.host)}" if failed.host else "",
            Diagnostic_Code=f"smtp; {_printable(str(reply))}" if failed.host else "",
            Last_Attempt_Date=formatdate(failed.at, localtime=True),
        )
    return text


def _fields(**fields: str) -> str:
    """Header fields; underscores in the names are hyphens, empty ones are left out."""
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)


def _printable(text: str) -> str:
    """One line of ASCII: whatever a peer said, it can't add a field of its own."""
    return _UNPRINTABLE.sub("?", text[:MAX_TEXT].replace("\r\n", " / ").replace("\n", " / "))
