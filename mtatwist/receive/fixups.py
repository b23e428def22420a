"""What a submitted message lacks, and gets here (RFC 6409 §8): Date, Message-ID and Sender.

What is there is never changed, and the fields stand above all others: the message itself stays octet for octet.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from mtatwist.receive.received import date_time
from mtatwist.smtp.address import AddressError
from mtatwist.smtp.header import MAX_HEADER, field_values, header_end
from mtatwist.smtp.originators import mailboxes
from mtatwist.validators.send_as import owns

if TYPE_CHECKING:
    from mtatwist.transaction import Account, Transaction


class Fixups:
    """Holds one message back until its header section has come in, and puts what it lacks on top.

    A header section of more than 64 KiB passes as it is: nobody knows what it lacks.
    """

    def __init__(self, transaction: Transaction, account: Account, *, hostname: str, at: float, delimiter: str) -> None:
        """``at``: now, in the machine's time. ``delimiter``: see smtp.address.without_detail()."""
        self._transaction = transaction
        self._account = account
        self._hostname = hostname
        self._at = at
        self._delimiter = delimiter
        self._held = b""
        self._done = False
        self.added = 0

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; give what is settled."""
        if self._done:
            return data
        self._held += data
        end = header_end(self._held)
        if 0 <= end <= MAX_HEADER:
            return self._release(self._lacking(self._held[:end]))
        return self._release(b"") if end > 0 or len(self._held) >= MAX_HEADER else b""

    def end(self) -> bytes:
        """The message is all there: give what was still held of it. It has no body."""
        return b"" if self._done else self._release(self._lacking(self._held))

    def _release(self, fields: bytes) -> bytes:
        self._done = True
        held, self._held = self._held, b""
        return fields + held

    def _lacking(self, header: bytes) -> bytes:
        fields = []
        if not field_values(header, b"Date"):
            fields.append(f"Date: {date_time(int(self._at))}\r\n")
        if not field_values(header, b"Message-ID"):
            fields.append(f"Message-ID: <{secrets.token_hex(16)}@{self._hostname}>\r\n")
        if self._lacks_sender(header):
            fields.append(f"Sender: {self._transaction.reverse_path}\r\n")
        self.added = len(fields)
        return "".join(fields).encode("utf-8", "replace")

    def _lacks_sender(self, header: bytes) -> bool:
        """Do others see somebody else, or several people, where only the account's owner has sent it?

        The reverse path is the one address that is known to be theirs (RFC 6409 §8.1).
        """
        path = self._transaction.reverse_path
        if not owns(self._account, path, self._delimiter) or field_values(header, b"Sender"):
            return False
        try:
            authors = mailboxes(header, b"From")
        except AddressError:
            return True
        return len(authors) > 1 or not all(owns(self._account, each, self._delimiter) for each in authors)
