"""Both sides of TLS, shaking hands in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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

from mtatwist.tls.policy import CertificateError, ServerContext, client_context
from mtatwist.transports.reasons import why_lost


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.make(tmp_path_factory.mktemp("certificates"), "mta.test")


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


def server(files: certificates.Files, minimum: str = "1.2") -> ServerContext:
    return ServerContext(str(files.certificate), str(files.key), minimum)


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


def test_any_certificate_will_do_where_it_is_not_verified(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("elsewhere.test", False))
    assert (here.heard, there.heard) == (b"hello", b"hello")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("mta.test", b"mta.test"),
        ("b\u00fccher.test", b"xn--bcher-kva.test"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ],
)
def test_the_client_says_whom_it_looks_for(
    files: certificates.Files, host: str, asked: bytes | None, verify: bool
) -> None:
    names: list[bytes | None] = []
    context = server(files)
    context._context.set_tlsext_servername_callback(lambda connection: names.append(connection.get_servername()))
    shake_hands(context, client_context(host, verify))
    assert names == [asked]


@pytest.fixture
def trusted(files: certificates.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test authority is one of the system's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))


@pytest.mark.usefixtures("trusted")
def test_verify_takes_the_right_name(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("mta.test", True))
    assert (here.heard, there.heard) == (b"hello", b"hello")


@pytest.mark.usefixtures("trusted")
def test_verify_refuses_another_name(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("other.test", True))
    assert there.heard == here.heard == b""
    assert "for another host name" in there.why


def test_verify_refuses_an_unknown_authority(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("mta.test", True))
    assert there.heard == here.heard == b""
    assert there.why == "certificate verify failed: unable to get local issuer certificate"


@pytest.mark.parametrize(
    ("minimum", "client", "heard"),
    [
        ("1.2", Limited(SSL.TLS1_2_VERSION), b"hello"),
        ("1.3", Limited(SSL.TLS1_2_VERSION), b""),
        ("1.3", Limited(SSL.TLS1_3_VERSION), b"hello"),
        ("1.2", Limited(SSL.TLS1_1_VERSION), b""),
        ("1.2", Limited(SSL.TLS1_2_VERSION, b"AES128-SHA:ECDHE-ECDSA-AES128-SHA"), b""),
    ],
    ids=["1.2", "1.2 is too old", "1.3", "1.1 is too old", "weak ciphers"],
)
def test_what_clients_may_use(files: certificates.Files, minimum: str, client: Limited, heard: bytes) -> None:
    _, there = shake_hands(server(files, minimum), client)
    assert there.heard == heard


def _other(directory: Path) -> Path:
    (directory / "other").mkdir()
    return certificates.make(directory / "other").key


def _text(directory: Path) -> Path:
    (directory / "text").write_text("not PEM")
    return directory / "text"


def _locked(directory: Path) -> Path:
    return directory


@pytest.mark.parametrize(
    "make", [lambda directory: directory / "missing", _text, _locked], ids=["missing", "text", "directory"]
)
@pytest.mark.parametrize("key", ["certificate", "private_key"])
def test_a_file_that_cannot_be_used_is_named(
    files: certificates.Files, tmp_path: Path, key: str, make: Callable[[Path], Path]
) -> None:
    bad = make(tmp_path)
    paths = [str(files.certificate), str(files.key)]
    paths[key == "private_key"] = str(bad)
    with pytest.raises(CertificateError) as caught:
        ServerContext(*paths)
    assert str(caught.value).startswith(f"tls.{key}: {bad}")
    assert "Traceback" not in str(caught.value)


def test_a_key_of_another_certificate_is_refused(files: certificates.Files, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"tls\.private_key: .* is not the unencrypted PEM key of"):
        ServerContext(str(files.certificate), str(_other(tmp_path)))


def test_the_key_is_read_once(files: certificates.Files, tmp_path: Path) -> None:
    """Later the process may not be allowed to."""
    certificate, key = tmp_path / "mta.pem", tmp_path / "mta.key"
    certificate.write_bytes(files.certificate.read_bytes())
    key.write_bytes(files.key.read_bytes())
    context = ServerContext(str(certificate), str(key))
    os.unlink(key)
    os.unlink(certificate)
    assert shake_hands(context, client_context("mta.test", False))[1].heard == b"hello"
