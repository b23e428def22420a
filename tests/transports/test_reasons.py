"""What the log and the DSN say of connections that fail."""

from __future__ import annotations

import errno

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionRefusedError, TimeoutError

from mtatwist.transports.reasons import why_lost, why_not_connected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
        (ConnectError(errno.EHOSTUNREACH, "No route to host"), "no route to host"),
        (TimeoutError(), "no answer in time"),
        (RuntimeError("odd"), "odd"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_the_system_says_is_said_once(error: Exception, words: str) -> None:
    assert why_not_connected(error) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionDone(), "connection lost"),
        (OSError("reset"), "connection lost: reset"),
        (VerificationError(errors=[]), "the certificate is for another host name"),
        (SSL.Error([("SSL routines", "", "wrong version number")]), "TLS error: wrong version number"),
        (SSL.Error(), "TLS error: OpenSSL does not say which"),
        (
            SSL.Error([("SSL routines", "", "certificate verify failed")]),
            "certificate verify failed: OpenSSL does not say why",
        ),
    ],
)
def test_a_lost_connection_has_no_tuples(error: Exception, words: str) -> None:
    assert why_lost(error, None) == words
