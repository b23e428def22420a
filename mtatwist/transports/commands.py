"""MAIL and RCPT with the parameters that a server has offered to take."""

from __future__ import annotations

from mtatwist.envelope import Message, Recipient
from mtatwist.smtp.notify import decode_orcpt
from mtatwist.smtp.xtext import XtextError, encode_unicode_xtext
from mtatwist.transports.form import Form


def mail_command(message: Message, path: str, form: Form, offered: dict[str, str]) -> bytes:
    """MAIL (RFC 5321 §4.1.1.2) with SIZE, BODY, SMTPUTF8, RET and ENVID (RFC 1870, 6152, 3030, 6531, 3461)."""
    envelope = message.envelope
    line = f"MAIL FROM:<{path}>"
    if "SIZE" in offered and form.conversion is None:
        line += f" SIZE={message.size}"
    if form.body:
        line += f" BODY={form.body}"
    if form.smtputf8:
        line += " SMTPUTF8"
    if "DSN" in offered:
        if envelope.ret:
            line += f" RET={envelope.ret}"
        if envelope.envid:
            line += f" ENVID={envelope.envid}"
    return line.encode()


def rcpt_command(recipient: Recipient, path: str, form: Form, offered: dict[str, str]) -> bytes:
    """RCPT (RFC 5321 §4.1.1.3) with NOTIFY and ORCPT (RFC 3461 §4); an ORCPT nobody gave is not made up (§5.2.1)."""
    line = f"RCPT TO:<{path}>"
    if "DSN" in offered:
        if recipient.notify:
            line += f" NOTIFY={recipient.notify}"
        orcpt = _orcpt(recipient.orcpt, form)
        if orcpt:
            line += f" ORCPT={orcpt}"
    return line.encode()


def _orcpt(orcpt: str, form: Form) -> str:
    """As it came; raw UTF-8 takes another form where SMTPUTF8 is not spoken (RFC 6533 §3)."""
    if form.smtputf8 or orcpt.isascii():
        return orcpt
    try:
        return f"utf-8;{encode_unicode_xtext(decode_orcpt(orcpt).address)}"
    except XtextError:
        return ""
