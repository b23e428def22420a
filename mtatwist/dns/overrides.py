"""What the administrator says about names: fixed addresses, and domains that other servers know."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import dns.rdata
import dns.rdataclass

from mtatwist.dns.cache import Answer, Key
from mtatwist.dns.names import ascii_name
from mtatwist.dns.network import Server
from mtatwist.dns.servers import Servers

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.metrics.instruments import Instruments

LIMIT = 10_000
"""Names that can be given addresses while the server runs."""

ADDRESSES = 64
"""Addresses that one of them can be given."""


class Override(NamedTuple):
    """``addresses`` of a name. ``added``: they were set while the server runs, and don't stand in the configuration."""

    name: str
    addresses: tuple[str, ...]
    added: bool


class Overrides:
    """``addresses``: for a name, and no other record for it. ``servers``: for a domain and all below it."""

    def __init__(
        self,
        *,
        addresses: Mapping[str, Sequence[str]],
        servers: Mapping[str, Sequence[Server]],
        clock: IReactorTime,
        metrics: Instruments,
    ) -> None:
        self._configured = {ascii_name(name): tuple(of_name) for name, of_name in addresses.items()}
        # What has been set since goes first.
        self._added: dict[str, tuple[str, ...]] = {}
        self._configured_servers = {ascii_name(domain): tuple(of_domain) for domain, of_domain in servers.items()}
        self._servers = {
            domain: Servers(lambda of_domain=of_domain: of_domain, clock, metrics)  # type: ignore[misc]
            for domain, of_domain in self._configured_servers.items()
        }

    def become(self, other: Overrides) -> None:
        """Take what is configured from ``other``; what has been set since stays."""
        self._configured = other._configured
        self._configured_servers = other._configured_servers
        self._servers = other._servers

    def __iter__(self) -> Iterator[Override]:
        """The names with fixed addresses as they are in force, in the order of the alphabet."""
        for name in sorted(self._configured.keys() | self._added.keys()):
            yield Override(name, self._added.get(name) or self._configured[name], name in self._added)

    def __contains__(self, name: str) -> bool:
        return name in self._added or name in self._configured

    @property
    def domains(self) -> Mapping[str, Sequence[Server]]:
        """The domains with servers of their own, and these."""
        return self._configured_servers

    @property
    def added(self) -> int:
        """How many names have addresses that were set while the server runs."""
        return len(self._added)

    def set(self, name: str, addresses: Sequence[str]) -> None:
        """Give ``name`` these addresses from now on, as long as the server runs. Raises ValueError."""
        name = ascii_name(name)
        if len(self._added) >= LIMIT and name not in self._added:
            raise ValueError(f"there are {LIMIT} overrides already: take some of them back")
        if not 0 < len(addresses) <= ADDRESSES:
            raise ValueError(f"a name can have 1 to {ADDRESSES} addresses")
        self._added[name] = tuple(str(ipaddress.ip_address(address)) for address in addresses)

    def remove(self, name: str) -> bool:
        """Let ``name`` mean what it meant before set(); tells whether that was called."""
        return self._added.pop(ascii_name(name), None) is not None

    def answer(self, key: Key) -> Answer | None:
        """The answer for a name with fixed addresses."""
        addresses = self._added.get(key.name) or self._configured.get(key.name)
        if addresses is None:
            return None
        fitting = [each for each in addresses if key.type == ("AAAA" if ":" in each else "A")]
        records = tuple(dns.rdata.from_text(dns.rdataclass.IN, key.type, address) for address in fitting)
        return Answer(key, True, records, key.name)

    def servers(self, name: str) -> Servers | None:
        """Who knows ``name``, if it is in a domain with servers of its own; the longest domain counts."""
        while name:
            found = self._servers.get(name)
            if found is not None:
                return found
            name = name.partition(".")[2]
        return None
