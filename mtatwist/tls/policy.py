"""What a server of ours shows and takes: docs/tls.rst says why, choice by choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL

from mtatwist.authorities import FILE_LIMIT
from mtatwist.regular_file import read_regular
from mtatwist.tls.client_certificates import judge
from mtatwist.tls.keypair import CertificateError, KeyPair

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256",
    b"ECDHE-RSA-AES128-GCM-SHA256",
    b"ECDHE-ECDSA-AES256-GCM-SHA384",
    b"ECDHE-RSA-AES256-GCM-SHA384",
    b"ECDHE-ECDSA-CHACHA20-POLY1305",
    b"ECDHE-RSA-CHACHA20-POLY1305",
)
"""Mozilla's intermediate list for TLS 1.2, without finite-field Diffie-Hellman; TLS 1.3 has only good ones."""

TICKET_SECONDS = 3600
"""How long a session ticket lets its client skip the key exchange, and the age at which the key that encrypts tickets
is replaced. OpenSSL would keep that key as long as the context."""

_NO_RENEGOTIATION = 1 << 30
_PRIORITIZE_CHACHA = 1 << 21
"""SSL_OP_NO_RENEGOTIATION and SSL_OP_PRIORITIZE_CHACHA, which not every pyOpenSSL names."""

_SESSIONS_OF = b"mtatwist"


@dataclass(frozen=True, slots=True)
class Policy:
    """``minimum``: the oldest version, "1.2" or "1.3". ``client_certificates``: none, ask or require, of one of the
    authorities in ``client_ca_file``."""

    minimum: str = "1.2"
    client_certificates: str = "none"
    client_ca_file: str | None = None


def server_context(pair: KeyPair, policy: Policy) -> SSL.Context:
    """A context for sessions in which this pair is shown. Raises CertificateError."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[policy.minimum])
    context.set_cipher_list(b":".join(CIPHERS))
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA | _NO_RENEGOTIATION
    )
    # An idle session needs none of its 34 kB of buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSIONS_OF)
    context.set_timeout(TICKET_SECONDS)
    try:
        context.use_certificate(pair.chain[0])
        for each in pair.chain[1:]:
            context.add_extra_chain_cert(each)
        context.use_privatekey(pair.key)
        context.check_privatekey()
    except SSL.Error as error:
        raise CertificateError(
            pair.files.certificate_key, f"{pair.files.certificate} is refused by OpenSSL: {_words(error)}"
        ) from None
    if policy.client_certificates != "none" and policy.client_ca_file:
        _ask_clients(context, policy.client_ca_file, require=policy.client_certificates == "require")
    return context


def _ask_clients(context: SSL.Context, ca_file: str, require: bool) -> None:
    try:
        # OpenSSL would wait for the other end of a pipe.
        read_regular(ca_file, FILE_LIMIT)
        context.load_verify_locations(ca_file)
        context.load_client_ca(ca_file.encode())
    except (SSL.Error, OSError) as error:
        why = _words(error) if isinstance(error, SSL.Error) else str(error.strerror)
        raise CertificateError("tls.client_ca_file", f"{ca_file} can't be used: {why}") from None
    # A session that is taken up again would bring its certificate along unverified.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if require else 0), judge(require))


def _words(error: SSL.Error) -> str:
    entries: Any = error.args[0] if error.args else ()
    return ", ".join(str(entry[-1]) for entry in entries) or "it does not say why"
