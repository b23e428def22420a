"""One connection to one server of the directory; all of it blocks, and belongs into a thread."""

from __future__ import annotations

import contextlib
import math
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPCommunicationError, LDAPSessionTerminatedByServerError, LDAPStartTLSError
from zope.interface import implementer

from mtatwist.directory.limited import LimitedSocket
from mtatwist.directory.named import NamedServer
from mtatwist.directory.tls import CheckedTls
from mtatwist.interfaces import IEntry

SUCCESS = 0
SIZE_LIMIT_EXCEEDED = 4
NOT_NOW = (51, 52)
"""busy, unavailable: this server has trouble, another may have none."""

REFUSED = frozenset((49, 48, 53, 19, 50, 32))
"""Results of a bind that mean: not this user with this password (RFC 4511 §4.1.9). invalidCredentials,
inappropriateAuthentication, unwillingToPerform, constraintViolation, insufficientAccessRights, noSuchObject."""

READ_SIZE = 65536
PARTING_SECONDS = 0.5
"""How long saying goodbye may take."""


class ServerFailed(Exception):
    """The server could not be reached, or has not answered; the message says why."""


class ServerSilent(ServerFailed):
    """It has not answered in time."""


class ServerUntrusted(ServerFailed):
    """There is no TLS with it: its certificate is refused, or it does not offer any."""


class ConnectionLost(ServerFailed):
    """It has ended the connection. Where that has been idle, another one may do."""


class OperationRefused(Exception):
    """The server has answered, but not what was asked for; the message says what."""


class AnswerOverrun(OperationRefused):
    """The server was willing, but its answer is more than is read."""


@implementer(IEntry)
@dataclass(frozen=True, slots=True)
class Entry:
    """See IEntry."""

    dn: str
    attributes: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the directory's servers are spoken to.

    :ivar context: for TLS; None: none at all.
    :ivar start_tls: on connections that don't begin with it.
    :ivar bind_dn: who searches; "" for anonymously.
    :ivar connect_seconds: for a TCP connection to one address.
    """

    context: ssl.SSLContext | None
    start_tls: bool = True
    bind_dn: str = ""
    bind_password: bytes = b""
    connect_seconds: float = 3.0


class Connection:
    """Open, and encrypted if it has to be. Whatever a method raises, the connection is closed then."""

    def __init__(
        self, host: str, port: int, implicit_tls: bool, access: Access, deadline: float, now: Callable[[], float]
    ) -> None:
        """Connects. Raises ServerFailed."""
        self._now = now
        self._must_be_secure = implicit_tls or access.start_tls
        self._tls = None
        if self._must_be_secure:
            assert access.context is not None
            self._tls = CheckedTls(access.context, host, deadline, now)
        # A server object that was used before would remember trouble.
        self._server = NamedServer(
            host,
            port,
            use_ssl=implicit_tls,
            tls=self._tls,
            get_info=ldap3.NONE,
            connect_timeout=max(min(access.connect_seconds, deadline - now()), 0.001),
            allowed_referral_hosts=[],
        )
        self._ldap = ldap3.Connection(
            self._server,
            # Who uses it uses it alone; the safe one would copy each answer, for a tenth of the time.
            client_strategy=ldap3.SYNC,
            auto_referrals=False,
            auto_range=False,
            auto_escape=False,
            check_names=False,
            return_empty_attributes=False,
        )
        # What StartTLS is asked for on: ldap3 forgets a connection that ends meanwhile.
        self._first: LimitedSocket | None = None
        # It puts what it has read together anew after each read.
        self._ldap.strategy.socket_size = READ_SIZE
        try:
            with self._at_work(deadline):
                self._open(deadline)
        except OperationRefused as refused:
            # Nothing was asked of it yet.
            raise ServerFailed(str(refused)) from None

    def _open(self, deadline: float) -> None:
        self._ldap.open(read_server_info=False)
        if self._tls is None or not self._tls.established:
            plain = self._ldap.socket
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._first = self._ldap.socket = LimitedSocket(plain, deadline, self._now)
            if self._tls is not None:
                self._ldap.start_tls(read_server_info=False)

    def bind(self, dn: str, password: bytes, deadline: float) -> int:
        """Bind as ``dn``, or anonymously where it is "": the result's code. Raises ServerFailed."""
        if bool(dn) != bool(password):
            # RFC 4513 §5.1.2: the server would call it a success.
            raise ValueError("an unauthenticated bind")
        with self._at_work(deadline):
            if self._must_be_secure and not (self._tls and self._tls.established):
                raise ServerUntrusted("the connection is not encrypted")
            self._ldap.authentication = ldap3.SIMPLE if dn else ldap3.ANONYMOUS
            self._ldap.user, self._ldap.password = dn or None, password or None
            try:
                self._ldap.bind(read_server_info=False)
            finally:
                self._ldap.password = self._ldap.request = None
            return self._code(self._ldap.result)

    def search(self, base: str, filter: str, attributes: Sequence[str], limit: int, deadline: float) -> list[Entry]:
        """Up to ``limit`` entries below ``base``. Raises ServerFailed, OperationRefused."""
        with self._at_work(deadline):
            self._ldap.search(
                base,
                filter,
                search_scope=ldap3.SUBTREE,
                dereference_aliases=ldap3.DEREF_NEVER,
                attributes=list(attributes),
                size_limit=limit,
                time_limit=max(math.ceil(deadline - self._now()), 1),
            )
            if self._code(self._ldap.result) not in (SUCCESS, SIZE_LIMIT_EXCEEDED):
                raise OperationRefused(f"the search is answered {_words(self._ldap.result)}")
            # Referrals stand among the entries.
            return [_entry(each) for each in self._ldap.response or () if each["type"] == "searchResEntry"][:limit]

    def _code(self, result: Any) -> int:
        code = int(result["result"])
        if code in NOT_NOW:
            raise ServerFailed(f"it says that it is {_words(result)}")
        return code

    @contextlib.contextmanager
    def _at_work(self, deadline: float) -> Iterator[None]:
        """Until ``deadline``. Whatever goes wrong is said in our terms, and closes the connection."""
        limited = self._ldap.socket
        if isinstance(limited, LimitedSocket):
            limited.begin(deadline)
        try:
            yield
        except (ServerFailed, OperationRefused):
            self._drop(limited)
            raise
        except Exception as error:
            limited = self._ldap.socket or limited or self._first
            self._drop(limited)
            raise self._reason(error, limited) from None

    def _reason(self, error: Exception, limited: Any) -> Exception:
        refused = self._tls and self._tls.error
        if isinstance(refused, ssl.SSLCertVerificationError):
            return ServerUntrusted(f"its certificate is refused: {refused.verify_message}")
        if isinstance(refused, TimeoutError) or isinstance(error, TimeoutError) or getattr(limited, "timed_out", False):
            return ServerSilent("it does not answer in time")
        if isinstance(refused, OSError) or isinstance(error, LDAPStartTLSError):
            why = getattr(refused, "reason", None)
            return ServerUntrusted(
                f"there is no TLS with it: {why.replace('_', ' ').lower() if why else refused or error}"
            )
        if self._server.unresolved is not None:
            return ConnectionLost(f"its name can't be resolved: {self._server.unresolved}")
        if getattr(limited, "overrun", False):
            return AnswerOverrun("the answer is too large")
        if isinstance(error, LDAPCommunicationError | OSError):
            # What ldap3 was doing is of no interest, and a number no explanation.
            why = re.sub(r"^.*\[Errno -?\d+\] ", "", str(error))
            if isinstance(error, LDAPSessionTerminatedByServerError):
                why = "it closed the connection"
            if self._tls is not None and not self._tls.established and self._first is not None:
                why += " before TLS: is that the ldaps port?"
            return ConnectionLost(why)
        return OperationRefused(f"{type(error).__name__}: {error}")

    def _drop(self, limited: Any) -> None:
        with contextlib.suppress(Exception):
            if limited is not None:
                limited.close()
        self._ldap.closed = True

    def close(self) -> None:
        """Say goodbye, and end it."""
        limited = self._ldap.socket
        if isinstance(limited, LimitedSocket):
            limited.begin(self._now() + PARTING_SECONDS)
            with contextlib.suppress(Exception):
                self._ldap.unbind()
            self._drop(limited)

    def cut(self) -> None:
        """End it from another thread; who waits for it hears of that at once."""
        limited = self._ldap.socket
        with contextlib.suppress(Exception):
            if isinstance(limited, LimitedSocket):
                # A TLS socket would say goodbye, too, and wait for a lock.
                socket.socket.shutdown(limited.wrapped, socket.SHUT_RDWR)


def _words(result: Any) -> str:
    """The result as an administrator looks it up."""
    said = f": {result['message']}" if result.get("message") else ""
    return f"{result['description']} ({result['result']}){said}"


def _entry(found: Mapping[str, Any]) -> Entry:
    attributes = {}
    for name, values in found["raw_attributes"].items():
        texts = []
        for value in values:
            # What is no text is no address and no name.
            with contextlib.suppress(UnicodeDecodeError):
                texts.append(value.decode())
        if texts:
            attributes[name.lower()] = tuple(texts)
    return Entry(found["dn"], attributes)
