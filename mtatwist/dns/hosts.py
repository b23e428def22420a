"""The addresses of hosts: literals, localhost, overrides, /etc/hosts, and then A and AAAA records."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from itertools import chain, zip_longest
from typing import NamedTuple

from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from mtatwist.dns.cache import Answer
from mtatwist.dns.names import BadName, ascii_name
from mtatwist.dns.resolver import DnsTrouble, Resolver
from mtatwist.dns.system import ResolvConf, routes_ipv6

_LOCALHOST = ("127.0.0.1", "::1")


class Addresses(NamedTuple):
    """A host's addresses, those of both families in turn. ``canonical``: the host's name behind its CNAMEs.

    ``exists`` is false for a name that the DNS does not have. ``secure``: see :class:`mtatwist.dns.cache.Answer`.
    """

    addresses: tuple[str, ...]
    canonical: str
    exists: bool = True
    secure: bool = False


class Hosts:
    """Finds the addresses of hosts without ever blocking."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        known: Callable[[], Mapping[str, tuple[str, ...]]],
        system: Callable[[], ResolvConf] | None = None,
        ipv6: Callable[[], bool] = routes_ipv6,
    ) -> None:
        """``known`` gives what /etc/hosts holds; ``system`` what resolv.conf does, if that is what is used.

        ``ipv6``: does the machine reach the IPv6 internet? Otherwise the IPv4 addresses come first.
        """
        self._resolver = resolver
        self._known = known
        self._system = system
        self._ipv6 = ipv6

    def become(self, other: Hosts) -> None:
        """Go by the files that ``other`` goes by."""
        self._known = other._known
        self._system = other._system

    def local(self, host: str) -> Addresses | None:
        """The addresses of a host that need no DNS: a literal, localhost, or a name of /etc/hosts."""
        try:
            return Addresses((str(ipaddress.ip_address(host)),), host)
        except ValueError:
            pass
        name = ascii_name(host)
        if name in self._resolver.overrides:
            return None
        if name == "localhost" or name.endswith(".localhost"):
            return Addresses(_LOCALHOST, name)
        of_name = self._known().get(name)
        return None if of_name is None else Addresses(of_name, name)

    async def addresses(self, host: str) -> Addresses:
        """The addresses of ``host``; none if it has none. Raises BadName and DnsTrouble."""
        local = self.local(host)
        if local is not None:
            return local
        both = [Deferred.fromCoroutine(self._resolver.lookup(host, type)) for type in ("AAAA", "A")]
        results = await DeferredList(both, consumeErrors=True)
        answers = [result for _, result in results if isinstance(result, Answer)]
        addresses = [_addresses(answer) for answer in answers]
        if not any(addresses):
            for _, result in results:
                if isinstance(result, Failure):
                    result.raiseException()
        if not self._ipv6():
            addresses.reverse()
        alternating = chain.from_iterable(zip_longest(*addresses))
        return Addresses(
            tuple(address for address in alternating if address is not None),
            answers[0].canonical,
            exists=any(answer.exists for answer in answers),
            secure=len(answers) == 2 and all(answer.secure for answer in answers),
        )

    async def search(self, host: str) -> Addresses:
        """The addresses of ``host``, which may be the first part of a name: resolv.conf(5) says what to append."""
        system = self._system() if self._system is not None else ResolvConf()
        whole = host.endswith(".") or not system.search or self.local(host) is not None
        appended = [] if whole else [f"{host}.{domain}" for domain in system.search]
        names = [host, *appended] if host.count(".") >= system.ndots else [*appended, host]
        found = Addresses((), host, exists=False)
        trouble: DnsTrouble | None = None
        for name in names:
            try:
                found = await self.addresses(name)
            except BadName:
                if name == host:
                    raise
                continue
            except DnsTrouble as error:
                trouble = trouble or error
                continue
            if found.addresses:
                return found
        if trouble is not None:
            raise trouble
        return found


def _addresses(answer: Answer) -> list[str]:
    return [record.address for record in answer.records if isinstance(record, A | AAAA)]
