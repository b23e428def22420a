"""How a transport says that it has no connection."""

from __future__ import annotations

from mtatwist.envelope import Deferral, Failure


class ConnectFailed(Exception):
    """The next hop can't be reached or does not want us now; ``outcome`` is what to record."""

    def __init__(self, outcome: Deferral | Failure) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


class Stale(Exception):
    """A kept connection turned out to be gone before the next hop heard anything of the message."""
