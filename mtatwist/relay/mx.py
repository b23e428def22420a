"""Where mail for a domain, or for a smart host, is to be taken: the addresses to try, in order (RFC 5321 §5.1)."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Callable, MutableSequence, Sequence
from typing import Any, NamedTuple, NoReturn

from dns.rdtypes.ANY.MX import MX
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from mtatwist.dns.hosts import Addresses, Hosts
from mtatwist.dns.names import BadName, ascii_name, text_name
from mtatwist.dns.resolver import DnsTrouble, Resolver
from mtatwist.envelope import Deferral, Failure
from mtatwist.relay.ourselves import Ourselves
from mtatwist.smtp.reply import Reply
from mtatwist.transports.dial import Target, split_next_hop
from mtatwist.transports.failures import ConnectFailed

_log = Logger()

MAX_EXCHANGES = 10
"""Exchanges of a domain whose addresses are looked up."""

MAX_TARGETS = 20
"""Addresses that are tried for one message at a time."""

_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]+)\]", re.IGNORECASE)

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


class Exchange(NamedTuple):
    """An MX record: the lower ``preference`` is tried first."""

    preference: int
    host: str


class SmartHosts:
    """Finds the addresses of smart hosts: ours to say, so nothing about them is final."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    async def targets(self, next_hop: str) -> list[Target]:
        """What to try for "host:port" or "[v6]:port". Raises ConnectFailed, always with a Deferral."""
        host, port = split_next_hop(next_hop)
        try:
            found = await self._hosts.search(host)
        except DnsTrouble as trouble:
            _defer(f"Cannot look up {host}: {trouble}")
        except BadName as error:
            raise ConnectFailed(Deferral(Reply(451, "4.4.4", f"{host} is no host name: {error}"))) from None
        if not found.addresses:
            raise ConnectFailed(Deferral(Reply(451, "4.4.4", f"The smart host {host} has no address")))
        return [Target(host, address, port) for address in found.addresses[:MAX_TARGETS]]


class Exchanges:
    """Finds the exchanges of domains, and the addresses of these."""

    def __init__(
        self,
        resolver: Resolver,
        hosts: Hosts,
        ourselves: Ourselves,
        *,
        port: int = 25,
        loopback: bool = False,
        shuffle: Callable[[MutableSequence[Any]], None] = random.shuffle,
    ) -> None:
        """``port``: of the exchanges. ``loopback``: they may have loopback addresses."""
        self._resolver = resolver
        self._hosts = hosts
        self._ourselves = ourselves
        self._port = port
        self._loopback = loopback
        self._shuffle = shuffle

    async def targets(self, domain: str) -> list[Target]:
        """What to try for mail to ``domain``, best first.

        Raises ConnectFailed: with a Deferral when the DNS is in trouble, with a Failure when there is no way.
        """
        if domain.startswith("["):
            return self._literal(domain)
        try:
            return await self._of_name(ascii_name(domain))
        except BadName as error:
            _fail(550, "5.1.2", f"{domain} is no domain name: {error}")
        except DnsTrouble as trouble:
            _defer(f"Cannot look up {domain}: {trouble}")

    def _literal(self, domain: str) -> list[Target]:
        """An address literal (RFC 5321 §4.1.3)."""
        match = _LITERAL.fullmatch(domain)
        try:
            address = str(ipaddress.ip_address(match[1] if match else ""))
        except ValueError:
            _fail(550, "5.1.2", f"{domain} is no address literal")
        return self._usable(domain, [(Exchange(0, address), Addresses((address,), address))], 65536)

    async def _of_name(self, domain: str) -> list[Target]:
        answer = await self._resolver.lookup(domain, "MX")
        records = [record for record in answer.records if isinstance(record, MX)]
        exchanges = [Exchange(record.preference, text_name(record.exchange)) for record in records]
        if records and not any(exchange.host for exchange in exchanges):
            _fail(556, "5.1.10", f"{domain} takes no mail (null MX)")
        if not records:
            if not answer.exists and self._hosts.local(domain) is None:
                _fail(550, "5.1.2", f"There is no domain {domain}")
            exchanges = [Exchange(0, domain)]
        # A name only root can have is the null MX, which says nothing beside others (RFC 7505 §3).
        exchanges = self._in_order([exchange for exchange in exchanges if exchange.host])
        ours = min((exchange.preference for exchange in exchanges if self._ourselves.are(exchange.host)), default=65536)
        wanted = [exchange for exchange in exchanges if exchange.preference < ours][:MAX_EXCHANGES]
        found, troubles = await self._look_up(wanted)
        if not any(addresses.addresses for _, addresses in found):
            if troubles:
                raise troubles[0]
            if wanted:
                _fail(550, *(("5.4.4", f"No exchange of {domain} has an address") if records else _nowhere(domain)))
        try:
            return self._usable(domain, found, ours)
        except ConnectFailed:
            if troubles:
                # What could not be looked up may be better than what was found.
                raise troubles[0] from None
            raise

    def _in_order(self, exchanges: list[Exchange]) -> list[Exchange]:
        """By preference; those of the same one in any order, so that they share the load."""
        self._shuffle(exchanges)
        return sorted(dict.fromkeys(exchanges), key=lambda exchange: exchange.preference)

    async def _look_up(
        self, exchanges: Sequence[Exchange]
    ) -> tuple[list[tuple[Exchange, Addresses]], list[DnsTrouble]]:
        """The addresses of each, all asked for at once; and the troubles with that."""
        asked = [Deferred.fromCoroutine(self._hosts.addresses(exchange.host)) for exchange in exchanges]
        results = await DeferredList(asked, consumeErrors=True)
        found: list[tuple[Exchange, Addresses]] = []
        troubles: list[DnsTrouble] = []
        for exchange, (_, result) in zip(exchanges, results, strict=True):
            if isinstance(result, Addresses):
                found.append((exchange, result))
            elif result.check(DnsTrouble):
                troubles.append(result.value)
            elif not result.check(BadName):
                result.raiseException()
        return found, troubles

    def _usable(self, domain: str, found: Sequence[tuple[Exchange, Addresses]], ours: int) -> list[Target]:
        """The addresses that mail may be sent to: none that leads to us, and none behind such a one."""
        for exchange, addresses in found:
            if any(self._ourselves.have(_unmapped(address), self._port) for address in self._allowed(addresses)):
                ours = min(ours, exchange.preference)
        targets = [
            Target(exchange.host, address, self._port)
            for exchange, addresses in found
            if exchange.preference < ours
            for address in self._allowed(addresses)
        ]
        if not targets and ours < 65536:
            _fail(554, "5.4.6", f"Mail for {domain} loops back to this server")
        left_out = [
            (exchange.host, address, why)
            for exchange, addresses in found
            for address in addresses.addresses
            if (why := self._why_not(address))
        ]
        if left_out:
            # For the administrator, who can allow loopback addresses with route.mx_loopback.
            host, address, why = left_out[0]
            _log.info("address_left_out", domain=domain, host=host, address=address, why=why, count=len(left_out))
        if not targets:
            raise ConnectFailed(Failure(Reply(554, "5.4.6", _no_usable(domain, left_out))))
        return targets[:MAX_TARGETS]

    def _allowed(self, addresses: Addresses) -> list[str]:
        return [address for address in addresses.addresses if not self._why_not(address)]

    def _why_not(self, text: str) -> str:
        """Why this can't be another host's address; "" if it can. Those of private networks can."""
        address = ipaddress.ip_address(_unmapped(text))
        if address.is_loopback:
            return "" if self._loopback else "a loopback address"
        if address.is_unspecified:
            return "the unspecified address"
        if address.is_multicast:
            return "a multicast address"
        if address.is_link_local:
            return "a link-local address"
        if address == _BROADCAST or (address.version == 4 and address in _THIS_NETWORK):
            return "no host's address"
        return ""


def _no_usable(domain: str, left_out: Sequence[tuple[str, str, str]]) -> str:
    words = f"No exchange of {domain} has an address that mail can be sent to"
    if not left_out:
        return words
    host, address, why = left_out[0]
    return f"{words}: {address} is {why}" if host == address else f"{words}: {host} has {address}, {why}"


def _unmapped(text: str) -> str:
    """An IPv4 address in IPv6 form (RFC 4291 §2.5.5.2) as what it is."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _nowhere(domain: str) -> tuple[str, str]:
    return "5.1.2", f"{domain} has no exchange and no address"


def _fail(code: int, enhanced: str, text: str) -> NoReturn:
    raise ConnectFailed(Failure(Reply(code, enhanced, text))) from None


def _defer(text: str) -> NoReturn:
    raise ConnectFailed(Deferral(Reply(451, "4.4.3", text))) from None
