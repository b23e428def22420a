"""Who may log in: what the portal asks, and what that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.internet.defer import Deferred

from mtatwist.auth.mechanisms import REGISTRY
from mtatwist.auth.passwd import PasswordFile
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.login import Logins
from mtatwist.wiring.lockout import make_gate


def make_logins(config: Config) -> Logins:
    """How people log in, as ``[auth]`` says."""
    auth = config.auth
    return Logins(
        {name.encode(): REGISTRY[name] for name in auth.mechanisms},
        require_tls=auth.require_tls,
        failures=auth.failures,
    )


class Users:
    """Those who may log in: the backend and, where somebody can log in at all, the gate before it."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        metrics: Instruments,
        *,
        submit: Callable[[Any, Any], Deferred[Any]],
        queue_time: Callable[[], float],
    ) -> None:
        """``submit``: has the spool's writer do a job; ``queue_time``: see QueueTime.now()."""
        # Everybody may send us mail without logging in; what for is a matter of the validators.
        self.checkers: list[ICredentialsChecker] = [AllowAnonymousAccess()]
        self._backend: PasswordFile | None = None
        if any(listen.role == "submission" for listen in config.listen):
            self._backend = PasswordFile(config.auth.file, domains=config.relay.domains, reactor=reactor)
            gate = make_gate(config, reactor, metrics, checker=self._backend, submit=submit, queue_time=queue_time)
            self.checkers.append(gate)

    def start(self) -> None:
        """Read the users. Raises UserFileError."""
        if self._backend is not None:
            self._backend.start()

    def stop(self) -> None:
        """Logins that still wait are answered 454."""
        if self._backend is not None:
            self._backend.stop()
