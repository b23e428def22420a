"""Refuse senders of some domains."""

from __future__ import annotations

from collections.abc import Collection

from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Transaction

UNWANTED = Reply(550, "5.7.1", "We take no mail from there")


class UnwantedSenders:
    """Says no at MAIL, and leaves RCPT and the header to others: a stage that is not defined costs nothing."""

    name = "unwanted_senders"

    def __init__(self, unwanted_domains: Collection[str]) -> None:
        self._unwanted = frozenset(unwanted_domains)

    def mail(self, transaction: Transaction) -> Reply | None:
        """None passes; a Reply refuses; an awaitable of either decides later."""
        return UNWANTED if transaction.reverse_path.domain.lower() in self._unwanted else None
