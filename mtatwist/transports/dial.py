"""Opening a connection to one address."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol

if TYPE_CHECKING:
    from typing import Any

P = TypeVar("P", bound=Protocol)


class Target(NamedTuple):
    """One address to try: ``host`` is the name it belongs to (for TLS and the DSN), ``address`` an IP address.

    Without a port, ``address`` is the path of a unix socket. An address that is a name is looked up by the system.
    """

    host: str
    address: str
    port: int

    @property
    def is_local(self) -> bool:
        """Is it a unix socket?"""
        return not self.port

    @property
    def name(self) -> str:
        """Host, address and port, for people."""
        if self.is_local:
            return self.host
        return f"{self.host if self.address == self.host else f'{self.host}[{self.address}]'}:{self.port}"


def split_next_hop(next_hop: str) -> tuple[str, int]:
    """The host and the port of "host:port", "[v6]:port" or "unix:/path"; for a unix socket its path and 0."""
    if next_hop.startswith("unix:"):
        return next_hop[5:], 0
    host, _, port = next_hop.rpartition(":")
    return host.strip("[]"), int(port)


def direct(next_hop: str) -> Target:
    """The one target that "host:port", "[v6]:port" or "unix:/path" names."""
    host, port = split_next_hop(next_hop)
    return Target(host if port else next_hop, host, port)


async def dial(reactor: Any, target: Target, protocol: P, seconds: float) -> P:
    """Connect ``protocol``; ``seconds`` at most. Raises what the endpoint fails with."""
    if target.is_local:
        endpoint: Any = UNIXClientEndpoint(reactor, target.address, seconds)
    elif isIPAddress(target.address):
        endpoint = TCP4ClientEndpoint(reactor, target.address, target.port, seconds)
    elif isIPv6Address(target.address):
        endpoint = TCP6ClientEndpoint(reactor, target.address, target.port, seconds)
    else:
        endpoint = HostnameEndpoint(reactor, target.address, target.port, seconds)
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False
    connected: P = await endpoint.connect(factory)
    if ITCPTransport.providedBy(connected.transport):
        connected.transport.setTcpNoDelay(True)
    return connected
