"""One query to one server, over UDP and TCP: sockets of Twisted's, a random port each (RFC 5452 §9.2, RFC 7766)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.dns.message import BadReply, NotOurs, Query, Reply, Truncated, no_answer, read_reply

STRANGERS = 20
"""Datagrams that are no reply to our query before somebody is guessing, and TCP is the better way."""

_DATAGRAM = 4096
"""Octets read of a datagram; a longer one can't be read, and is fetched over TCP."""

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN)

Receive = Callable[[bytes | OSError], None]


class Server(NamedTuple):
    """Where a DNS server is: an IP address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ServerFailed(Exception):
    """The server can't be reached, or says nothing that can be read; the message says why."""


class ServerSilent(ServerFailed):
    """It said nothing in time."""


class NoSocket(Exception):
    """We have no socket left: no fault of the server's."""


class Network:
    """The sockets of a reactor that has file descriptors (IReactorFDSet, IReactorTCP)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def datagrams(self, server: Server, receive: Receive) -> Datagrams:
        """A socket that hears this server alone. Raises OSError."""
        return Datagrams(self._reactor, server, receive)

    def connect(self, server: Server, factory: Any, seconds: float) -> Deferred[Any]:
        """A TCP connection."""
        endpoint = TCP6ClientEndpoint if ":" in server.address else TCP4ClientEndpoint
        connecting: Deferred[Any] = endpoint(self._reactor, server.address, server.port, seconds).connect(factory)
        return connecting


@implementer(IReadDescriptor)
class Datagrams:
    """A connected UDP socket: the kernel picks a random port, and lets nobody but the server through.

    (Twisted's own UDP ports write two lines to the log for each.)
    """

    def __init__(self, reactor: Any, server: Server, receive: Receive) -> None:
        self._reactor = reactor
        self._receive = receive
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect((server.address, server.port))
        except BaseException:
            self._socket.close()
            raise
        reactor.addReader(self)

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        self._socket.send(data)

    def close(self) -> None:
        """Hear no more."""
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "dns"

    def doRead(self) -> None:
        """One datagram; should there be more, the reactor calls again."""
        try:
            data: bytes | OSError = self._socket.recv(_DATAGRAM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            data = error
        self._receive(data)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; whoever waits is timed out or cancelled."""


async def ask(network: Network, clock: Any, server: Server, query: Query, seconds: float) -> Reply:
    """The server's reply, over TCP when a datagram does not do. Raises ServerFailed or NoSocket."""
    try:
        return await _over_udp(network, clock, server, query, seconds)
    except (Truncated, BadReply):
        return await _over_tcp(network, clock, server, query, seconds)


async def _over_udp(network: Network, clock: Any, server: Server, query: Query, seconds: float) -> Reply:
    done: Deferred[Reply] = Deferred()
    strangers = 0

    def receive(data: bytes | OSError) -> None:
        nonlocal strangers
        if done.called:
            return
        if isinstance(data, OSError):
            done.errback(ServerFailed(data.strerror or "connection failed"))
            return
        try:
            reply = read_reply(data, query)
        except NotOurs:
            strangers += 1
            if strangers >= STRANGERS:
                done.errback(BadReply("replies to other queries"))
        except (Truncated, BadReply) as why:
            done.errback(why)
        else:
            done.callback(reply)

    try:
        datagrams = network.datagrams(server, receive)
    except OSError as error:
        raise _socket_trouble(error) from None
    try:
        datagrams.send(query.wire)
        return await done.addTimeout(seconds, clock)
    except OSError as error:
        raise _socket_trouble(error) from None
    except TimeoutError:
        raise ServerSilent("no reply") from None
    finally:
        datagrams.close()


def _socket_trouble(error: OSError) -> Exception:
    """No descriptor or buffer is trouble of ours; all else is about this server."""
    why = error.strerror or type(error).__name__
    return NoSocket(why) if error.errno in _OURS else ServerFailed(why)


class _Stream(Int16StringReceiver):
    """A connection for one reply (RFC 1035 §4.2.2); Int16StringReceiver bounds it to 65,535 octets."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.done: Deferred[Reply] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._query.wire)

    def stringReceived(self, string: bytes) -> None:
        if self.done.called:
            return
        try:
            self.done.callback(read_reply(string, self._query))
        except BadReply as why:
            # The server may just pass on what somebody's zone has.
            self.done.callback(no_answer(f"unreadable reply: {why}", self._query, len(string)))
        except (NotOurs, Truncated):
            self.done.errback(ServerFailed("no true reply over TCP"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            why = "closed" if reason.check(ConnectionDone) else reason.getErrorMessage()
            self.done.errback(ServerFailed(f"TCP connection lost: {why}"))


async def _over_tcp(network: Network, clock: Any, server: Server, query: Query, seconds: float) -> Reply:
    stream = _Stream(query)
    factory = Factory.forProtocol(lambda: stream)
    factory.noisy = False
    try:
        await network.connect(server, factory, seconds)
    except ConnectingCancelledError:
        raise CancelledError from None
    except ConnectError as error:
        if error.osError in _OURS:
            raise NoSocket(str(error)) from None
        raise ServerFailed(f"TCP: {error}") from None
    try:
        return await stream.done.addTimeout(seconds, clock)
    except TimeoutError:
        raise ServerSilent("no reply over TCP") from None
    finally:
        if stream.transport is not None:
            stream.transport.abortConnection()  # type: ignore[attr-defined]
