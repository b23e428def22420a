"""How it is with the way to a domain right now: for those who ask why a message waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mtatwist.envelope import Deferral
    from mtatwist.relay.route import Route

LONGEST_REPLY = 300
"""Characters of the trouble that are told."""


class Standing(NamedTuple):
    """The way to a domain.

    :ivar next_hop: see RelayManager.next_hop().
    :ivar full: whether it is given no more for now, as it has enough to do: the others wait in the spool.
    :ivar failures: how often in a row it could not be reached; 0: nothing is wrong with it, as far as is known.
    :ivar left_alone: seconds until it is tried again after those.
    :ivar trouble: what the last of them was.
    """

    route: Route
    next_hop: str
    full: bool = False
    failures: int = 0
    left_alone: float = 0.0
    trouble: Deferral | None = None

    def facts(self) -> dict[str, Any]:
        """The same as JSON has it: ``route`` is what it is for, ``exchanges`` tells whether the next hop is a
        domain whose exchanges are looked for."""
        return {
            "route": self.route.domain,
            "transport": self.route.transport,
            "next_hop": self.next_hop,
            "exchanges": self.route.next_hop is None,
            "tls": self.route.tls,
            "full": self.full,
            "failures": self.failures,
            "left_alone": round(self.left_alone, 1),
            "trouble": "" if self.trouble is None else str(self.trouble.reply)[:LONGEST_REPLY],
        }
