"""The endpoint that the site listens on: bound early, like those for mail."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


class HealthEndpoint(Service):
    """Listens while the server starts, runs and stops: a probe is answered all that time."""

    def __init__(self, reactor: Any, endpoint: str, site: Any, *, fail: Callable[[int, str], NoReturn]) -> None:
        """``fail`` ends the start of the server, with an exit code and the reason."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._site = site
        self._fail = fail
        self._port: Any = None
        self._binding: Deferred[Any] | None = None
        self._refusal = ""
        self._is_late = False

    def privilegedStartService(self) -> None:
        """Bind, while that may need privileges."""
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """Bind, where nobody called privilegedStartService()."""
        super().startService()
        if self._port is None and self._binding is None:
            self._bind()

    def stopService(self) -> Any:
        """Answer no more."""
        super().stopService()
        if self._binding is not None:
            self._binding.cancel()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()

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
            binding = serverFromString(self._reactor, self._endpoint).listen(self._site)
        except (ValueError, TypeError, LookupError, OSError) as error:
            self._fail(os.EX_CONFIG, f"health.endpoint {self._endpoint!r}: {error}")
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
        self._refusal = f"health.endpoint {self._endpoint!r} can't be bound: {why}"
        if self._is_late and self.running:
            # Mail is more than its probes: it goes on.
            _log.critical("health_not_bound", reason=self._refusal)
