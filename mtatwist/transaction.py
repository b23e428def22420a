"""Session and transaction are two things: one connection, and MAIL to the end of its data."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtatwist.envelope import Recipient
from mtatwist.smtp.address import NULL, Address


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in.

    ``name``: who it is, in the form in which it is logged and counted. ``addresses``: what this account may send as,
    local parts as they were written, domains in wire form (mtatwist.domain); nothing else.
    """

    name: str
    addresses: frozenset[str] = frozenset()


@dataclass(slots=True)
class Session:
    """What is known of one connection.

    ``trusted``: the peer's address is in [relay] networks. ``tls`` is "" in clear, else version and cipher.
    ``client_certificate`` is the subject (RFC 4514) of the one that the client has shown, if it is good; "" if not.
    ``peer`` is an IP address, or "" where the transport has none. ``account`` is who has logged in; ``accepted`` counts
    messages.
    """

    id: str
    role: str
    peer: str
    trusted: bool = False
    helo: str = ""
    extended: bool = False
    tls: str = ""
    client_certificate: str = ""
    account: Account | None = None
    accepted: int = 0

    @property
    def user(self) -> str:
        """The name of who has logged in, "" before that."""
        return self.account.name if self.account else ""

    @property
    def protocol(self) -> str:
        """The ``with`` keyword (RFC 3848)."""
        if not self.extended:
            return "SMTP"
        return f"ESMTP{'S' if self.tls else ''}{'A' if self.user else ''}"


@dataclass(slots=True)
class Transaction:
    """One message on its way in. ``parameters`` are MAIL's; ``size`` counts the octets that came so far.

    ``named``: the recipients as RCPT gave them, each once; ``recipients`` are those that get the message for them.
    """

    session: Session
    reverse_path: Address = NULL
    parameters: dict[str, str] = field(default_factory=dict)
    recipients: list[Recipient] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def smtputf8(self) -> bool:
        """May addresses, replies and header have UTF-8 (RFC 6531)?"""
        return "SMTPUTF8" in self.parameters

    @property
    def binary(self) -> bool:
        """Is the message without lines, and CR and LF two octets like any other (RFC 3030 §3)?"""
        return self.parameters.get("BODY", "").upper() == "BINARYMIME"

    @property
    def protocol(self) -> str:
        """The ``with`` keyword of this message (RFC 6531 §4.3)."""
        protocol = self.session.protocol
        return protocol.replace("ESMTP", "UTF8SMTP") if self.parameters and self.smtputf8 else protocol

    @property
    def declared_size(self) -> int:
        """What SIZE= promised (RFC 1870 §6), 0 where it did not."""
        text = self.parameters.get("SIZE", "")
        return int(text) if text.isdecimal() else 0
