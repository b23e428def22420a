"""TLS to the directory: its certificate and name are checked, by OpenSSL and with one context for all connections."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from ldap3 import Tls

from mtatwist.authorities import read_authorities
from mtatwist.directory.limited import LimitedSocket


def make_context(ca_file: str | None) -> ssl.SSLContext:
    """Trusts the authorities in this PEM file, or the system's. Raises AuthoritiesError."""
    found = None if ca_file is None else b"".join(each.public_bytes(Encoding.DER) for each in read_authorities(ca_file))
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=found)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class CheckedTls(Tls):
    """ldap3's own checks nothing by default, makes a context for each connection, and knows no IP addresses.

    :ivar established: whether the connection is encrypted, to a server that has shown who it is.
    :ivar error: why it is not.
    """

    def __init__(self, context: ssl.SSLContext, host: str, deadline: float, now: Callable[[], float]) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self.established = False
        self.error: OSError | None = None
        self._context = context
        self._host = host
        self._deadline = deadline
        self._now = now

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """(Tls) The handshake, at once."""
        plain = connection.socket
        if isinstance(plain, LimitedSocket):
            plain = plain.wrapped
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(LimitedSocket(plain, self._deadline, self._now).patience())
        try:
            secured = self._context.wrap_socket(plain, server_hostname=self._host)
        except OSError as error:
            self.error = error
            raise
        connection.socket = LimitedSocket(secured, self._deadline, self._now)
        self.established = True
