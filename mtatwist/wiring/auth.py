"""Who may log in: what the portal asks, and what that asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.internet.defer import Deferred

from mtatwist.auth.gate import Gate
from mtatwist.auth.ldap import LdapChecker
from mtatwist.auth.mechanisms import REGISTRY
from mtatwist.auth.passwd import PasswordFile
from mtatwist.auth.user_file import UserFileError
from mtatwist.config import Config, ConfigError
from mtatwist.interfaces import IDirectory
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.login import Logins
from mtatwist.wiring.directory import make_ldap_checker
from mtatwist.wiring.lockout import make_gate, make_thresholds
from mtatwist.wiring.swap import Replaced, Swap, nothing


def make_logins(config: Config) -> Logins:
    """How people log in, as ``[auth]`` says."""
    auth = config.auth
    return Logins(
        {name.encode(): REGISTRY[name] for name in auth.mechanisms},
        require_tls=auth.require_tls,
        failures=auth.failures,
    )


class Backend:
    """Who knows the passwords, as the configuration has it."""

    def __init__(self, config: Config, reactor: Any, metrics: Instruments, directory: IDirectory) -> None:
        settings = config.auth
        self.checker: PasswordFile | LdapChecker
        if settings.backend == "file":
            self.checker = PasswordFile(settings.file, domains=config.relay.domains, reactor=reactor)
        else:
            self.checker = make_ldap_checker(config, directory, reactor, metrics)
        # What it was made of: with another of these it is another one.
        self.of = self._of(config)

    def is_as(self, config: Config) -> bool:
        """Would one made of ``config`` be the same?"""
        return bool(self.of == self._of(config))

    @staticmethod
    def _of(config: Config) -> Any:
        settings = config.auth
        if settings.backend == "file":
            return settings.file, config.relay.domains
        ldap = settings.ldap
        # Of another directory, or with other questions, what is remembered may be wrong.
        return (
            ldap.uris,
            ldap.base_dn,
            ldap.user_filter,
            ldap.group_filter,
            ldap.address_attributes,
            ldap.offline_cache,
            ldap.timeout,
        )

    def load(self) -> None:
        """Read the users, in whatever thread. Raises UserFileError."""
        if isinstance(self.checker, PasswordFile):
            self.checker.load()

    def start(self) -> None:
        """After load()."""
        if isinstance(self.checker, PasswordFile):
            self.checker.start()

    def stop(self) -> None:
        """Logins that still wait are answered 454."""
        self.checker.stop()


class Users:
    """Those who may log in: the backend and, where somebody can log in at all, the gate before it."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        metrics: Instruments,
        *,
        directory: IDirectory,
        submit: Callable[[Any, Any], Deferred[Any]],
        queue_time: Callable[[], float],
    ) -> None:
        """``directory`` answers where the configuration names one. ``submit``: has the spool's writer do a job;
        ``queue_time``: see QueueTime.now()."""
        # Everybody may send us mail without logging in; what for is a matter of the validators.
        self.checkers: list[ICredentialsChecker] = [AllowAnonymousAccess()]
        self._make = partial(Backend, reactor=reactor, metrics=metrics, directory=directory)
        self._backend: Backend | None = None
        self._replaced = Replaced(reactor)
        self.gate: Gate | None = None
        if any(listen.role == "submission" for listen in config.listen):
            self._backend = self._make(config)
            checker = self._backend.checker
            self.gate = make_gate(config, reactor, metrics, checker=checker, submit=submit, queue_time=queue_time)
            self.checkers.append(self.gate)

    def start(self) -> None:
        """Read the users. Raises UserFileError."""
        if self._backend is not None:
            self._backend.load()
            self._backend.start()

    def prepare(self, config: Config) -> Swap:
        """For another configuration, with the same listeners. What was counted and locked stays. Raises ConfigError."""
        gate = self.gate
        if self._backend is None or gate is None:
            return nothing
        thresholds = make_thresholds(config)
        if self._backend.is_as(config):
            return partial(gate.limit, **thresholds)
        backend = self._make(config)
        try:
            backend.load()
        except UserFileError as error:
            raise ConfigError.of(config, "auth.file", *str(error).splitlines()) from None

        def swap() -> None:
            before, self._backend = self._backend, backend
            backend.start()
            gate.use(backend.checker)
            gate.limit(**thresholds)
            if before is not None:
                self._replaced.add(before.stop)

        return swap

    def stop(self) -> None:
        """Logins that still wait are answered 454."""
        self._replaced.stop()
        if self._backend is not None:
            self._backend.stop()
