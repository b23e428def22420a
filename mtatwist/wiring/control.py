"""The control socket, and what can be asked for over it."""

from __future__ import annotations

import grp
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import maybeDeferred

from mtatwist.config import Config, ConfigError, Problem
from mtatwist.control.callers import Callers, Token
from mtatwist.control.commands import ControlCommand
from mtatwist.control.connection import Responder
from mtatwist.control.server import ControlFactory
from mtatwist.control.socket import ControlSocket
from mtatwist.wiring.queue import Queue, make_queue_verbs
from mtatwist.wiring.system import System, make_auth_verbs, make_dns_verbs, make_route_verbs, make_system_verbs

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments


class Server(Queue, System, Protocol):
    """What the verbs need of the whole server, as it is now: parts are replaced when the configuration is."""

    metrics: Instruments


class Control(Service):
    """Answers mtactl from when mail flows until the server stops."""

    def __init__(self, config: Config, reactor: Any, mta: Server) -> None:
        """Raises ConfigError: there is no such group."""
        settings = config.control
        callers = make_callers(config)
        self._factory = ControlFactory(make_responders(mta, reactor), callers, clock=reactor, metrics=mta.metrics)
        self._socket = ControlSocket(
            reactor, settings.socket, self._factory, mode=int(settings.mode, 8), group=_group(config)
        )

    def startService(self) -> None:
        """The spool is open and mail flows. Raises SocketError."""
        self._socket.startService()
        super().startService()

    async def stop(self) -> None:
        """Nobody is answered any more."""
        if self.running:
            super().stopService()
            await maybeDeferred(self._socket.stopService)
            self._factory.stop()

    def reload(self, config: Config) -> None:
        """Other tokens and another group: whoever is connected goes on if it may still. Raises ConfigError."""
        self._factory.callers = make_callers(config)


def make_callers(config: Config) -> Callers:
    """Who may use the socket. Raises ConfigError."""
    tokens = [Token(each.name, each.sha256, each.role == "admin") for each in config.control.tokens]
    return Callers(tokens, _group(config))


def _group(config: Config) -> int | None:
    name = config.control.group
    try:
        return None if name is None else grp.getgrnam(name).gr_gid
    except KeyError:
        reason = f'there is no group "{name}" on this machine: make it, or name another'
        raise ConfigError([Problem(config.source or "", "control.group", reason)]) from None


class Verbs(Protocol):
    """A family of verbs."""

    def responders(self) -> dict[type[ControlCommand], Responder]:
        """What is done for each command."""


def make_responders(mta: Server, reactor: Any) -> dict[type[ControlCommand], Responder]:
    """What is done for each command."""
    families: tuple[Verbs, ...] = (
        make_system_verbs(mta, reactor),
        make_queue_verbs(mta, reactor),
        make_dns_verbs(mta),
        make_route_verbs(mta),
        make_auth_verbs(mta, reactor),
    )
    return {command: responder for family in families for command, responder in family.responders().items()}
