"""What the administrator says about names: fixed addresses, and domains that other servers know."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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
"""Names with fixed addresses at most; more can't be set while the server runs."""


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
        self._addresses = {ascii_name(name): tuple(of_name) for name, of_name in addresses.items()}
        self._servers = {
            ascii_name(domain): Servers(lambda of_domain=tuple(of_domain): of_domain, clock, metrics)  # type: ignore[misc]
            for domain, of_domain in servers.items()
        }

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The names with fixed addresses, and these."""
        return iter(sorted(self._addresses.items()))

    def __contains__(self, name: str) -> bool:
        return name in self._addresses

    def set(self, name: str, addresses: Sequence[str]) -> None:
        """Give ``name`` these addresses from now on, as long as the server runs. Raises ValueError."""
        name = ascii_name(name)
        if len(self._addresses) >= LIMIT and name not in self._addresses:
            raise ValueError(f"there are {LIMIT} overrides already")
        if not addresses:
            raise ValueError("no address")
        self._addresses[name] = tuple(str(ipaddress.ip_address(address)) for address in addresses)

    def remove(self, name: str) -> bool:
        """Ask the DNS for ``name`` again; tells whether it had fixed addresses."""
        return self._addresses.pop(ascii_name(name), None) is not None

    def answer(self, key: Key) -> Answer | None:
        """The answer for a name with fixed addresses."""
        addresses = self._addresses.get(key.name)
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
