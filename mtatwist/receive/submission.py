"""What holds for messages of those who have logged in, beside what the validators say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtatwist.validators.usage import Usage


@dataclass(frozen=True, slots=True)
class Submission:
    """``delimiter``: what begins the detail in a local part, or "". ``received_user``: does the Received field name the
    account? ``usage``: what each account has sent; None: nobody counts."""

    delimiter: str = ""
    received_user: bool = False
    usage: Usage | None = None
