"""twistd whose relay manager does nothing: mail is stored, durably, and stays. For measuring acceptance alone."""

from __future__ import annotations

from twisted.scripts.twistd import run

from mtatwist.relay.backlog import Backlog
from mtatwist.relay.manager import RelayManager


def nothing(self: object, *arguments: object) -> None:
    """Neither takes what comes in nor looks for what is due."""


if __name__ == "__main__":
    assert callable(RelayManager.wake)
    assert callable(Backlog._look)
    RelayManager.wake = nothing  # type: ignore[assignment, method-assign]
    Backlog._look = nothing  # type: ignore[assignment, method-assign]
    run()  # type: ignore[no-untyped-call]
