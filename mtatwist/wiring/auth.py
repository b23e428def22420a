"""Who may log in: what the portal asks, and what that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.internet.defer import Deferred

from mtatwist.auth.ldap import LdapChecker
from mtatwist.auth.mechanisms import REGISTRY
from mtatwist.auth.passwd import PasswordFile
from mtatwist.config import Config
from mtatwist.interfaces import IDirectory
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.login import Logins
from mtatwist.wiring.directory import make_ldap_checker
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
        directory: IDirectory | None,
        submit: Callable[[Any, Any], Deferred[Any]],
        queue_time: Callable[[], float],
    ) -> None:
        """``submit``: has the spool's writer do a job; ``queue_time``: see QueueTime.now()."""
        # Everybody may send us mail without logging in; what for is a matter of the validators.
        self.checkers: list[ICredentialsChecker] = [AllowAnonymousAccess()]
        self._file: PasswordFile | None = None
        self._ldap: LdapChecker | None = None
        if any(listen.role == "submission" for listen in config.listen):
            if config.auth.backend == "file":
                self._file = PasswordFile(config.auth.file, domains=config.relay.domains, reactor=reactor)
            else:
                # The configuration names its servers, or is refused.
                assert directory is not None
                self._ldap = make_ldap_checker(config, directory, reactor, metrics)
            backend = self._file or self._ldap
            gate = make_gate(config, reactor, metrics, checker=backend, submit=submit, queue_time=queue_time)
            self.checkers.append(gate)

    def start(self) -> None:
        """Read the users. Raises UserFileError."""
        if self._file is not None:
            self._file.start()

    def stop(self) -> None:
        """Logins that still wait are answered 454."""
        if self._file is not None:
            self._file.stop()
        if self._ldap is not None:
            self._ldap.stop()
