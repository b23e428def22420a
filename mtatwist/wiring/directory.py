"""The LDAP directory that is in force, and the checker that asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from mtatwist.auth.ldap import LdapChecker
from mtatwist.auth.offline import OfflineCache
from mtatwist.authorities import AuthoritiesError
from mtatwist.config import Config, ConfigError, Problem
from mtatwist.directory.connection import Access
from mtatwist.directory.directory import Directory
from mtatwist.directory.server import Server
from mtatwist.directory.tls import make_context
from mtatwist.interfaces import DirectoryTrouble, IDirectory, IEntry
from mtatwist.metrics.instruments import Instruments
from mtatwist.wiring.swap import Replaced, Swap, content, nothing

WAITING = 500
"""Requests of logins that wait for a connection, and as many lookups of recipients; with a directory that takes 10 ms,
and 8 connections for them, the last waits for 0.6 s."""


def make_directory(config: Config, reactor: Any, metrics: Instruments) -> Directory | None:
    """As ``[auth.ldap]`` says; None where it names no server. To be started, and stopped. Raises ConfigError."""
    settings = config.auth.ldap
    if not settings.uris:
        return None
    context = None
    if settings.uses_tls:
        try:
            # Now, while the process may still read the file.
            context = make_context(settings.ca_file)
        except AuthoritiesError as error:
            raise ConfigError([Problem(config.source or "", "auth.ldap.ca_file", str(error))]) from None
    access = Access(
        context=context,
        start_tls=settings.start_tls,
        bind_dn=settings.bind_dn or "",
        bind_password=settings.bind_password.reveal().encode() if settings.bind_password else b"",
        connect_seconds=settings.connect_timeout,
    )
    # So that two requests have time after all servers but the last have kept silent.
    attempt = settings.timeout / (len(settings.uris) + 1)
    asked_for_recipients = settings.recipient_filter or settings.alias_filter
    for_recipients = max(settings.connections // 2, 1) if asked_for_recipients else 0
    return Directory(
        [
            Server(uri, access, idle=settings.connections, attempt_seconds=attempt, now=reactor.seconds)
            for uri in settings.uris
        ],
        base=settings.base_dn or "",
        reactor=reactor,
        metrics=metrics,
        threads=max(settings.connections - for_recipients, 1),
        recipient_threads=for_recipients,
        waiting=WAITING,
        seconds=settings.timeout,
    )


def make_ldap_checker(config: Config, directory: IDirectory, reactor: Any, metrics: Instruments) -> LdapChecker:
    """The checker behind ``auth.backend = "ldap"``. To be stopped."""
    settings = config.auth.ldap
    offline = None
    if settings.offline_cache:
        offline = OfflineCache(seconds=settings.offline_cache, reactor=reactor, metrics=metrics)
    return LdapChecker(
        directory,
        user_filter=settings.user_filter,
        address_attributes=settings.address_attributes,
        group_filter=settings.group_filter,
        seconds=settings.timeout,
        clock=reactor,
        offline=offline,
    )


@implementer(IDirectory)
class _InForce:
    """See IDirectory. Whoever was given this asks the directory in force; when there is none, that is trouble."""

    def __init__(self, in_force: Callable[[], IDirectory | None]) -> None:
        self._in_force = in_force

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Sequence[IEntry]]:
        """See IDirectory."""
        directory = self._in_force()
        return fail(_NONE) if directory is None else directory.search(filter, attributes, limit)

    def bind(self, dn: str, password: str) -> Deferred[bool]:
        """See IDirectory."""
        directory = self._in_force()
        return fail(_NONE) if directory is None else directory.bind(dn, password)


_NONE = DirectoryTrouble("the configuration names no directory")


class CurrentDirectory(_InForce):
    """The directory that the configuration names now, if it names any. ``for_recipients``: see Directory."""

    def __init__(self, config: Config, reactor: Any, metrics: Instruments) -> None:
        """Raises ConfigError."""
        super().__init__(lambda: self._directory)
        self.for_recipients = _InForce(lambda: None if self._directory is None else self._directory.for_recipients)
        self._reactor = reactor
        self._metrics = metrics
        self._replaced = Replaced(reactor)
        self._directory = make_directory(config, reactor, metrics)
        self._of = _parts(config)

    @property
    def exists(self) -> bool:
        """Is there one?"""
        return self._directory is not None

    @property
    def troubles(self) -> Mapping[str, str]:
        """See Directory.troubles: its servers now."""
        return {} if self._directory is None else self._directory.troubles

    def start(self) -> None:
        """Requests are answered from now on."""
        if self._directory is not None:
            self._directory.start()

    def prepare(self, config: Config) -> Swap:
        """For another configuration. The directory before ends what it has to do. Raises ConfigError."""
        of = _parts(config)
        if of == self._of:
            return nothing
        directory = make_directory(config, self._reactor, self._metrics)

        def swap() -> None:
            before, self._directory, self._of = self._directory, directory, of
            if before is not None:
                before.retire()
                self._replaced.add(before.stop)
            self.start()

        return swap

    async def stop(self) -> None:
        """All requests end, and the threads."""
        self._replaced.stop()
        if self._directory is not None:
            await self._directory.stop()


def _parts(config: Config) -> Any:
    """What it is made of: with another of these it is another one."""
    return config.auth.ldap, content(config.auth.ldap.ca_file)
