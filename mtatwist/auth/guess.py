"""One login on its way through the gate, and how the gate itself ends it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mtatwist.auth.client import Client
from mtatwist.auth.lockout import Kind
from mtatwist.auth.pace import LONGEST
from mtatwist.auth.tally import Subject

WRONG = "wrong name or password"
SAME_AS_BEFORE = f"{WRONG}, the same as before"


class LockedOut(Exception):
    """The lockout forbids it."""

    def __init__(self, by: Kind) -> None:
        super().__init__(f"locked out ({by.value})")


class Repeated(Exception):
    """It was wrong a moment ago."""

    def __init__(self) -> None:
        super().__init__(SAME_AS_BEFORE)


class Guess:
    """One login on its way."""

    def __init__(self, login: Any, given: Client, started: float) -> None:
        self.login = login
        #: By the name that was given.
        self.given = given
        self.deadline = started + LONGEST
        #: When it began, less what it waited for its turn: that has to do with others, and must not make up for time
        #: that tells something.
        self.since = started
        self.asked = False
        #: Whoever hung up is not told, and is out of the queue.
        self.gone = False
        self.waiting: Deferred[None] | None = None
        self.taken: list[Subject] = []

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        self.gone = True
        if self.waiting is not None:
            self.waiting.cancel()
