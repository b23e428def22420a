"""Relay permission: who may send to whom. Without it the server would be an open relay."""

from __future__ import annotations

from collections.abc import Callable

from mtatwist.envelope import Recipient
from mtatwist.smtp.address import DomainSet
from mtatwist.smtp.reply import AUTH_FIRST, NO_RELAY, Reply
from mtatwist.transaction import Transaction


class Relay:
    """Mail for our domains comes from anyone; mail for others from authenticated users and trusted networks.

    A submission listener takes nothing from anyone who has not authenticated (RFC 6409 §4.3).
    """

    name = "relay"

    def __init__(
        self, domains: DomainSet, refuse_mailbox: Callable[[Recipient], Reply | None] = lambda recipient: None
    ) -> None:
        """``refuse_mailbox`` tells of recipients whose delivery would fail for certain: told now, nothing bounces."""
        self._domains = domains
        self._refuse_mailbox = refuse_mailbox

    def mail(self, transaction: Transaction) -> Reply | None:
        """Submission needs a user."""
        session = transaction.session
        return AUTH_FIRST if session.role == "submission" and not session.user else None

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        """Our domains for everyone, the world for our own."""
        if recipient.domain in self._domains or transaction.session.user or transaction.session.trusted:
            return self._refuse_mailbox(recipient)
        return NO_RELAY
