"""What a session costs that does nothing."""

from __future__ import annotations

import contextlib
import ssl

from rigs.client import Client
from rigs.mta import Mta


def octets_a_session(mta: Mta, number: int, count: int, context: ssl.SSLContext | None) -> float:
    """What ``count`` clients that have said EHLO, and no more, cost the server."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            client = Client(mta.address("mx", number), context=context)
            stack.callback(client.close)
            client.ehlo()

        # What the first ones cost is paid once.
        for _ in range(20):
            enter()
        before = mta.process.memory()
        for _ in range(count):
            enter()
        return (mta.process.memory() - before) / count
