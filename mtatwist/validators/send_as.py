"""Send-as: who has logged in sends under addresses of their own (RFC 6409 §6.1)."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from mtatwist.domain import wire_domain
from mtatwist.log import EventLogger
from mtatwist.smtp.address import NULL, Address, AddressError, is_dot_string, parse_path, without_detail
from mtatwist.smtp.header import MAX_HEADER, header_end
from mtatwist.smtp.originators import mailboxes
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Account, Transaction

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = EventLogger()

NOT_YOURS = Reply(553, "5.7.1", "You may not send from this address: it is none of yours")
FROM_NOT_YOURS = Reply(553, "5.7.1", "The From or Sender field has an address that is none of yours, or can't be read")
LOGGED = 200
"""Characters of an address in the log."""


def owns(account: Account, address: Address, delimiter: str) -> bool:
    """May this account send as ``address``, or as what it is without its detail?

    Upper and lower case of local parts is all the same, as it is to directories (but RFC 5321 §2.4); so are two ways
    to encode the same characters, and U-labels and A-labels. A detail that needs quotes is none.
    """
    own = _own(account.addresses)
    try:
        if _canonical(address) in own:
            return True
        plain = without_detail(address.local, delimiter)
        # A detail that needs quotes has room for a whole name and address, which some readers show.
        strippable = plain != address.local and is_dot_string("x" + address.local[len(plain) :])
        return strippable and _canonical(address._replace(local=plain)) in own
    except ValueError:
        # No domain at all.
        return False


class SendAs:
    """The reverse path is one of the account's addresses. With the empty one, the From field has to be.

    What the header section says beside a reverse path that is theirs is a matter of policy.
    """

    name = "send_as"

    def __init__(
        self, *, recipient_delimiter: str, from_mismatch: str, metrics: Instruments, accounts: bool = True
    ) -> None:
        """``from_mismatch``: "off", "log" or "reject". ``accounts``: can anybody log in?"""
        self.idle = not accounts
        self._delimiter = recipient_delimiter
        self._policy = from_mismatch
        self._metrics = metrics

    def mail(self, transaction: Transaction) -> Reply | None:
        """Judge the reverse path."""
        account, path = transaction.session.account, transaction.reverse_path
        if account is None or path == NULL or owns(account, path, self._delimiter):
            return None
        self._metrics.send_as_refused.value += 1
        _log.info("send_as_refused", session=transaction.session.id, user=account.name, reverse_path=str(path)[:LOGGED])
        return NOT_YOURS

    def header(self, transaction: Transaction, header: bytes) -> Reply | None:
        """Judge the From and Sender fields."""
        account, null = transaction.session.account, transaction.reverse_path == NULL
        if account is None or (self._policy == "off" and not null):
            return None
        why = self._mismatch(account, header, null)
        if why is None:
            return None
        refuse = null or self._policy == "reject"
        self._metrics.from_mismatches.value += 1
        if refuse:
            self._metrics.send_as_refused.value += 1
        _log.info(
            "from_mismatch",
            session=transaction.session.id,
            user=account.name,
            reverse_path=str(transaction.reverse_path)[:LOGGED],
            why=why,
            refused=refuse,
        )
        return FROM_NOT_YOURS if refuse else None

    def _mismatch(self, account: Account, header: bytes, author_wanted: bool) -> str | None:
        """What is wrong with what the header section says, in a few words."""
        if len(header) >= MAX_HEADER and header_end(header) < 0:
            return "the header section is too long to be judged"
        for name in ("From", "Sender"):
            try:
                named = mailboxes(header, name.encode())
            except AddressError as error:
                return f"{name} can't be read: {error}"
            for each in named:
                if not owns(account, each, self._delimiter):
                    return f"{name}: {each}"[:LOGGED]
            if author_wanted and not named and name == "From":
                return "there is no From"
        return None


@lru_cache(maxsize=1024)
def _own(addresses: frozenset[str]) -> frozenset[str]:
    """The addresses of an account in the form in which they are compared."""
    own = set()
    for text in addresses:
        try:
            own.add(_canonical(parse_path(f"<{text}>")[0]))
        except ValueError:
            # A directory has all kinds of values. It is nobody's address.
            continue
    return frozenset(own)


def _canonical(address: Address) -> str:
    """Raises ValueError when it is the empty address, or its domain can be none."""
    if not address.domain:
        raise ValueError("not a mailbox")
    return f"{unicodedata.normalize('NFC', address.local.lower())}@{wire_domain(address.domain)}"
