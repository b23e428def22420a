"""The verbs of the queue over the control socket, on the spool and the relay that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mtatwist.control.commands import Unavailable
from mtatwist.control.queue import QueueVerbs
from mtatwist.relay.administration import Administration, Changed, Stopped

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.relay.manager import RelayManager
    from mtatwist.spool.selection import Selection
    from mtatwist.spool.sqlite import SqliteSpool
    from mtatwist.store.queue_time import QueueTime


class Queue(Protocol):
    """The parts of the server that know the queue."""

    spool: SqliteSpool
    relay: RelayManager
    queue_time: QueueTime


def make_queue_verbs(server: Queue, clock: IReactorTime) -> QueueVerbs:
    """What is done for each of them."""
    administration = Administration(server.spool, server.relay, clock=clock, wall=server.queue_time.now)

    async def change(action: str, selection: Selection, **options: Any) -> Changed:
        try:
            return await administration.change(action, selection, **options)
        except Stopped as error:
            raise Unavailable(str(error)) from None

    return QueueVerbs(
        server.spool,
        change,
        next_hop=server.relay.next_hop,
        way=lambda domain: server.relay.standing(domain).facts(),
        queue_time=server.queue_time.now,
        shown=server.queue_time.shown,
    )
