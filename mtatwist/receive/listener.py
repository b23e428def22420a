"""One ``[[listen]]``: an endpoint that accepts sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.protocols.tls import TLSMemoryBIOFactory

from mtatwist.bound import BoundEndpoint
from mtatwist.receive.factory import ReceiveFactory


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
        fail: Callable[[int, str], NoReturn],
        lost: Callable[[int, str], None],
    ) -> None:
        """``implicit_tls``: a context factory, or None. ``fail`` and ``lost``: see BoundEndpoint."""
        wrapped = factory if implicit_tls is None else TLSMemoryBIOFactory(implicit_tls, False, factory, reactor)
        super().__init__(reactor, "listen.endpoint", endpoint, wrapped, fail=fail, lost=lost)
        self._role = role

    def facts(self) -> dict[str, Any]:
        """Where this really listens, and for whom."""
        return {**super().facts(), "role": self._role}
