"""Opening a connection to "host:port", "[v6]:port" or "unix:/path"."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol

if TYPE_CHECKING:
    from typing import Any

P = TypeVar("P", bound=Protocol)


def split_next_hop(next_hop: str) -> tuple[str, int]:
    """The host and the port; for a unix socket its path and 0."""
    if next_hop.startswith("unix:"):
        return next_hop[5:], 0
    host, _, port = next_hop.rpartition(":")
    return host.strip("[]"), int(port)


class Target(NamedTuple):
    """One address to try: ``host`` is the name it belongs to (for TLS and the DSN), ``address`` an IP address."""

    host: str
    address: str
    port: int


async def dial(reactor: Any, next_hop: str, protocol: P, seconds: float) -> P:
    """Connect ``protocol``; ``seconds`` at most. Raises what the endpoint fails with."""
    host, port = split_next_hop(next_hop)
    if not port:
        endpoint: Any = UNIXClientEndpoint(reactor, host, seconds)
    else:
        endpoint = HostnameEndpoint(reactor, host, port, seconds)
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    connected: P = await endpoint.connect(factory)
    if ITCPTransport.providedBy(connected.transport):
        connected.transport.setTcpNoDelay(True)
    return connected
