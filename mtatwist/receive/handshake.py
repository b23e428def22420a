"""The TLS handshake of a session: it comes to an end once, and whichever it is, it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.tls.client_certificates import verified_subject
from mtatwist.tls.reasons import why_failed, why_slow
from mtatwist.transaction import Session

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()


class Handshake:
    """One that is under way."""

    def __init__(self, session: Session, metrics: Instruments, *, implicit: bool) -> None:
        """``implicit``: the session begins with it."""
        self._session = session
        self._metrics = metrics
        self._implicit = implicit

    def completed(self, connection: Any) -> None:
        """Note what was agreed on. ``connection``: OpenSSL's."""
        version = connection.get_protocol_version_name()
        self._session.tls = f"{version} with cipher {connection.get_cipher_name()}"
        # There are no others: see tls.policy.
        if version == "TLSv1.3":
            self._metrics.tls_sessions_13.value += 1
        else:
            self._metrics.tls_sessions_12.value += 1
        subject = verified_subject(connection)
        if subject:
            self._session.client_certificate = subject
            _log.info("client_certificate", session=self._session.id, peer=self._session.peer, subject=subject)

    def lost(self, reason: Failure) -> None:
        """The connection ended, for this reason."""
        self._metrics.tls_failures.value += 1
        self._failed(why_failed(reason.value))

    def late(self, connection: Any) -> None:
        """Its time is over."""
        self._metrics.tls_slow.value += 1
        self._failed(why_slow(connection, implicit=self._implicit))

    def _failed(self, why: str) -> None:
        _log.info("tls_failed", session=self._session.id, peer=self._session.peer, role=self._session.role, reason=why)
