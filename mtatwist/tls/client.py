"""What we ask of a next hop's TLS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import idna
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from zope.interface import implementer


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
