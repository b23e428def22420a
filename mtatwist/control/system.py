"""Verbs about the server as a whole."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from mtatwist import __version__
from mtatwist.control.commands import (
    PAGE_BYTES,
    BadArgument,
    ControlCommand,
    Drain,
    Ping,
    Reload,
    SetLogLevel,
    Status,
    Unavailable,
)
from mtatwist.control.connection import Responder
from mtatwist.log import LEVELS

LONGEST_REASON = 500
"""Characters of a reason that are told here."""


class Problem(Protocol):
    """See config.Problem: what is wrong with a file."""

    @property
    def file(self) -> str:
        """Its name."""

    @property
    def key(self) -> str:
        """The setting."""

    @property
    def reason(self) -> str:
        """Why it can't be."""


class Reloaded(Protocol):
    """See wiring.reload: the settings that are different from now on, those that take a restart to be, and files."""

    @property
    def changed(self) -> Sequence[str]:
        """From now on."""

    @property
    def restart(self) -> Sequence[str]:
        """After a restart."""

    @property
    def certificates(self) -> Sequence[str]:
        """The paths of those that are taken."""

    @property
    def warnings(self) -> Sequence[str]:
        """What somebody should know of the files."""


class Refused(Exception):
    """The configuration can't be used, and nothing has changed; ``problems``: why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class SystemVerbs:
    """Looks at the server for those who ask, and changes how it is for those who may."""

    def __init__(
        self,
        *,
        status: Callable[[], Awaitable[dict[str, Any]]],
        reload: Callable[[], Awaitable[Reloaded]],
        drain: Callable[[bool], str | None],
        log_level: Callable[[str], str],
    ) -> None:
        """``reload`` raises Refused. ``drain`` gives the phase from now on, None: it is too early or too late for that.
        ``log_level`` sets one of LEVELS, and gives the one before."""
        self._status = status
        self._reload = reload
        self._drain = drain
        self._log_level = log_level

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""
        return {
            Ping: self._ping,
            Status: self._tell_status,
            Reload: self._take_configuration,
            Drain: self._begin_or_end_drain,
            SetLogLevel: self._set_log_level,
        }

    async def _ping(self) -> dict[str, Any]:
        return {"version": __version__, "pid": os.getpid()}

    async def _tell_status(self) -> dict[str, Any]:
        return {"status": _fitting(await self._status())}

    async def _take_configuration(self) -> dict[str, Any]:
        try:
            done = await self._reload()
        except Refused as refused:
            problems = [
                {"file": each.file, "key": each.key, "reason": each.reason[:LONGEST_REASON]}
                for each in refused.problems
            ]
            told = _fitting({"problems": problems})["problems"]
            nothing: dict[str, Any] = {"changed": [], "restart": [], "certificates": [], "warnings": []}
            return {"outcome": "refused", **nothing, "problems": told}
        taken: dict[str, Any] = {
            "changed": list(done.changed),
            "restart": list(done.restart),
            "certificates": list(done.certificates),
            "warnings": [each[:LONGEST_REASON] for each in done.warnings],
        }
        fitting = _fitting(taken)
        return {"outcome": "taken", **{name: fitting[name] for name in taken}, "problems": []}

    async def _begin_or_end_drain(self, drain: bool) -> dict[str, Any]:
        phase = self._drain(drain)
        if phase is None:
            raise Unavailable("the server is starting or stopping")
        return {"phase": phase}

    async def _set_log_level(self, level: str) -> dict[str, Any]:
        if level not in LEVELS:
            raise BadArgument(f"{level[:40]!r} is no level: there are {', '.join(LEVELS)}")
        return {"before": self._log_level(level)}


def _fitting(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, with the longest lists shortened until they fit into an answer; ``left_out`` then says how many of
    which are missing."""
    left_out: dict[str, int] = {}
    while _octets({**facts, "left_out": left_out}) > PAGE_BYTES:
        longest = max(
            (name for name, value in facts.items() if isinstance(value, list)), key=lambda n: _octets(facts[n])
        )
        kept = facts[longest][: len(facts[longest]) // 2]
        left_out[longest] = left_out.get(longest, 0) + len(facts[longest]) - len(kept)
        facts = {**facts, longest: kept}
    return {**facts, "left_out": left_out} if left_out else facts


def _octets(facts: Any) -> int:
    return len(orjson.dumps(facts, default=str))
