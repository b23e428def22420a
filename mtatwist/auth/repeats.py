"""Wrong passwords that need not be asked about again so soon. Pure: time, in seconds, is passed in."""

from __future__ import annotations

import os
from hashlib import blake2b

from mtatwist.auth.client import Client

REPEATED_SECONDS = 5.0
"""So long a wrong password stays wrong. Somebody who changes a password to it meanwhile waits that long at most."""

LIMIT = 10_000
"""Wrong passwords that are known to be wrong; beyond that, the oldest are asked about again."""


class Repeats:
    """What the checker has called wrong a moment ago, by whoever tried it there: a repetition costs it nothing.

    In memory only, and as a hash that nobody else has the key of: unlike the lockout's fingerprints it never takes the
    right password for a wrong one.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        # The oldest comes first.
        self._wrong: dict[bytes, float] = {}

    def has(self, client: Client, secret: str, now: float) -> bool:
        """Was it wrong a moment ago? To be told so does not make that longer."""
        return self._wrong.get(self._digest(client, secret), float("-inf")) > now - REPEATED_SECONDS

    def add(self, client: Client, secret: str, now: float) -> None:
        """It was wrong."""
        digest = self._digest(client, secret)
        self._wrong.pop(digest, None)
        self._wrong[digest] = now
        while len(self._wrong) > LIMIT or self._wrong[next(iter(self._wrong))] <= now - REPEATED_SECONDS:
            del self._wrong[next(iter(self._wrong))]

    def clear(self) -> None:
        """Forget them all."""
        self._wrong.clear()

    def _digest(self, client: Client, secret: str) -> bytes:
        parts = (client.account, client.network, secret)
        return blake2b(
            b"\0".join(each.encode("utf-8", "surrogatepass") for each in parts), key=self._key, digest_size=16
        ).digest()
