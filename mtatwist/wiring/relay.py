"""The relay manager, and what it is given: the ways to next hops, the schedule, and what senders are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from mtatwist.config import Config
from mtatwist.dns import Dns
from mtatwist.envelope import Recipient
from mtatwist.interfaces import ISpool
from mtatwist.metrics.instruments import Instruments
from mtatwist.recipients.resolve import Resolver
from mtatwist.relay.manager import RelayManager
from mtatwist.relay.mx import Exchanges, SmartHosts
from mtatwist.relay.ourselves import Ourselves
from mtatwist.relay.report import Reporter
from mtatwist.relay.retry import Schedule
from mtatwist.relay.route import Route, refuse_mailbox
from mtatwist.smtp.reply import Reply
from mtatwist.store.queue_time import QueueTime
from mtatwist.tls.client import client_context
from mtatwist.transports import REGISTRY
from mtatwist.transports.dial import Target
from mtatwist.transports.smtp import ClientTimeouts
from mtatwist.values.fields import fields
from mtatwist.wiring.swap import Swap


class Relaying:
    """What the relay manager needs that no configuration changes."""

    def __init__(
        self,
        reactor: Any,
        metrics: Instruments,
        *,
        spool: ISpool,
        dns: Dns,
        queue_time: QueueTime,
        listening: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        """``listening`` gives the addresses and ports that mail is accepted on now."""
        self._reactor = reactor
        self._metrics = metrics
        self._spool = spool
        self._dns = dns
        self._queue_time = queue_time
        self._listening = listening

    def manager(self, config: Config, *, connections: int, recipients: Resolver | None) -> RelayManager:
        """To be started, and stopped. ``connections``: the most to all next hops; ``recipients`` tells who exists."""
        return RelayManager(
            self._spool,
            **self._ways(config, recipients),
            **self._settings(config, connections),
            clock=self._reactor,
            wall=self._queue_time.now,
            metrics=self._metrics,
        )

    def prepare(
        self,
        manager: RelayManager,
        running: Config,
        config: Config,
        *,
        connections: int,
        recipients: tuple[Resolver | None, Resolver | None],
    ) -> Swap:
        """For another configuration; ``recipients`` of before and of then. Connections are kept where their ways are
        the same."""
        settings = self._settings(config, connections)
        before, then = recipients
        same = before is then and _parts_of_ways(running) == _parts_of_ways(config)
        ways = None if same else self._ways(config, then)

        def swap() -> None:
            manager.use(**settings)
            if ways is not None:
                manager.go(**ways)

        return swap

    def _ways(self, config: Config, recipients: Resolver | None) -> dict[str, Any]:
        return {"routes": make_routes(config), "transport": partial(self._transport, config, recipients)}

    def _settings(self, config: Config, connections: int) -> dict[str, Any]:
        reporter = Reporter(
            self._spool,
            hostname=config.server.hostname,
            return_size=config.relay.return_size,
            shown=self._queue_time.shown,
            metrics=self._metrics,
        )
        return {"schedule": make_schedule(config), "reporter": reporter, "connections": connections}

    def _transport(self, config: Config, recipients: Resolver | None, route: Route) -> Any:
        return REGISTRY[route.transport](
            spool=self._spool,
            reactor=self._reactor,
            hostname=config.server.hostname,
            timeouts=ClientTimeouts(**fields(config.timeouts.client, ClientTimeouts)),
            tls=route.tls,
            tls_context=client_context,
            metrics=self._metrics,
            targets=self.targets(config, route),
            recipient_delimiter=config.relay.recipient_delimiter,
            keeps_detail=recipients.keeps_detail if recipients else None,
        )

    def targets(self, config: Config, route: Route) -> Callable[[str], Awaitable[Sequence[Target]]]:
        """How the addresses behind a destination of this route are found."""
        if route.next_hop is not None:
            return SmartHosts(self._dns.hosts).targets
        ourselves = Ourselves({config.server.hostname.lower()}, self._listening)
        return Exchanges(
            self._dns.resolver, self._dns.hosts, ourselves, port=route.mx_port, loopback=route.mx_loopback
        ).targets


def _parts_of_ways(config: Config) -> Any:
    return config.routes, config.timeouts.client, config.server.hostname, config.relay.recipient_delimiter


def make_routes(config: Config) -> list[Route]:
    """As ``[[route]]`` says, in its order."""
    return [Route(**fields(route, Route)) for route in config.routes]


def make_schedule(config: Config) -> Schedule:
    """As ``[relay]`` says."""
    return Schedule(config.relay.retry, config.relay.max_age, warn_after=config.relay.warn_after)


def make_refusal(config: Config) -> Callable[[Recipient], Reply | None]:
    """What can never be delivered, known before it is tried."""
    return partial(refuse_mailbox, make_routes(config), config.relay.recipient_delimiter)
