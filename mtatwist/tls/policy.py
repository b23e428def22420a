"""Contexts for both sides of TLS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import idna
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from zope.interface import implementer

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

# Mozilla's intermediate list; TLS 1.3 has its own, which is fine as it is.
_CIPHERS = b":".join(
    [
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-CHACHA20-POLY1305",
        b"ECDHE-RSA-CHACHA20-POLY1305",
    ]
)


class CertificateError(Exception):
    """The certificate or its key can't be used; the message says which, why and what helps.

    :ivar key: the configuration key that names the file.
    :ivar reason: what is wrong with it.
    :ivar forbidden: whether that is only that this user may not read it.
    """

    def __init__(self, key: str, reason: str, *, forbidden: bool = False) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
        self.forbidden = forbidden


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """One OpenSSL context for all sessions, read once (while the process may still read the key)."""

    def __init__(self, certificate: str, private_key: str, minimum: str = "1.2") -> None:
        """``certificate``: a PEM file with the chain, ours first. Raises CertificateError."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_VERSIONS[minimum])
        context.set_cipher_list(_CIPHERS)
        context.set_options(
            SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | getattr(SSL, "OP_NO_RENEGOTIATION", 0)
        )
        # An idle session needs none of its 34 kB of buffers.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        for key, path in (("tls.certificate", certificate), ("tls.private_key", private_key)):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                forbidden = isinstance(error, PermissionError)
                raise CertificateError(key, f"{path}: {error.strerror}", forbidden=forbidden) from None
        try:
            context.use_certificate_chain_file(certificate)
        except SSL.Error:
            raise CertificateError("tls.certificate", f"{certificate} is not a certificate in PEM form") from None
        try:
            context.use_privatekey_file(private_key)
        except SSL.Error:
            raise CertificateError(
                "tls.private_key", f"{private_key} is not the unencrypted PEM key of {certificate}"
            ) from None
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        return SSL.Connection(self._context, None)


def client_context(host: str, verify: bool) -> Any:
    """How to speak TLS to ``host``: with its certificate and name checked, or just encrypted."""
    return optionsForClientTLS(host) if verify else _Unverified(host)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Whoever answers is believed, but told whom we look for (SNI, RFC 6066 §3): some hosts have several names."""

    def __init__(self, host: str) -> None:
        named = host and not isIPAddress(host) and not isIPv6Address(host)
        self._name = idna.encode(host, uts46=True) if named and not host.isascii() else host.encode() if named else b""

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See IOpenSSLClientConnectionCreator."""
        connection = SSL.Connection(_unverified(), None)
        if self._name:
            connection.set_tlsext_host_name(self._name)
        return connection


@lru_cache(maxsize=1)
def _unverified() -> SSL.Context:
    context: SSL.Context = CertificateOptions().getContext()
    return context
