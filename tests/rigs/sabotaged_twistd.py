"""twistd with a spool that lies: it says "stored" before the commit. The control of the ledger test."""

from __future__ import annotations

import time
from typing import Any

from twisted.scripts.twistd import run

from mtatwist.store import writer

#: How long a group stays uncommitted after its answers, in seconds.
DELAY = 0.15


def commit_late(self: Any, group: list[Any]) -> list[Any]:
    """What Writer._commit does, in the wrong order."""
    connection = self._connection
    connection.execute("BEGIN IMMEDIATE")
    answers = []
    for job, payload, done in group:
        answers.append((done, True, job(connection, [payload])[0]))
    self._reactor.callFromThread(self._answer, answers)
    time.sleep(DELAY)
    connection.execute("COMMIT")
    return []


if __name__ == "__main__":
    assert callable(writer.Writer._commit)
    writer.Writer._commit = commit_late  # type: ignore[method-assign]
    run()  # type: ignore[no-untyped-call]
