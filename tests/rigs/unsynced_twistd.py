"""twistd with a spool that flushes nothing: SQLite's synchronous=OFF, and no fsync. The control of the power cuts."""

from __future__ import annotations

import os
from typing import Any

from twisted.scripts.twistd import run

from mtatwist.spool import schema

_connect = schema.connect


def connect(*arguments: Any, **keywords: Any) -> Any:
    """What schema.connect does, without the promise."""
    connection = _connect(*arguments, **keywords)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


if __name__ == "__main__":
    schema.connect = connect
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    run()  # type: ignore[no-untyped-call]
