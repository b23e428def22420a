"""Devices that can't log in: a network from which mail is relayed, but only under some addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mtatwist.domain import wire_domain
from mtatwist.log import EventLogger
from mtatwist.smtp.address import NULL, Address
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Transaction

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = EventLogger()

NOT_FROM_HERE = Reply(553, "5.7.1", "Clients at your network address may not send from this mail address")

PEERS_KNOWN = 1024
LOGGED = 200
"""Characters of an address in the log."""


class Device:
    """Who comes from a device's network, and has not logged in, sends from the addresses of that device.

    The smallest network that a client is in decides, be it a device's or one that may send from anywhere.
    """

    name = "device"

    def __init__(
        self, devices: Sequence[tuple[Network, Sequence[str]]], networks: Sequence[Network], metrics: Instruments
    ) -> None:
        """``devices``: networks with their senders: addresses, "@" and a domain, or "<>"; domains in wire form.
        ``networks`` may send from any address."""
        rules = [(network, frozenset(map(str.lower, senders))) for network, senders in devices]
        self._rules: list[tuple[Network, frozenset[str] | None]] = sorted(
            # Of two that are the same, the one that says more comes first.
            [*rules, *((network, None) for network in networks)],
            key=lambda rule: -rule[0].prefixlen,
        )
        self.idle = not rules
        self._metrics = metrics
        self._senders = lru_cache(maxsize=PEERS_KNOWN)(self._find)

    def mail(self, transaction: Transaction) -> Reply | None:
        """Judge the reverse path."""
        session = transaction.session
        if self.idle or not session.trusted or session.account is not None:
            return None
        senders = self._senders(session.peer)
        path = transaction.reverse_path
        if senders is None or _is_one(path, senders):
            return None
        self._metrics.devices_refused.value += 1
        _log.info("device_refused", session=session.id, peer=session.peer, reverse_path=str(path)[:LOGGED])
        return NOT_FROM_HERE

    def _find(self, peer: str) -> frozenset[str] | None:
        address = ipaddress.ip_address(peer)
        return next((senders for network, senders in self._rules if address in network), None)


def _is_one(path: Address, senders: frozenset[str]) -> bool:
    if path == NULL:
        return "<>" in senders
    try:
        domain = wire_domain(path.domain)
    except ValueError:
        return False
    return f"@{domain}" in senders or f"{path.local.lower()}@{domain}" in senders
