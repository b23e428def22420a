"""The contexts that sessions begin with: chosen by the name the client asks for, and replaced all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mtatwist.tls.client_certificates import ClientConnection
from mtatwist.tls.keypair import KeyPair
from mtatwist.tls.policy import Policy, server_context


class Contexts:
    """One context for each pair; the first is for clients that ask for no name, or for one that nobody here has."""

    def __init__(self, pairs: Sequence[KeyPair], policy: Policy) -> None:
        """``pairs``: at least one. Raises CertificateError."""
        contexts = [server_context(pair, policy) for pair in pairs]
        self.default = contexts[0]
        self._by_name: dict[str, SSL.Context] = {}
        for pair, context in zip(pairs, contexts, strict=True):
            for name in pair.names:
                self._by_name.setdefault(name, context)
        # The callback belongs to the context that the session began with, and lives as long.
        self.default.set_tlsext_servername_callback(self._choose)

    def for_name(self, name: str) -> SSL.Context:
        """The context for a host name: one that has it, else one with a ``*`` for its first label (RFC 9525 §6.3)."""
        name = name.lower().rstrip(".")
        exact = self._by_name.get(name)
        if exact is not None:
            return exact
        label, dot, rest = name.partition(".")
        return (self._by_name.get(f"*.{rest}") if label and dot else None) or self.default

    def _choose(self, connection: SSL.Connection) -> None:
        """(OpenSSL) The client has said whom it looks for (RFC 6066 §3); a name that is none finds the default."""
        asked = connection.get_servername()
        if asked:
            chosen = self.for_name(asked.decode("ascii", "replace"))
            if chosen is not self.default:
                connection.set_context(chosen)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Begins TLS with clients. New contexts are for new sessions; the others go on as they began."""

    def __init__(self) -> None:
        self._contexts: Contexts | None = None

    def use(self, contexts: Contexts) -> None:
        """From now on these."""
        self._contexts = contexts

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        if self._contexts is None:
            raise RuntimeError("no certificate has been read yet")
        return ClientConnection(self._contexts.default, self._contexts)
