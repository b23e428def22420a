"""The part of a DSN for programs (RFC 3464 §2, RFC 6533 §4), and text that peers gave as text of a field."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from mtatwist.relay.notice import Kind, Notice, original_recipient, status
from mtatwist.smtp.notify import TypedAddress, decode_envid
from mtatwist.smtp.xtext import XtextError, encode_unicode_xtext

if TYPE_CHECKING:
    from mtatwist.relay.dsn import Dsn

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

MAX_TEXT = 800
"""Octets of a reply that are repeated: a field must fit into a line (RFC 5322 §2.1.1), and a DSN be no bomb."""

_MAX_ADDRESS = 970
"""Octets of an address with its type; the longest of SMTP (RFC 5321 §4.5.3.1), all of it encoded, has fewer."""


def fields(**values: str) -> str:
    """Header fields; underscores in the names are hyphens, empty ones are left out."""
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in values.items() if value)


def one_line(text: str, *, utf8: bool = False, limit: int = MAX_TEXT) -> str:
    """One line of so many octets, without control characters: whatever a peer said, it can't add a field."""
    text = text[:limit].replace("\r\n", " / ").replace("\n", " / ")
    if not utf8:
        return _UNPRINTABLE.sub("?", text)[:limit]
    # isprintable() knows no control, format or separator character, and no lone surrogate.
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text.encode()[:limit].decode(errors="ignore")


def delivery_status(dsn: Dsn, *, utf8: bool) -> str:
    """A group of fields about the message and one about each recipient; in ASCII, unless ``utf8``."""
    envelope = dsn.message.envelope
    groups = [
        fields(
            Original_Envelope_Id=_envelope_id(envelope.envid),
            Reporting_MTA=f"dns; {dsn.hostname}",
            Arrival_Date=dsn.date(envelope.received_at),
        )
    ]
    groups += [_recipient(dsn, notice, utf8) for notice in dsn.notices]
    return "\r\n".join(groups)


def _recipient(dsn: Dsn, notice: Notice, utf8: bool) -> str:
    reply, host = notice.reply, notice.host
    original = original_recipient(notice.recipient)
    final = notice.recipient.address
    return fields(
        Original_Recipient=_address(original, utf8) if original else "",
        Final_Recipient=_address(TypedAddress("rfc822" if final.isascii() else "utf-8", final), utf8),
        Action=dsn.kind.value,
        Status=status(dsn.kind, notice),
        Remote_MTA=_remote(host),
        # A type of our own for what no other server said (RFC 3464 §2.1.2).
        Diagnostic_Code=f"{'smtp' if host else 'x-mtatwist'}; {one_line(str(reply), utf8=utf8)}",
        Last_Attempt_Date=dsn.date(notice.at),
        Will_Retry_Until=dsn.date(dsn.until) if dsn.kind is Kind.DELAYED else "",
    )


def _remote(host: str) -> str:
    """A name, or an address literal (RFC 5321 §4.1.3). The path of a socket here is nobody's business."""
    if not host or host.startswith("unix:"):
        return ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"dns; {one_line(host)}"
    return f"dns; [{'IPv6:' if address.version == 6 else ''}{address}]"


def _envelope_id(envid: str) -> str:
    try:
        return one_line(decode_envid(envid))
    except XtextError:
        return ""


def _address(typed: TypedAddress, utf8: bool) -> str:
    """An address with its type. One that doesn't fit is left out: a part of it would be somebody else's."""
    address = typed.address
    if typed.kind == "utf-8" and not utf8:
        address = encode_unicode_xtext(address.encode(errors="replace").decode())
    line = f"{typed.kind}; {one_line(address, utf8=utf8, limit=_MAX_ADDRESS)}"
    return line if len(f"{typed.kind}; {address}".encode(errors="replace")) <= _MAX_ADDRESS else ""
