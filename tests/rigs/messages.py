"""Envelopes to put into a spool, and results to record in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtatwist.envelope import Envelope, Message, Recipient, Settled, State
from mtatwist.smtp.reply import Reply

#: When everything here arrived, in seconds since the epoch.
AT = 1_700_000_000.0

REPLIES = {
    State.DELIVERED: Reply(250, "2.0.0", "Ok"),
    State.DEFERRED: Reply(451, "4.7.1", "Greylisted\nTry again"),
    State.FAILED: Reply(550, "5.1.1", "No such user"),
}


def envelope(*addresses: str, received_at: float = AT, reverse_path: str = "me@example.com") -> Envelope:
    """From me to ``addresses``, or to one."""
    recipients = [
        Recipient(index, address, address.rpartition("@")[2])
        for index, address in enumerate(addresses or ("you@example.org",))
    ]
    return Envelope(reverse_path, recipients, received_at=received_at)


def settled(message: Message, index: int, state: State, next_attempt: float = 0.0, *, warned: bool = False) -> Settled:
    """An attempt for one recipient, a second after arrival."""
    return Settled(message.number, index, state, REPLIES[state], "mx.example.org", AT + 1, next_attempt, warned)


def body(size: int, seed: int = 0) -> bytes:
    """A message of ``size`` octets that differs at every offset a reader could confuse, and by ``seed``."""
    line = b"".join(b"%08x%08x\r\n" % (seed, at) for at in range(size // 18 + 1))
    return line[:size]


def claim_due(spool: Any, wait: Callable[[Any], Any], now: float = AT, limit: int = 1000) -> list[Message]:
    """Claim what is due, up to ``limit`` recipients of each domain."""
    domains, following = wait(spool.due_domains(now, "", 1000))
    assert following is None
    claimed: list[Message] = wait(spool.claim_due(now, [(domain, limit) for domain in domains]))
    return claimed
