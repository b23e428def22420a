"""Certificates that clients show, where they are asked to: who they are is told to the session and the log, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

SUBJECT_LIMIT = 255
"""Characters of a subject that are repeated: a client may write what it likes, if its authority signs it."""


class Verdict:
    """What OpenSSL said of the chain that one client showed. Without a word of praise it is nothing."""

    __slots__ = ("callbacks", "leaf_is_good", "something_is_bad")

    def __init__(self, callbacks: object) -> None:
        """``callbacks``: the owner of what OpenSSL calls during the handshake; it must live as long."""
        self.callbacks = callbacks
        self.leaf_is_good = False
        self.something_is_bad = False

    @property
    def good(self) -> bool:
        """Does the certificate come, link by link, from an authority that counts?"""
        return self.leaf_is_good and not self.something_is_bad


def judge(require: bool) -> Callable[[SSL.Connection, Any, int, int, int], bool]:
    """The callback for a context that asks for certificates.

    Other servers show one as a matter of course, from authorities that mean nothing here: that must cost nobody mail
    where a certificate is only asked for.
    """

    def verified(connection: SSL.Connection, certificate: Any, error: int, depth: int, ok: int) -> bool:
        verdict = connection.get_app_data()
        if not ok:
            verdict.something_is_bad = True
        elif depth == 0:
            verdict.leaf_is_good = True
        return bool(ok) or not require

    return verified


def verified_subject(connection: SSL.Connection) -> str:
    """The subject of the certificate that the client has shown and that is good (RFC 4514), else ""."""
    verdict = connection.get_app_data()
    if not isinstance(verdict, Verdict) or not verdict.good:
        return ""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    return "" if certificate is None else certificate.subject.rfc4514_string()[:SUBJECT_LIMIT]
