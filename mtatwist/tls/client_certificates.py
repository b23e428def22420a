"""Certificates that clients show, where they are asked to: who they are is told to the session and the log, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

SUBJECT_LIMIT = 255
"""Characters of a subject that are repeated: a client may write what it likes, if its authority signs it."""


class ClientConnection(SSL.Connection):
    """OpenSSL's side of a session, and what it says of the chain that the client showed: without praise, nothing."""

    def __init__(self, context: SSL.Context, callbacks: object) -> None:
        """``callbacks``: the owner of what OpenSSL calls during the handshake; it must live as long."""
        super().__init__(context, None)
        self.callbacks = callbacks
        self.leaf_is_good = False
        self.something_is_bad = False


def judge(require: bool) -> Callable[[SSL.Connection, Any, int, int, int], bool]:
    """The callback for a context that asks for certificates.

    Other servers show one as a matter of course, from authorities that mean nothing here: that must cost nobody mail
    where a certificate is only asked for.
    """

    def verified(connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
        if not ok:
            connection.something_is_bad = True
        elif depth == 0:
            connection.leaf_is_good = True
        return bool(ok) or not require

    return verified


def verified_subject(connection: Any) -> str:
    """The subject of the certificate that the client has shown and that is good (RFC 4514), else ""."""
    if not isinstance(connection, ClientConnection) or connection.something_is_bad or not connection.leaf_is_good:
        return ""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    return "" if certificate is None else certificate.subject.rfc4514_string()[:SUBJECT_LIMIT]
