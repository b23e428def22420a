"""What somebody who looks after the queue does to it, beside the deliveries that go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.interfaces import ISpool
    from mtatwist.relay.manager import RelayManager
    from mtatwist.spool.selection import Selection

ACTIONS = ("hold", "release", "retry", "bounce", "drop")
"""What can be done."""

CALL_SECONDS = 15.0
"""How long one call works before it gives a cursor."""


class Changed(NamedTuple):
    """How many messages and recipients it was (or would be); ``active``: how many more were left, as they are being
    delivered right now. ``cursor``: hand it in as ``after`` to go on; None: that was all."""

    messages: int
    recipients: int
    active: int
    cursor: str | None


class Administration:
    """Holds, releases, retries, bounces and drops recipients, in bounded steps, and never one that is on its way."""

    def __init__(self, spool: ISpool, manager: RelayManager, *, clock: IReactorTime) -> None:
        self._spool = spool
        self._manager = manager
        self._clock = clock

    async def change(
        self, action: str, selection: Selection, *, reason: str = "", after: str | None = None, dry_run: bool = False
    ) -> Changed:
        """Do one of ACTIONS to those that are meant. ``reason``: stands in the DSN of a bounce, and in the log.

        ``hold``: not tried, and no older for it, until they are released; ``release``: those held are due now;
        ``retry``: those that wait are due now, and a destination that is left alone after trouble is tried at once;
        ``bounce``: failed, and the sender is told; ``drop``: gone, and nobody is told.

        Raises ValueError for what makes no sense, Stopped when the server stops, and what the spool raises.
        """
        raise NotImplementedError
