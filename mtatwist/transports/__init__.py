"""Ways to next hops, by the name a [[route]] calls them. To add one: a file here and a line in :data:`REGISTRY`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtatwist.transports.lmtp import LmtpTransport
from mtatwist.transports.maildir import MaildirTransport
from mtatwist.transports.smtp import SmtpTransport

REGISTRY: dict[str, Callable[..., Any]] = {
    "smtp": SmtpTransport,
    "lmtp": LmtpTransport,
    "maildir": MaildirTransport,
}
