"""One HTTP exchange with a server that is not trusted: bounded in time and octets, and closed behind itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

DEADLINE = 10.0
"""Seconds that a push may take, from the look-up of the collector's name to the end of its answer."""

ANSWER_LIMIT = 64 * 1024
"""Octets that a collector may send in all, header and body: a good answer has some hundred."""


ADDRESSES = 4
"""Addresses of a collector that are tried, one after the other; each has its share of the deadline."""

FindAddresses = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host."""


@implementer(IAgent, IAgentEndpointFactory)
class Exchange:
    """An agent for one request. What it opened is closed by :meth:`cut`, whatever has come of it."""

    def __init__(self, reactor: Any, trust: Any, addresses: FindAddresses) -> None:
        """``trust``: the authorities that may have signed a certificate."""
        self._reactor = reactor
        self._addresses = addresses
        self._trust = trust
        self._connections: list[ProtocolWrapper] = []

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """(IAgent) treq asks for compressed answers, and would blow up what comes: neither."""
        if headers is not None:
            headers.removeHeader(b"accept-encoding")
        agent = Agent.usingEndpointFactory(self._reactor, self, HTTPConnectionPool(self._reactor, persistent=False))
        asked: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(_as_it_is)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """(IAgentEndpointFactory) To where, with TLS for https."""
        host = uri.host.decode("ascii")
        endpoint: Any = _Host(self._reactor, host, uri.port, self._addresses)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(optionsForClientTLS(host, trustRoot=self._trust), endpoint)
        return cast(IStreamClientEndpoint, _Bounded(endpoint, self._connections))

    def cut(self) -> None:
        """Close what is still open."""
        for connection in self._connections:
            transport: Any = connection.transport
            if transport is not None and connection.connected:
                transport.abortConnection()


def _as_it_is(response: Any) -> Any:
    response.headers.removeHeader(b"content-encoding")
    return response


@implementer(IStreamClientEndpoint)
class _Host:
    """Every address of a host. Twisted's own endpoint looks names up in a thread, for which the server's end waits."""

    def __init__(self, reactor: Any, host: str, port: int, addresses: FindAddresses) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._addresses = addresses

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        found = (await self._addresses(self._host))[:ADDRESSES]
        trouble: Exception = ConnectError(string=f"{self._host} has no address")
        for address in found:
            kind: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            try:
                return cast(
                    IProtocol,
                    await kind(self._reactor, address, self._port, timeout=DEADLINE / len(found)).connect(factory),
                )
            except CancelledError:
                raise
            except Exception as error:
                trouble = error
        raise trouble


@implementer(IStreamClientEndpoint)
class _Bounded:
    """An endpoint whose connections end when more than ANSWER_LIMIT comes."""

    def __init__(self, endpoint: IStreamClientEndpoint, made: list[ProtocolWrapper]) -> None:
        self._endpoint = endpoint
        self._made = made

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        wrapping: Any = WrappingFactory(cast(Any, factory))
        # Else each push has two lines in the log.
        wrapping.noisy = wrapping.wrappedFactory.noisy = False
        wrapping.protocol = _BoundedConnection
        connecting: Deferred[Any] = self._endpoint.connect(wrapping)
        return connecting.addCallback(self._connected)

    def _connected(self, connection: ProtocolWrapper) -> IProtocol:
        self._made.append(connection)
        return connection.wrappedProtocol


class _BoundedConnection(ProtocolWrapper):
    """Counts what comes."""

    _received = 0

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self._received += len(data)
        if self._received > ANSWER_LIMIT:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            super().dataReceived(data)


@implementer(IBodyProducer)
class Content:
    """A request body that is all there: treq's own takes the global reactor to write it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See IBodyProducer."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See IPushProducer."""

    def resumeProducing(self) -> None:
        """See IPushProducer."""

    def stopProducing(self) -> None:
        """See IProducer."""
