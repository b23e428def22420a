"""The verbs about logins, the DNS and the server as a whole, on the parts of it that are in force."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from mtatwist import __version__
from mtatwist.config import ConfigError
from mtatwist.control.auth import AuthVerbs
from mtatwist.control.dns import DnsVerbs
from mtatwist.control.route import Door, RouteVerbs
from mtatwist.control.system import Refused, SystemVerbs
from mtatwist.health.readiness import Phase
from mtatwist.smtp.address import DomainSet
from mtatwist.wiring.relay import make_refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from mtatwist.config import Config
    from mtatwist.dns import Dns
    from mtatwist.log import Threshold
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.receive.factory import Sessions
    from mtatwist.receive.listener import Listener
    from mtatwist.relay.manager import RelayManager
    from mtatwist.spool.sqlite import SqliteSpool
    from mtatwist.store.queue_time import QueueTime
    from mtatwist.tls.watch import CertificateWatch
    from mtatwist.wiring.auth import Users
    from mtatwist.wiring.directory import CurrentDirectory
    from mtatwist.wiring.recipients import CurrentRecipients
    from mtatwist.wiring.relay import Relaying
    from mtatwist.wiring.reload import Reloaded
    from mtatwist.wiring.watching import Watching

_log = Logger()

COUNT_SECONDS = 5.0
"""How long the count of the queue is waited for: whoever asks for the status may want to know why it takes long."""


class System(Protocol):
    """The parts of the server that are looked at, as they are now."""

    certificates: CertificateWatch | None
    directory: CurrentDirectory
    dns: Dns
    listeners: list[Listener]
    metrics: Instruments
    queue_time: QueueTime
    recipients: CurrentRecipients
    relay: RelayManager
    relaying: Relaying
    sessions: Sessions
    spool: SqliteSpool
    threshold: Threshold
    users: Users
    watching: Watching

    @property
    def config(self) -> Config:
        """What holds now."""

    def reload(self) -> Deferred[Reloaded]:
        """See Mta.reload()."""


def make_dns_verbs(server: System) -> DnsVerbs:
    """What is done for each of them."""
    return DnsVerbs(lambda: server.dns)


def make_auth_verbs(server: System, clock: IReactorTime) -> AuthVerbs:
    """What is done for each of them."""
    return AuthVerbs(
        lambda: server.users.gate,
        clock=clock,
        queue_time=server.queue_time.now,
        shown=server.queue_time.shown,
    )


def make_route_verbs(server: System) -> RouteVerbs:
    """What is done for it."""

    def door() -> Door:
        relay, resolver = server.config.relay, server.recipients.resolver
        return Door(
            DomainSet(relay.domains),
            relay.postmaster,
            make_refusal(server.config),
            None if resolver is None else resolver.resolve,
        )

    return RouteVerbs(
        door=door,
        standing=server.relay.standing,
        targets=lambda route: server.relaying.targets(server.config, route),
        resolver=lambda: server.dns.resolver,
    )


def make_system_verbs(server: System, clock: IReactorTime) -> SystemVerbs:
    """What is done for each of them."""
    began = clock.seconds()

    async def reload() -> Reloaded:
        try:
            return await server.reload()
        except ConfigError as error:
            raise Refused(error.problems) from None

    return SystemVerbs(
        status=lambda: _status(server, clock, began),
        reload=reload,
        drain=lambda drain: _drain(server, drain),
        log_level=server.threshold.set,
    )


def _drain(server: System, drain: bool) -> str | None:
    """Take no new mail, or take some again; the phase from then on, None: not now. A restart takes mail."""
    readiness = server.watching.readiness
    if readiness.phase not in (Phase.RUNNING, Phase.DRAINING):
        return None
    server.sessions.drain(drain)
    readiness.phase = Phase.DRAINING if drain else Phase.RUNNING
    _log.info("drain" if drain else "undrain", sessions=len(server.sessions))
    return readiness.phase.name.lower()


async def _status(server: System, clock: IReactorTime, began: float) -> dict[str, Any]:
    """docs/administration.rst tells what stands in it."""
    metrics, readiness = server.metrics, server.watching.readiness
    reasons = await readiness.reasons()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": round(clock.seconds() - began, 1),
        "phase": readiness.phase.name.lower(),
        "ready": not reasons,
        "reasons": reasons,
        "listeners": [{**listener.facts(), "accepting": listener.accepting} for listener in server.listeners],
        "health": server.watching.facts(),
        "sessions": len(server.sessions),
        "queue": await _queue(server, clock),
        "in_flight": metrics.in_flight.value,
        "destinations_down": metrics.destinations_down.value,
        "spool": {
            "room": server.spool.has_room(0),
            "trouble": server.spool.trouble,
            "free": server.spool.free,
        },
        "locks": metrics.lockout_active.value,
        "directory": [{"server": uri, "trouble": why or None} for uri, why in server.directory.troubles.items()],
        "certificates": [] if server.certificates is None else server.certificates.facts(),
        "dns": [{"server": str(each), "answers": answers} for each, answers in server.dns.resolver.servers],
        "overrides": server.dns.resolver.overrides.added,
        "collector": server.watching.collector(),
        "log_level": server.threshold.level,
        "warnings": list(server.config.warnings),
    }


async def _queue(server: System, clock: IReactorTime) -> dict[str, Any] | None:
    """How much waits; None: that could not be counted now."""
    now = server.queue_time.now()
    try:
        counted = await Deferred.fromCoroutine(_counted(server, now)).addTimeout(COUNT_SECONDS, clock)
    except Late:
        return None
    except Exception as error:
        _log.warn("queue_not_counted", error=str(error), kind=type(error).__name__)
        return None
    return {
        "pending": counted.pending,
        "deferred": counted.deferred,
        "held": counted.held,
        "due": counted.due,
        "oldest": None if counted.oldest is None else round(max(0.0, now - counted.oldest), 1),
    }


async def _counted(server: System, now: float) -> Any:
    return await server.spool.survey(now)
