"""How much an account may send, said before the message travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtatwist.envelope import Recipient
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Transaction

if TYPE_CHECKING:
    from mtatwist.validators.usage import Usage


class Rate:
    """Refuses the message or recipient that would be one too many, with 450: it may be sent later.

    The last word is that of Usage.begin(), when the data comes: others may send with the same account meanwhile. A
    group is one recipient, however many there are in it.
    """

    name = "rate"

    def __init__(self, usage: Usage | None, accounts: bool = True) -> None:
        """``usage``: None where there are no limits. ``accounts``: can anybody log in?"""
        self.idle = usage is None or not accounts
        self._usage = usage

    def mail(self, transaction: Transaction) -> Reply | None:
        """One more message?"""
        session = transaction.session
        return None if self._usage is None or session.account is None else self._usage.refusal(session, 0)

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        """One more recipient?"""
        session = transaction.session
        if self._usage is None or session.account is None:
            return None
        return self._usage.refusal(session, len(transaction.named) + 1)
