"""Verbs about the server as a whole."""

from __future__ import annotations

import os
from typing import Any

from mtatwist import __version__
from mtatwist.control.commands import ControlCommand, Ping
from mtatwist.control.server import Responder


class SystemVerbs:
    """Ping."""

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {Ping: self._ping}

    async def _ping(self) -> dict[str, Any]:
        return {"version": __version__, "pid": os.getpid()}
