"""An endpoint that finds out only later that it can't listen: ``late:WHY``. As an onion service may."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, task
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IStreamServerEndpoint)
class _Late:
    def __init__(self, reactor: Any, why: str) -> None:
        self._reactor = reactor
        self._why = why

    def listen(self, factory: object) -> defer.Deferred[Any]:
        def fail() -> None:
            raise RuntimeError(self._why)

        return task.deferLater(self._reactor, 0.1, fail)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _Parser:
    prefix = "late"

    def parseStreamServer(self, reactor: Any, why: str) -> _Late:
        return _Late(reactor, why)


parser = _Parser()
