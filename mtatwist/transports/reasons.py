"""Why a connection could not be opened, or was lost: in words for the log and the DSN."""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectError, ConnectionDone, TimeoutError


def why_not_connected(error: Exception) -> str:
    """The system's own word for it, once: Twisted's texts hold two."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        words = os.strerror(error.osError)
        return words[:1].lower() + words[1:]
    return str(error) or type(error).__name__


def why_lost(error: BaseException | None, transport: Any) -> str:
    """``transport``: knows, after a TLS handshake that failed, the OpenSSL connection."""
    if isinstance(error, ConnectionDone):
        return "connection lost"
    if isinstance(error, VerificationError):
        return "the certificate is for another host name"
    if isinstance(error, SSL.Error):
        return _why_no_tls(error, transport)
    return f"connection lost: {error}"


def _why_no_tls(error: SSL.Error, transport: Any) -> str:
    stack = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[-1]) for entry in stack]
    if "certificate verify failed" not in reasons:
        return f"TLS error: {', '.join(filter(None, reasons)) or 'OpenSSL does not say which'}"
    return f"certificate verify failed: {_verify_error(transport) or 'OpenSSL does not say why'}"


def _verify_error(transport: Any) -> str:
    """What OpenSSL has against the peer's certificate; "" if it can't be asked."""
    # pyOpenSSL has no call for this, and without it nobody knows whether a certificate has expired or is self-signed.
    library = getattr(SSL, "_lib", None)
    try:
        code = library.SSL_get_verify_result(transport.getHandle()._ssl)  # type: ignore[union-attr]
        if code == 0:
            # Nothing against the chain: it was its name that we refused.
            return "it is for another host name"
        text: bytes = SSL._ffi.string(library.X509_verify_cert_error_string(code))  # type: ignore
        return text.decode("ascii", "replace")
    except (AttributeError, TypeError):
        return ""
