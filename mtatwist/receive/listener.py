"""One ``[[listen]]``: an endpoint that accepts sessions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.tcp import Port
from twisted.protocols.tls import TLSMemoryBIOFactory

from mtatwist.bound import BoundEndpoint
from mtatwist.receive.factory import ReceiveFactory
from mtatwist.receive.gather import Gatherer


class Current(ServerFactory):
    """Gives connections to a factory, which may be another one for the next: sessions stay with theirs."""

    noisy = False

    def __init__(self, factory: ReceiveFactory) -> None:
        self.factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """(ServerFactory)"""
        return self.factory.buildProtocol(addr)


class Listener(BoundEndpoint):
    """Sessions of one role, all of them with TLS from the start or none."""

    def __init__(
        self,
        reactor: Any,
        endpoint: str,
        factory: ReceiveFactory,
        *,
        role: str,
        implicit_tls: Any,
        gatherer: Gatherer,
        fail: Callable[[int, str], NoReturn],
        lost: Callable[[int, str], None],
    ) -> None:
        """``implicit_tls``: a context factory, or None; ``gatherer`` reads the connections. ``fail`` and ``lost``:
        see BoundEndpoint."""
        self._current = current = Current(factory)
        wrapped = current if implicit_tls is None else TLSMemoryBIOFactory(implicit_tls, False, current, reactor)
        super().__init__(reactor, "listen.endpoint", endpoint, wrapped, fail=fail, lost=lost)
        self._role = role
        self._gatherer = gatherer

    def _bound(self, port: Any) -> None:
        super()._bound(port)
        # Twisted says that it may be replaced. Elsewhere, and on other ports, the reactor reads.
        if sys.platform == "linux" and type(port) is Port:
            port.transport = self._gatherer.transport  # type: ignore[assignment]

    def use(self, factory: ReceiveFactory) -> None:
        """New sessions are this one's from now on."""
        self._current.factory = factory

    def facts(self) -> dict[str, Any]:
        """Where this really listens, and for whom."""
        return {**super().facts(), "role": self._role}
