"""What the listeners show to clients that use TLS."""

from __future__ import annotations

import datetime

from mtatwist.config import Config
from mtatwist.tls import selfsigned
from mtatwist.tls.policy import CertificateError, ServerContext


def make_tls(config: Config) -> ServerContext | None:
    """As ``[tls]`` says; None without a certificate. Raises CertificateError."""
    certificate, private_key = config.tls.certificate, config.tls.private_key
    if not certificate or not private_key:
        return None
    if config.embedded:
        try:
            selfsigned.ensure(certificate, private_key, config.server.hostname, now=datetime.datetime.now(datetime.UTC))
        except OSError as error:
            raise CertificateError("tls.certificate", f"{certificate} can't be made: {error.strerror}") from None
    return ServerContext(certificate, private_key, config.tls.minimum)
