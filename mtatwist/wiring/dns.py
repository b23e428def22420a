"""The resolver and its cache."""

from __future__ import annotations

from typing import Any

from mtatwist import dns
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments


def make_dns(config: Config, reactor: Any, metrics: Instruments, *, in_flight: int) -> dns.Dns:
    """As ``[dns]`` says; ``in_flight``: the most questions at the same time."""
    settings = config.dns
    return dns.build(
        reactor=reactor,
        metrics=metrics,
        servers=settings.servers,
        trust_ad=settings.trust_ad,
        timeout=settings.timeout,
        in_flight=in_flight,
        entries=settings.cache_entries,
        minimum_ttl=settings.minimum_ttl,
        maximum_ttl=settings.maximum_ttl,
        maximum_stale=settings.maximum_stale,
        addresses={each.domain: each.addresses for each in settings.overrides if each.addresses},
        forwards={each.domain: each.servers for each in settings.overrides if each.servers},
    )
