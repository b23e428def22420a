"""The verbs of the queue over the control socket, on the spool and the relay that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mtatwist.control.queue import QueueVerbs
from mtatwist.relay.administration import Administration

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.relay.manager import RelayManager
    from mtatwist.spool.sqlite import SqliteSpool
    from mtatwist.store.queue_time import QueueTime


class Queue(Protocol):
    """The parts of the server that know the queue."""

    spool: SqliteSpool
    relay: RelayManager
    queue_time: QueueTime


def make_queue_verbs(server: Queue, clock: IReactorTime) -> QueueVerbs:
    """What is done for each of them."""
    return QueueVerbs(
        server.spool,
        Administration(server.spool, server.relay, clock=clock).change,
        next_hop=server.relay.next_hop,
        way=lambda domain: server.relay.standing(domain).facts(),
        queue_time=server.queue_time.now,
        shown=server.queue_time.shown,
    )
