"""What this machine says about names: /etc/resolv.conf and /etc/hosts, read again when they change."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.dns.names import BadName, ascii_name
from mtatwist.dns.network import Server

T = TypeVar("T")

_log = Logger()

CHECK_SECONDS = 5.0
"""How long a change of a file may go unnoticed."""

READ_LIMIT = 4 * 1024 * 1024
"""Octets read of a file at most."""

_SOMEWHERE = "2001:503:ba3e::2:30"
"""A root server: nobody has a route just for it."""

MAX_SERVERS = 8
MAX_SEARCH = 8

InThread = Callable[[Callable[[], "tuple[object, T] | None"]], "Awaitable[tuple[object, T] | None]"]


class WatchedFile(Generic[T]):
    """A small file: what it holds now. It is read at once, and later in a thread, never while somebody waits."""

    def __init__(
        self, path: str, parse: Callable[[str], T], *, clock: IReactorTime, in_thread: InThread[T], empty: T
    ) -> None:
        """``empty`` stands for a file that is not there; one that goes away later is held as it was."""
        self._path = path
        self._parse = parse
        self._clock = clock
        self._in_thread = in_thread
        self._mark: object = None
        self._value = empty
        self._checking = False
        self._checked_at = clock.seconds()
        self._take(self._read())

    @property
    def value(self) -> T:
        """What it holds, as of a few seconds ago."""
        if not self._checking and self._clock.seconds() - self._checked_at >= CHECK_SECONDS:
            self._checking = True
            Deferred.fromCoroutine(self._check()).addErrback(self._failed)
        return self._value

    async def _check(self) -> None:
        try:
            self._take(await self._in_thread(self._read))
        finally:
            self._checking = False
            self._checked_at = self._clock.seconds()

    def _read(self) -> tuple[object, T] | None:
        try:
            with open(self._path, "rb") as file:
                stat = os.fstat(file.fileno())
                mark = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                if mark == self._mark:
                    return None
                return mark, self._parse(file.read(READ_LIMIT).decode("utf-8", "replace"))
        except OSError:
            return None

    def _take(self, read: tuple[object, T] | None) -> None:
        if read is not None:
            self._mark, self._value = read

    def _failed(self, failure: Failure) -> None:
        _log.failure("file_check_failed", failure, path=self._path)


class ResolvConf(NamedTuple):
    """What resolv.conf(5) says, as far as it concerns us."""

    servers: tuple[Server, ...] = (Server("127.0.0.1", 53),)
    search: tuple[str, ...] = ()
    ndots: int = 1


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read the file; what is not understood is passed over, as the C library does."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        keyword, *values = line.split("#")[0].split(";")[0].split() or [""]
        if keyword == "nameserver" and values:
            address = _address(values[0])
            if address:
                servers.append(Server(address, 53))
        elif keyword in ("search", "domain"):
            search = tuple(name for name in map(_name, values) if name)
        elif keyword == "options":
            for option in values:
                name, _, number = option.partition(":")
                if name == "ndots" and number.isdecimal():
                    ndots = min(int(number[:3]), 15)
    return ResolvConf(tuple(servers[:MAX_SERVERS]) or ResolvConf().servers, search[:MAX_SEARCH], ndots)


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Read hosts(5): the addresses of each name."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        first, *names = line.split("#")[0].split() or [""]
        address = _address(first)
        if address:
            for name in filter(None, map(_name, names)):
                if address not in found.get(name, ()):
                    found[name] = (*found.get(name, ()), address)
    return found


def routes_ipv6() -> bool:
    """Has this machine a way to the IPv6 internet? A UDP socket that is connected sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((_SOMEWHERE, 53))
    except OSError:
        return False
    return True


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _name(text: str) -> str:
    try:
        return ascii_name(text)
    except BadName:
        return ""
