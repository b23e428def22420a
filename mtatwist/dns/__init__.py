"""Names and addresses: a resolver with a cache, over Twisted's own sockets. Nothing here blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.threads import deferToThreadPool

from mtatwist.dns.cache import Cache
from mtatwist.dns.hosts import Hosts
from mtatwist.dns.network import Network, Server
from mtatwist.dns.overrides import Overrides
from mtatwist.dns.resolver import Resolver
from mtatwist.dns.servers import Servers
from mtatwist.dns.system import ResolvConf, WatchedFile, parse_hosts, parse_resolv_conf

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments


class Dns(NamedTuple):
    """What others use: ``resolver`` for records, ``hosts`` for the addresses of hosts."""

    resolver: Resolver
    hosts: Hosts

    def become(self, other: Dns, *, forget: bool) -> None:
        """Answer as ``other`` would from now on: see Resolver.become(). Nobody asks ``other`` itself."""
        self.resolver.become(other.resolver, forget=forget)
        self.hosts.become(other.hosts)


def build(
    *,
    reactor: Any,
    metrics: Instruments,
    servers: Sequence[tuple[str, int]],
    trust_ad: bool,
    timeout: float,
    in_flight: int,
    entries: int,
    minimum_ttl: float,
    maximum_ttl: float,
    maximum_stale: float,
    addresses: Mapping[str, Sequence[str]],
    forwards: Mapping[str, Sequence[tuple[str, int]]],
    network: Network | None = None,
    resolv_conf: str = "/etc/resolv.conf",
    hosts_file: str = "/etc/hosts",
) -> Dns:
    """Put it together. Without ``servers``, those of the system; ``addresses`` and ``forwards``: see Overrides."""

    def in_thread(read: Any) -> Any:
        return deferToThreadPool(reactor, reactor.getThreadPool(), read)

    def watched(path: str, parse: Any, empty: Any) -> Any:
        return WatchedFile(path, parse, clock=reactor, in_thread=in_thread, empty=empty)

    system = None if servers else watched(resolv_conf, parse_resolv_conf, ResolvConf())
    known = watched(hosts_file, parse_hosts, {})
    own = tuple(Server(*server) for server in servers)
    resolver = Resolver(
        servers=Servers(lambda: own if system is None else system.value.servers, reactor, metrics),
        overrides=Overrides(
            addresses=addresses,
            servers={domain: [Server(*server) for server in of_domain] for domain, of_domain in forwards.items()},
            clock=reactor,
            metrics=metrics,
        ),
        cache=Cache(
            clock=reactor,
            metrics=metrics,
            entries=entries,
            minimum_ttl=minimum_ttl,
            maximum_ttl=maximum_ttl,
            maximum_stale=maximum_stale,
        ),
        network=network or Network(reactor),
        clock=reactor,
        metrics=metrics,
        seconds=timeout,
        in_flight=in_flight,
        trust_ad=trust_ad,
    )
    hosts = Hosts(resolver, known=lambda: known.value, system=None if system is None else lambda: system.value)
    return Dns(resolver, hosts)
