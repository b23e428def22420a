"""The resolver and its cache."""

from __future__ import annotations

from functools import partial
from typing import Any

from mtatwist import dns
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments
from mtatwist.wiring.swap import Swap, nothing


def make_dns(config: Config, reactor: Any, metrics: Instruments, *, deliveries: int) -> dns.Dns:
    """As ``[dns]`` says; ``deliveries``: the most connections to next hops, which find their addresses by it."""
    settings = config.dns
    return dns.build(
        reactor=reactor,
        metrics=metrics,
        servers=settings.servers,
        trust_ad=settings.trust_ad,
        timeout=settings.timeout,
        # A delivery that waits for the DNS has no connection yet.
        in_flight=max(16, deliveries // 2),
        entries=settings.cache_entries,
        minimum_ttl=settings.minimum_ttl,
        maximum_ttl=settings.maximum_ttl,
        maximum_stale=settings.maximum_stale,
        addresses={each.domain: each.addresses for each in settings.overrides if each.addresses},
        forwards={each.domain: each.servers for each in settings.overrides if each.servers},
    )


def prepare_dns(
    running: Config, config: Config, current: dns.Dns, reactor: Any, metrics: Instruments, *, deliveries: int
) -> Swap:
    """For another configuration. What is remembered counts on, unless others are asked now."""

    def asked(config: Config) -> Any:
        return (
            config.dns.servers,
            config.dns.trust_ad,
            [(each.domain, each.servers) for each in config.dns.overrides if each.servers],
        )

    limits = (running.relay.connections, running.limits.connections)
    if running.dns == config.dns and limits == (config.relay.connections, config.limits.connections):
        return nothing
    other = make_dns(config, reactor, metrics, deliveries=deliveries)
    return partial(current.become, other, forget=asked(running) != asked(config))
