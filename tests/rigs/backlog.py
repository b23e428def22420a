"""A spool full of mail, made in bulk: as a server would have left it, much sooner."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from mtatwist.envelope import COUNTER_BITS, Envelope, Recipient
from mtatwist.spool import schema
from mtatwist.spool.bodies import BodyFiles
from mtatwist.spool.due import Claims
from mtatwist.spool.tables import Tables

#: Messages inserted at once.
BATCH = 2000

BODY = b"From: <me@here.test>\r\nSubject: waiting\r\n\r\n" + b"This has been waiting for a while.\r\n" * 28


def fill(data_dir: Path, addresses: Iterable[str], *, age: float = 60.0) -> int:
    """Store a message for each address, received ``age`` seconds ago, and due since then; how many there are."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = schema.connect(data_dir / "spool.sqlite")
    connection.execute("PRAGMA synchronous=OFF")
    schema.migrate(connection)
    claims, tables = Claims(), Tables(BodyFiles(data_dir / "bodies", None))  # type: ignore[arg-type]
    with connection:
        number = claims.begin(connection) << COUNTER_BITS
    tables.run = 0  # nobody's: they wait
    received_at = time.time() - age
    count = 0
    source = iter(addresses)
    while batch := list(islice(source, BATCH)):
        rows = []
        for address in batch:
            number += 1
            recipient = Recipient(0, address, address.rpartition("@")[2])
            envelope = Envelope("me@here.test", [recipient], received_at=received_at + count * 1e-6)
            rows.append(tables.row(number, envelope, len(BODY), BODY))
            count += 1
        with connection:
            tables.insert(connection, rows)
    connection.close()
    return count
