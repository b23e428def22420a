"""Is an exchange this very server? Mail that we sent there would come back to us (RFC 5321 §5.1)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable

_ANY = ("", "0.0.0.0", "::")


class Ourselves:
    """Our names and addresses."""

    def __init__(
        self,
        names: Collection[str],
        listening: Callable[[], Iterable[tuple[str, int]]],
        has_address: Callable[[str], bool] | None = None,
    ) -> None:
        """``listening`` gives the addresses and ports that we accept mail on now; ``names`` are lower case.

        ``has_address``: does this machine have the address?
        """
        self._names = frozenset(names)
        self._listening = listening
        self._has_address = has_address or machine_has

    def are(self, host: str) -> bool:
        """Is ``host`` a name of ours?"""
        return host in self._names

    def have(self, address: str, port: int) -> bool:
        """Would a connection to it lead to us?

        Any address of this machine counts, whatever the port: what arrives at one may be redirected to another. Only
        on loopback addresses, which a route has to allow, several servers with ports of their own are usual.
        """
        if ipaddress.ip_address(address).is_loopback:
            return any(port == ours and on in (address, *_ANY) for on, ours in self._listening())
        return self._has_address(address)


def machine_has(address: str) -> bool:
    """Can a socket here be bound to ``address``? That is so for the machine's own. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
