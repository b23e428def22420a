"""Why a handshake with a client came to nothing, in words for whoever reads the log."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed

_WORDS = {
    "http request": "the client speaks HTTP, not TLS",
    "https proxy request": "the client takes this for an HTTP proxy",
    "wrong version number": "the client does not speak TLS: it may expect to begin in clear",
    "record layer failure": "the client does not speak TLS: it may expect to begin in clear",
    "packet length too long": "the client does not speak TLS: it may expect to begin in clear",
    "unsupported protocol": "the client knows only TLS versions that are too old for tls.minimum",
    "version too low": "the client knows only TLS versions that are too old for tls.minimum",
    "no shared cipher": "the client knows none of our ciphers, or can't use the certificate's kind of key",
    "no suitable signature algorithm": "the client can't verify signatures with the certificate's kind of key",
    "no suitable key share": "the client knows none of our groups for the key exchange",
    "peer did not return a certificate": "the client has shown no certificate, and tls.client_certificates is require",
    "certificate verify failed": "the client's certificate is not one of tls.client_ca_file's, or not valid",
}

_ALERTS = {
    "unknown ca": "the client does not know the authority that signed our certificate",
    "bad certificate": "the client does not like our certificate",
    "certificate unknown": "the client does not accept our certificate",
    "certificate expired": "to the client our certificate has expired",
    "certificate revoked": "to the client our certificate is revoked",
    "unsupported certificate": "the client can't use our kind of certificate",
    "unrecognized name": "the client looks for another name",
    "protocol version": "the client wants another version of TLS",
    "handshake failure": "the client and we have no ciphers or keys in common",
    "insufficient security": "the client wants stronger ciphers",
    "user canceled": "the client gave up",
}
"""What clients say of the failure (RFC 8446 §6.2)."""

_BEFORE = b"before SSL initialization"

SILENT = "the client has not begun: it may be waiting for a greeting in clear, on a port that begins with TLS"
RELUCTANT = "the client has not begun the handshake that it asked for"
SLOW = "the handshake has taken longer than timeouts.handshake"
GONE = "the client closed the connection"


def why_failed(error: BaseException | None) -> str:
    """``error``: what ended the connection before its handshake was over."""
    if isinstance(error, SSL.Error):
        reasons = [str(entry[-1]).lower() for entry in (error.args[0] if error.args else ()) or ()]
        return ", ".join(dict.fromkeys(map(_in_words, reasons))) or "OpenSSL does not say why"
    if isinstance(error, ConnectionClosed):
        return GONE
    return str(error) or type(error).__name__


def why_slow(connection: Any, *, implicit: bool) -> str:
    """``connection``: the OpenSSL connection whose time is over; ``implicit``: whether there was no STARTTLS."""
    if connection is not None and connection.get_state_string() == _BEFORE:
        return SILENT if implicit else RELUCTANT
    return SLOW


def _in_words(reason: str) -> str:
    _, alert, name = reason.rpartition("alert ")
    if alert:
        words = _ALERTS.get(name)
        return f"{words} (alert: {name})" if words else f"the client refused (alert: {name})"
    return _WORDS.get(reason, reason)
