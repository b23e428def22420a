"""A start in the background: twistd's parent process waits until its child says how it went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping
from typing import Any

LIMIT = 98
"""Octets of a reason that the parent reads, behind two that say that it is one."""


def tell_parent(twistd: MutableMapping[str, Any], why: str) -> None:
    """Say that the start has failed; the parent prints it and ends with 1. ``twistd``: its options.

    twistd itself tells of an Exception, but not of a SystemExit; the parent holds the other end of the pipe as well and
    would wait for ever. In the foreground nobody waits.
    """
    pipe = twistd.get("statusPipe")
    if pipe is None:
        return
    twistd["statusPipe"] = None
    with contextlib.suppress(OSError):
        os.write(pipe, b"1 " + why.encode("ascii", "backslashreplace")[:LIMIT])
        os.close(pipe)
