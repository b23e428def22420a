"""MAIL and RCPT parameters: only those whose extension we offer (RFC 5321 §4.1.1.11)."""

from __future__ import annotations

from mtatwist.envelope import Recipient
from mtatwist.smtp.reply import SYNTAX, Reply
from mtatwist.transaction import Transaction

BODY_TYPES = ("7BIT", "8BITMIME")


class Parameters:
    """Refuses unknown parameters (555) and values that can't be (501)."""

    name = "parameters"

    def mail(self, transaction: Transaction) -> Reply | None:
        """SIZE (RFC 1870 §6) and BODY (RFC 6152 §2)."""
        for key, value in transaction.parameters.items():
            if key == "SIZE":
                if not (value.isascii() and value.isdecimal() and len(value) <= 20):
                    return SYNTAX
            elif key == "BODY":
                if value.upper() not in BODY_TYPES:
                    return SYNTAX
            else:
                return _unknown("MAIL", key)
        return None

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        """RCPT has no parameters as long as we offer no DSN."""
        return _unknown("RCPT", next(iter(recipient.parameters))) if recipient.parameters else None


def _unknown(verb: str, key: str) -> Reply:
    return Reply(555, "5.5.4", f"Unknown {verb} parameter {key}")
