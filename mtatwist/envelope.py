"""Envelopes, recipients and their states, and what became of a delivery attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from mtatwist.smtp.reply import Reply


class State(IntEnum):
    """What a recipient is waiting for. The numbers are stored: never renumber them."""

    PENDING = 0
    DEFERRED = 1
    HELD = 2
    DELIVERED = 3
    FAILED = 4


#: States in which the message is still needed.
OPEN_STATES = (State.PENDING, State.DEFERRED, State.HELD)


class Handed(IntEnum):
    """Who answers for a recipient that was taken, which decides what a success DSN says (RFC 3461 §5.2)."""

    MAILBOX = 0
    RELAYED = 1
    NOTIFYING = 2


class Delivered(NamedTuple):
    """The next hop took responsibility for the recipient.

    ``handed``: it is the final mailbox, a server that will send no reports, or one that was told to (RFC 3461).
    ``tls`` is "" where it went in clear, else version and cipher.
    """

    reply: Reply
    host: str = ""
    handed: Handed = Handed.RELAYED
    tls: str = ""


class Deferral(NamedTuple):
    """Not now: try again on the schedule."""

    reply: Reply
    host: str = ""
    tls: str = ""


class Failure(NamedTuple):
    """Not ever: the sender is told by a DSN."""

    reply: Reply
    host: str = ""
    tls: str = ""


Outcome = Delivered | Deferral | Failure


@dataclass(slots=True)
class Recipient:
    """One forward path of a message and what is known of its delivery. Times are the queue's.

    ``domain`` is lower case and chooses the route; ``parameters`` are those of RCPT and are not stored. ``orcpt`` and
    ``notify`` are as smtp.notify takes them; ``warned``: the sender has been told that this recipient is late.
    """

    index: int
    address: str
    domain: str
    state: State = State.PENDING
    attempts: int = 0
    next_attempt: float = 0.0
    last_reply: Reply | None = None
    last_host: str = ""
    last_at: float = 0.0
    orcpt: str = ""
    notify: str = ""
    warned: bool = False
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Envelope:
    """What MAIL and RCPT said, and who said it. ``reverse_path`` is "" for the null one (RFC 5321 §4.5.5)."""

    reverse_path: str
    recipients: list[Recipient] = field(default_factory=list)
    body_type: str = ""
    smtputf8: bool = False
    envid: str = ""
    ret: str = ""
    received_at: float = 0.0
    session: str = ""
    peer: str = ""
    helo: str = ""
    protocol: str = ""
    tls: str = ""
    user: str = ""


COUNTER_BITS = 40
"""A queue number is the spool's run and, below it, this many bits that count within the run."""


def queue_id(number: int) -> str:
    """The name of message ``number``, as the 250, the Received header, the log and mtactl spell it."""
    return f"{number:014X}"


@dataclass(slots=True)
class Message:
    """A message in the spool. ``body`` is there while it is in memory; else the spool streams it."""

    number: int
    envelope: Envelope
    size: int
    body: bytes | None = None

    @property
    def id(self) -> str:
        """The queue id."""
        return queue_id(self.number)


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of an attempt for one recipient, as the spool records it.

    Times are the queue's; ``next_attempt`` counts only for DEFERRED. ``warned``: a delay DSN is among the reports.
    """

    number: int
    index: int
    state: State
    reply: Reply
    host: str
    at: float
    next_attempt: float = 0.0
    warned: bool = False
    tls: str = ""
