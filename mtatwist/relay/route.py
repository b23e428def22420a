"""Which way a recipient's mail goes: the first matching [[route]], else to the exchanges of its domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mtatwist.envelope import Recipient
from mtatwist.metrics.instruments.relaying import TRANSPORTS
from mtatwist.smtp.address import drop_detail
from mtatwist.smtp.reply import Reply
from mtatwist.transports import maildir


class Route(NamedTuple):
    """One way: ``domain`` is a name, "*.name" for its subdomains, or "*"; ``transport`` names one of the registry.

    ``next_hop`` is a smart host, a socket or a directory; None is delivery by MX, to ``mx_port`` of the exchanges.
    ``connections`` is the most that may be open to one next hop at once; ``tls`` is none, may, require or verify.
    ``mx_loopback``: exchanges may have loopback addresses.
    """

    domain: str
    transport: str
    next_hop: str | None = None
    tls: str = "may"
    connections: int = 20
    mx_port: int = 25
    mx_loopback: bool = False

    @property
    def destinations(self) -> str:
        """The class of destinations that it leads to, as metrics have it: see TRANSPORTS."""
        if self.transport == "smtp":
            return "mx" if self.next_hop is None else "smart_host"
        return self.transport if self.transport in TRANSPORTS else "other"

    def matches(self, domain: str) -> bool:
        """Does this route lead to ``domain`` (lower case)?"""
        if self.domain == "*":
            return True
        if self.domain.startswith("*."):
            return domain.endswith(self.domain[1:])
        return domain == self.domain


BY_MX = Route("*", "smtp")
"""The last route, which need not be written (RFC 5321 §5.1)."""


def choose(routes: Sequence[Route], domain: str) -> Route:
    """The first route that matches."""
    for route in routes:
        if route.matches(domain):
            return route
    return BY_MX


def destination(route: Route, domain: str) -> str:
    """What the route's transport is to connect to: its next hop, or the domain whose exchanges are to be found."""
    return route.next_hop or domain


def refuse_mailbox(routes: Sequence[Route], recipient_delimiter: str, recipient: Recipient) -> Reply | None:
    """The failure that is certain before a delivery is tried, so that the receiver can refuse the recipient."""
    if choose(routes, recipient.domain).transport != "maildir":
        return None
    return maildir.refuse(drop_detail(recipient.address, recipient_delimiter))
