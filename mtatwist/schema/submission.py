"""What holds for mail from people who have logged in."""

from __future__ import annotations

import dataclasses

from mtatwist.schema.declare import key
from mtatwist.values import kinds as v
from mtatwist.values.numbers import Rate


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What holds for mail from people who have logged in, whichever listener they come to."""

    from_mismatch: str = key(
        v.choice("off", "log", "reject"),
        "log",
        "What becomes of a message whose From or Sender field has an address that its sender may not use, or can't be "
        'read: "reject" refuses it with 553, "log" only notes it, "off" does not look. With the empty reverse '
        "path such a message, and one without a From field, is always refused.",
    )
    received_user: bool = key(
        v.BOOLEAN,
        False,
        "Whether the Received field names who had logged in. All recipients see it, and it is half of what one needs "
        "to log in. The log always names them.",
    )
    messages: tuple[Rate, ...] = key(
        v.list_of(v.RATE),
        [],
        "How many messages one account may send; further ones get 450. With none, as many as it likes.",
        example='["100/h", "1000/d"]',
    )
    recipients: tuple[Rate, ...] = key(
        v.list_of(v.RATE),
        [],
        "How many recipients one account may send to, counting those of all its messages; further ones get 450.",
        example='["500/h", "5000/d"]',
    )
