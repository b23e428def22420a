"""Delivery by LMTP: the hand-over to a mailbox server, which answers for each recipient at the end (RFC 2033)."""

from __future__ import annotations

from typing import ClassVar

from mtatwist.transports.smtp import SmtpTransport


class LmtpTransport(SmtpTransport):
    """SMTP but for its greeting, LHLO, and its replies to the message: one for each recipient that was accepted."""

    verb: ClassVar[bytes] = b"LHLO"
    mailbox: ClassVar[bool] = True
