"""An endpoint that is bound early, while the process may still bind low ports, and never silently unbound."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

BACKLOG = 1024
"""Connections that the kernel keeps for us until we accept them. Of a crowd larger than that it may forget some, who
then wait in vain for their greeting; Twisted's own default is 50."""


class BoundEndpoint(Service):
    """Bound when privileges are still there, accepting until the service stops."""

    def __init__(
        self,
        reactor: Any,
        key: str,
        endpoint: str,
        factory: Any,
        *,
        fail: Callable[[int, str], NoReturn],
        lost: Callable[[int, str], None],
    ) -> None:
        """``key`` is the setting that names ``endpoint``, for complaints. ``fail`` ends the start of the server;
        ``lost`` is told when an endpoint that takes its time (an onion service) fails later. Both get an exit code
        and the reason."""
        self._reactor = reactor
        self._key = key
        self._endpoint = endpoint
        self._factory = factory
        self._fail = fail
        self._lost = lost
        self._port: Any = None
        self._binding: Deferred[Any] | None = None
        self._refusal = ""
        self._is_late = False

    @property
    def accepting(self) -> bool:
        """Is it bound, or may yet be?"""
        return self._port is not None or self._binding is not None

    def privilegedStartService(self) -> None:
        """Bind; a port that can't be bound ends the process, saying which."""
        self._bind()

    def startService(self) -> None:
        """Bind, where nobody called privilegedStartService()."""
        super().startService()
        if not self.accepting:
            self._bind()

    def stopService(self) -> Any:
        """Accept no more."""
        super().stopService()
        if self._binding is not None:
            self._binding.cancel()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()

    @property
    def bound(self) -> tuple[str, int] | None:
        """The address and port it listens on, if it is bound to such."""
        host = self._port.getHost() if self._port is not None else None
        return (host.host, host.port) if isinstance(host, IPv4Address | IPv6Address) else None

    def facts(self) -> dict[str, Any]:
        """Where this really listens."""
        host = self._port.getHost() if self._port is not None else None
        return {
            "endpoint": self._endpoint,
            "host": getattr(host, "host", None) or str(getattr(host, "name", "")),
            "port": getattr(host, "port", None),
        }

    def _bind(self) -> None:
        try:
            binding = serverFromString(self._reactor, _with_backlog(self._endpoint)).listen(self._factory)
        except (ValueError, TypeError, LookupError, OSError) as error:
            self._fail(os.EX_CONFIG, f"{self._key} {self._endpoint!r}: {error}")
        self._binding = binding
        binding.addCallbacks(self._bound, self._not_bound)
        # Not in the errback: a Deferred catches SystemExit too.
        if self._refusal:
            self._fail(os.EX_OSERR, self._refusal)
        self._is_late = True

    def _bound(self, port: Any) -> None:
        self._port, self._binding = port, None

    def _not_bound(self, failure: Failure) -> None:
        why = failure.getErrorMessage()
        if isinstance(failure.value, CannotListenError):
            error = failure.value.socketError
            why = getattr(error, "strerror", None) or str(error)
        self._binding = None
        self._refusal = f"{self._key} {self._endpoint!r} can't be bound: {why}"
        if self._is_late and self.running:
            self._lost(os.EX_OSERR, self._refusal)


def _with_backlog(endpoint: str) -> str:
    """The endpoint string, with our backlog unless it names one."""
    if endpoint.partition(":")[0] in ("tcp", "tcp6") and ":backlog=" not in endpoint:
        return f"{endpoint}:backlog={BACKLOG}"
    return endpoint
