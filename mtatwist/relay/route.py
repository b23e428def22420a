"""Which way a recipient's mail goes: the first matching [[route]]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Route(NamedTuple):
    """One way: ``domain`` is a name, "*.name" for its subdomains, or "*"; ``transport`` names one of the registry.

    ``connections`` is the most that may be open to the next hop at once; ``tls`` is none, may, require or verify.
    """

    domain: str
    transport: str
    next_hop: str
    tls: str = "may"
    connections: int = 20

    def matches(self, domain: str) -> bool:
        """Does this route lead to ``domain`` (lower case)?"""
        if self.domain == "*":
            return True
        if self.domain.startswith("*."):
            return domain.endswith(self.domain[1:])
        return domain == self.domain


def choose(routes: Sequence[Route], domain: str) -> Route | None:
    """The first route that matches, or None."""
    return next((route for route in routes if route.matches(domain)), None)
