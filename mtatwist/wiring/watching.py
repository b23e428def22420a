"""Those who watch the server: the push of its metrics, and the health endpoint."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from mtatwist import __version__
from mtatwist.authorities import AuthoritiesError
from mtatwist.bound import BoundEndpoint
from mtatwist.config import Config, ConfigError, Problem
from mtatwist.dns.hosts import Hosts
from mtatwist.health.readiness import NotReady, Phase, Readiness
from mtatwist.health.site import Answers, HealthSite
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.metrics import otlp, text
from mtatwist.metrics.collector import Collector, trust_in
from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.process import ProcessWatch
from mtatwist.metrics.push import PushLoop
from mtatwist.metrics.queue import QueueWatch
from mtatwist.receive.listener import Listener
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.wiring.directory import CurrentDirectory
from mtatwist.wiring.swap import Swap, content

_log = Logger()

COUNT_SECONDS = 15.0
"""Time between two counts of the queue."""


class Watching:
    """What ``[metrics]`` and ``[health]`` ask for; nothing runs where they ask for nothing.

    It is bound first and ends last: probes are answered while mail drains, and the last push says how that went.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        metrics: Instruments,
        *,
        spool: SqliteSpool,
        listeners: Sequence[Listener],
        directory: CurrentDirectory,
        hosts: Hosts,
        wall: Callable[[], float],
        queue_time: Callable[[], float],
        fail: Callable[[int, str], NoReturn],
    ) -> None:
        """Raises ConfigError."""
        self._metrics = metrics
        self._spool = spool
        self._listeners = listeners
        self._directory = directory
        self._hosts = hosts
        self._queue_limit = config.health.queue_limit
        checks = {
            "spool": self._check_spool,
            "queue": self._check_queue,
            "listeners": self._check_listeners,
            "directory": self._check_directory,
        }
        self.readiness = Readiness(checks, clock=reactor)
        self._process = ProcessWatch(reactor, metrics)
        self._queue = QueueWatch(spool.survey, interval=COUNT_SECONDS, clock=reactor, now=queue_time, metrics=metrics)
        self._endpoint: BoundEndpoint | None = None
        if config.health.endpoint is not None:
            answers = Answers(self.readiness, metrics, self._text, text.CONTENT_TYPE)
            site = HealthSite(answers, reactor)
            endpoint = config.health.endpoint
            self._endpoint = BoundEndpoint(reactor, "health.endpoint", endpoint, site, fail=fail, lost=_not_bound)
        self._make_push = partial(self._push_loop, reactor, wall, wall())
        self._push = self._make_push(config)
        self._push_of = _parts_of_push(config)

    def prepare(self, config: Config) -> Swap:
        """For another configuration. Raises ConfigError."""
        of = _parts_of_push(config)
        push = self._push if of == self._push_of else self._make_push(config)

        def swap() -> None:
            self._queue_limit = config.health.queue_limit
            before, self._push, self._push_of = self._push, push, of
            if before is not push and before is not None and before.running:
                before.replaced()
            if self.readiness.phase is not Phase.STARTING:
                self._run()

        return swap

    def _push_loop(self, reactor: Any, wall: Callable[[], float], started: float, config: Config) -> PushLoop | None:
        settings, endpoint = config.metrics, config.metrics.endpoint
        if endpoint is None:
            return None
        try:
            trust = trust_in(settings.ca_file)
        except AuthoritiesError as error:
            raise ConfigError([Problem(config.source or "", "metrics.ca_file", str(error))]) from None
        collector = Collector(
            endpoint,
            api_key=None if settings.api_key is None else settings.api_key.reveal(),
            reactor=reactor,
            wall=wall,
            trust=trust,
            addresses=self._addresses,
        )
        attributes = {
            "service.name": "mtatwist",
            "service.version": __version__,
            "service.instance.id": otlp.instance_id(config.server.hostname, config.server.data_dir),
            "host.name": os.uname().nodename,
            **dict(each.split("=", 1) for each in settings.attributes),
        }

        def message() -> bytes:
            self._process.read()
            return otlp.encode(self._metrics, attributes, started=started, now=wall())

        return PushLoop(
            collector.push,
            message,
            interval=settings.interval,
            clock=reactor,
            random=random.random,
            metrics=self._metrics,
            endpoint=collector.shown,
        )

    async def _addresses(self, host: str) -> Sequence[str]:
        return (await self._hosts.search(host)).addresses

    def _services(self) -> list[Service]:
        if self._endpoint is None and self._push is None:
            return []
        return [one for one in (self._process, self._queue, self._endpoint, self._push) if one is not None]

    def bind(self) -> None:
        """Before privileges go."""
        if self._endpoint is not None:
            self._endpoint.privilegedStartService()

    def start(self) -> None:
        """The spool is open and mail flows."""
        self._run()
        self.readiness.phase = Phase.RUNNING

    def _run(self) -> None:
        """What is wanted, and nothing else."""
        wanted = self._services()
        for service in (self._process, self._queue):
            if service.running and service not in wanted:
                service.stopService()
        for each in wanted:
            if not each.running:
                each.startService()

    def stopping(self) -> None:
        """From now on the spool is not asked any more, and whoever asks us hears that we go."""
        self.readiness.phase = Phase.STOPPING
        if self._queue.running:
            self._queue.stopService()

    async def stop(self) -> None:
        """All else has ended: push a last time, and answer no more."""
        for service in reversed(self._services()):
            if service.running:
                await maybeDeferred(service.stopService)

    def facts(self) -> dict[str, Any] | None:
        """Where health is asked for."""
        return None if self._endpoint is None else self._endpoint.facts()

    def collector(self) -> dict[str, Any] | None:
        """How it is with the push; None where nobody asks for it."""
        return None if self._push is None else self._push.facts()

    def _text(self) -> bytes:
        self._process.read()
        return text.render(self._metrics)

    # The checks.

    def _check_spool(self) -> Any:
        if self._spool.trouble:
            raise NotReady(f"trouble: {self._spool.trouble}")
        if not self._spool.has_room(0):
            raise NotReady("no room for new mail")
        return self._spool.try_to_write()

    def _check_queue(self) -> None:
        metrics = self._metrics
        waiting = metrics.queue_pending.value + metrics.queue_deferred.value + metrics.in_flight.value
        if waiting > self._queue_limit:
            raise NotReady(f"{waiting} recipients wait, more than health.queue_limit")

    def _check_listeners(self) -> None:
        for listener in self._listeners:
            if not listener.accepting:
                raise NotReady(f"not bound: {listener.facts()['endpoint']}")

    async def _check_directory(self) -> None:
        if not self._directory.exists:
            return
        try:
            await self._directory.search("(objectClass=*)", ["1.1"], 1)
        except DirectoryTrouble as error:
            raise NotReady(str(error)) from None


def _not_bound(code: int, why: str) -> None:
    """Mail is more than its probes: it goes on."""
    _log.critical("health_not_bound", reason=why)


def _parts_of_push(config: Config) -> Any:
    return config.metrics, config.server.hostname, content(config.metrics.ca_file)
