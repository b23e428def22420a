"""The servers that are asked, and which of them is asked first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtatwist.dns.network import Server

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

BEHIND_SECONDS = 30.0
"""How long a server that failed is asked after the others, before it gets another chance."""

TRIAL_SECONDS = 2.0
"""While one query gives it that chance, the others go on without it."""


@dataclass(slots=True)
class State:
    """What is known of a server; times are the clock's."""

    server: Server
    heard_at: float = -1.0
    down: bool = False
    behind_until: float = 0.0


class Servers:
    """Servers in the order they stand; one that failed is put behind the others for a while."""

    def __init__(self, current: Callable[[], Sequence[Server]], clock: IReactorTime, metrics: Instruments) -> None:
        """``current`` gives those that are configured now."""
        self._current = current
        self._clock = clock
        self._metrics = metrics
        self._states: dict[Server, State] = {}

    def in_order(self) -> list[Server]:
        """All of them, the best first."""
        now = self._clock.seconds()
        servers = list(dict.fromkeys(self._current()))
        # What is configured no more is forgotten.
        self._states = {server: self._states.get(server) or State(server) for server in servers}
        chosen = sorted(servers, key=lambda server: self._states[server].behind_until > now)
        first = self._states[chosen[0]] if chosen else None
        if first is not None and first.down and first.behind_until <= now:
            first.behind_until = now + TRIAL_SECONDS
        return chosen

    def known(self) -> list[tuple[Server, bool]]:
        """All of them as they stand, and whether each answers, as far as that is known."""
        states = ((server, self._states.get(server)) for server in dict.fromkeys(self._current()))
        return [(server, state is None or not state.down) for server, state in states]

    def heard(self, server: Server) -> None:
        """It said something."""
        state = self._states.get(server)
        if state is None:
            return
        state.heard_at = self._clock.seconds()
        if state.down:
            state.down, state.behind_until = False, 0.0
            _log.info("dns_server_up", server=str(server))

    def failed(self, server: Server, asked_at: float, why: str) -> None:
        """A query of ``asked_at`` got nothing. If another got something since, just the query was hard."""
        self._metrics.dns_server_failures.value += 1
        state = self._states.get(server)
        if state is None or state.heard_at >= asked_at:
            return
        state.behind_until = self._clock.seconds() + BEHIND_SECONDS
        if not state.down:
            state.down = True
            _log.warn("dns_server_down", server=str(server), why=why)
