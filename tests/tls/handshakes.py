"""Both sides of TLS, shaking hands in memory."""

from __future__ import annotations

import contextlib
from typing import Any, Self

from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from rigs import certificates
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.tls.keypair import Files, read
from mtatwist.tls.policy import Policy
from mtatwist.tls.server import Contexts, ServerTls
from mtatwist.transports.reasons import why_lost

POLICY = Policy()


class _Transport(StringTransport):
    def setTcpNoDelay(self, on: bool) -> None:
        pass


class End(Protocol):
    """One end of a connection: what it heard, and how it ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Any = None
        self.why = ""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason
        self.why = why_lost(reason.value, self.transport)


def shake_hands(server: Any, client: Any) -> tuple[End, End]:
    """A server's and a client's end, after both have said hello."""
    ends: list[tuple[End, Any, StringTransport]] = []
    lost: list[Any] = []
    clock = Clock()
    for context, is_client in ((server, False), (client, True)):
        end = End()
        factory = TLSMemoryBIOFactory(context, is_client, _factory(end), clock)
        protocol: Any = factory.buildProtocol(None)
        transport = _Transport()
        ends.append((end, protocol, transport))
    for _, protocol, transport in ends:
        protocol.makeConnection(transport)
    for end, protocol, _ in ends:
        assert end.transport is protocol
        protocol.write(b"hello")
    for _ in range(6):
        clock.advance(0.1)
        for (_, _, here), (_, there, _) in (ends, ends[::-1]):
            data = here.value()
            here.clear()
            if data and there.connected and there not in lost:
                try:
                    there.dataReceived(data)
                except Exception:
                    # What the reactor would do; Twisted 24.3 stumbles over an error that OpenSSL leaves empty.
                    there.connectionLost(Failure())
                    lost.append(there)
    for _, protocol, transport in ends:
        if transport.disconnecting and protocol not in lost:
            protocol.connectionLost(Failure(ConnectionDone()))
    return ends[0][0], ends[1][0]


def _factory(end: End) -> Factory:
    factory = Factory()
    factory.buildProtocol = lambda addr: end  # type: ignore[method-assign]
    factory.noisy = False
    return factory


def server(*files: certificates.Files, policy: Policy = POLICY) -> ServerTls:
    """What a server with these certificates, the default first, begins TLS with."""
    tls = ServerTls()
    tls.use(Contexts([read(Files(str(each.certificate), str(each.key))) for each in files], policy))
    return tls


@implementer(IOpenSSLContextFactory)
class Limited:
    """A client that knows TLS only up to a version, or only one cipher."""

    def __init__(self, version: int = 0, cipher: bytes = b"") -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version:
            self._context.set_max_proto_version(version)
        if cipher:
            self._context.set_cipher_list(cipher)

    def getContext(self) -> SSL.Context:
        return self._context


class Visitor:
    """A client in memory that begins TLS with a server's protocol, and says what came of it."""

    def __init__(
        self, factory: Any, *, newest: int = 0, name: str = "", shown: certificates.Files | None = None
    ) -> None:
        """``newest``: the last version of TLS that it knows; ``name``: whom it asks for; ``shown``: its certificate."""
        self.transport = _Transport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if newest:
            context.set_max_proto_version(newest)
        if shown is not None:
            context.use_certificate_file(str(shown.certificate))
            context.use_privatekey_file(str(shown.key))
        self.connection = SSL.Connection(context, None)
        if name:
            self.connection.set_tlsext_host_name(name.encode())
        self.connection.set_connect_state()
        self.refused = False

    def shake_hands(self) -> Self:
        """Until one of the two is through, or gives up."""
        for _ in range(8):
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error:
                self.refused = True
            self._exchange()
        return self

    def _exchange(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self.protocol.dataReceived(self.connection.bio_read(100_000))
        if self.transport.value():
            self.connection.bio_write(self.transport.value())
            self.transport.clear()
        try:
            self.connection.recv(100_000)
        except SSL.WantReadError:
            pass
        except SSL.Error:
            self.refused = True

    def leave(self) -> None:
        """Close the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def saw(self) -> str:
        """Whose certificate it was shown; "refused" or "nothing" where there was none."""
        certificate = self.connection.get_peer_certificate(as_cryptography=True)
        if self.refused or certificate is None:
            return "refused" if self.refused else "nothing"
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)
