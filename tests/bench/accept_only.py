"""twistd whose relay manager does nothing: mail is stored, durably, and stays. For measuring acceptance alone."""

from __future__ import annotations

from twisted.scripts.twistd import run

from mtatwist.relay.manager import RelayManager


def nothing(self: RelayManager, *arguments: object) -> None:
    """Neither takes what comes in nor looks for what is due."""


if __name__ == "__main__":
    assert callable(RelayManager.wake)
    assert callable(RelayManager._scan)
    RelayManager.wake = nothing  # type: ignore[assignment, method-assign]
    RelayManager._scan = nothing  # type: ignore[method-assign]
    run()  # type: ignore[no-untyped-call]
