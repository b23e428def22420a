"""The LDAP directory, and the checker that asks it."""

from __future__ import annotations

from typing import Any

from mtatwist.auth.ldap import LdapChecker
from mtatwist.auth.offline import OfflineCache
from mtatwist.authorities import AuthoritiesError
from mtatwist.config import Config, ConfigError, Problem
from mtatwist.directory.connection import Access
from mtatwist.directory.directory import Directory
from mtatwist.directory.server import Server
from mtatwist.directory.tls import make_context
from mtatwist.interfaces import IDirectory
from mtatwist.metrics.instruments import Instruments

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
