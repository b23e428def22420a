"""What a next hop has to do: messages, each for some of its recipients."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from mtatwist.envelope import Message, Recipient

if TYPE_CHECKING:
    from mtatwist.relay.route import Route


class Destination(NamedTuple):
    """What has connections of its own: the next hop of a route, or the exchanges of a domain, by its name."""

    route: Route
    name: str


@dataclass(slots=True)
class Work:
    """A message for some of its recipients, all of which have the same next hop.

    ``waited``: it comes from the spool, and is no new mail; ``held``: octets of the body that are in memory for it;
    ``transport``: see Route.destinations; ``next_hop``: see Destination.
    """

    message: Message
    recipients: list[Recipient]
    waited: bool = False
    held: int = 0
    transport: str = "other"
    next_hop: str = ""


def part(works: Iterable[Work], wanted: Mapping[int, Container[int]]) -> tuple[list[Work], list[Work]]:
    """What is for these recipients, by the numbers of their messages and their indexes, and what is left of the rest.
    A body stays with what is left, if there is any."""
    taken: list[Work] = []
    left: list[Work] = []
    for work in works:
        indexes = wanted.get(work.message.number, ())
        meant = [recipient for recipient in work.recipients if recipient.index in indexes]
        if len(meant) == len(work.recipients):
            taken.append(work)
            continue
        if meant:
            taken.append(replace(work, recipients=meant, held=0))
            work.recipients = [recipient for recipient in work.recipients if recipient.index not in indexes]
        left.append(work)
    return taken, left
