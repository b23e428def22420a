"""Who gets mail at our domains: files, the directory, and what asks them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.threads import deferToThreadPool

from mtatwist.config import Config, ConfigError, Problem
from mtatwist.interfaces import IDirectory
from mtatwist.metrics.instruments import Instruments
from mtatwist.recipients.directory import DirectoryRecipients, Searches
from mtatwist.recipients.files import FileError, WatchedTable
from mtatwist.recipients.resolve import Resolver
from mtatwist.recipients.tables import parse_aliases, parse_recipients
from mtatwist.smtp.address import DomainSet
from mtatwist.wiring.directory import CurrentDirectory
from mtatwist.wiring.swap import Swap, nothing

T = TypeVar("T")


class CurrentRecipients:
    """What answers for the recipients at our domains now; ``resolver`` is None where nobody is asked."""

    def __init__(self, config: Config, reactor: Any, metrics: Instruments, directory: CurrentDirectory) -> None:
        """Raises ConfigError."""
        self._make = partial(make_recipients, reactor=reactor, metrics=metrics, directory=directory.for_recipients)
        self.resolver = self._make(config)
        self._of = _parts(config)

    def prepare(self, config: Config) -> tuple[Resolver | None, Swap]:
        """What answers under another configuration. Raises ConfigError."""
        of = _parts(config)
        if of == self._of:
            return self.resolver, nothing
        resolver = self._make(config)

        def swap() -> None:
            self.resolver, self._of = resolver, of

        return resolver, swap


def _parts(config: Config) -> Any:
    """What it is made of: with another of these it is another one, and what was remembered is forgotten."""
    relay, ldap = config.relay, config.auth.ldap
    return (
        (relay.domains, relay.postmaster, relay.recipient_delimiter, relay.expansion, relay.aliases, relay.recipients),
        (ldap.uris, ldap.base_dn, ldap.recipient_filter, ldap.alias_filter, ldap.alias_attributes),
        (ldap.member_attributes, ldap.member_filter, ldap.address_attributes),
    )


def make_recipients(config: Config, reactor: Any, metrics: Instruments, directory: IDirectory) -> Resolver | None:
    """As ``[relay]`` and ``[auth.ldap]`` say; None where neither knows of anybody. Raises ConfigError."""
    relay, ldap = config.relay, config.auth.ldap
    is_ours = DomainSet(relay.domains).__contains__

    def watched(key: str, path: str | None, parse: Callable[..., T]) -> WatchedTable[T] | None:
        if path is None:
            return None
        try:
            return WatchedTable(
                path,
                partial(parse, is_ours=is_ours),
                clock=reactor,
                in_thread=lambda read: deferToThreadPool(reactor, reactor.getThreadPool(), read),
                metrics=metrics,
            )
        except FileError as error:
            raise ConfigError([Problem(config.source or "", key, reason) for reason in error.reasons]) from None

    aliases = watched("relay.aliases", relay.aliases, parse_aliases)
    listed = watched("relay.recipients", relay.recipients, parse_recipients)
    asked = None
    if ldap.recipient_filter or ldap.alias_filter:
        searches = Searches(
            recipient_filter=ldap.recipient_filter,
            alias_filter=ldap.alias_filter,
            alias_attributes=ldap.alias_attributes,
            member_attributes=ldap.member_attributes,
            member_filter=ldap.member_filter,
            address_attributes=ldap.address_attributes,
            members=relay.expansion,
        )
        asked = DirectoryRecipients(directory, searches, clock=reactor)
    if aliases is None and listed is None and asked is None:
        return None
    return Resolver(
        is_ours=is_ours,
        postmaster=relay.postmaster,
        delimiter=relay.recipient_delimiter,
        expansion=relay.expansion,
        aliases=aliases.current if aliases else None,
        listed=listed.current if listed else None,
        directory=asked,
        clock=reactor,
        metrics=metrics,
    )
