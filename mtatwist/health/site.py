"""What is said over HTTP: GET and HEAD, one request a connection, a few connections, a few seconds each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from mtatwist.health.readiness import Readiness

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

CONNECTIONS = 50
"""The most connections at a time; more are closed unheard."""

DEADLINE = 10.0
"""Seconds that a connection may last, whoever is slow."""


class _NoContent(io.BytesIO):
    """Takes a request's body, and keeps nothing of it."""

    def write(self, data: Any) -> int:
        """See io.BytesIO."""
        return len(data)


class HealthRequest(Request):
    """A request that has no body, or one that is thrown away."""

    has_body = False

    def gotLength(self, length: int | None) -> None:
        """(Request) The length of the body; None: it will show."""
        self.has_body = length != 0
        self.content = _NoContent()


class Answers(Resource):
    """Every path there is."""

    isLeaf = True

    def __init__(self, readiness: Readiness, metrics: Instruments, text: Callable[[], bytes], text_type: str) -> None:
        """``text`` gives what /metrics says, of the content type ``text_type``."""
        super().__init__()
        self._readiness = readiness
        self._metrics = metrics
        self._text = text
        self._text_type = text_type

    def render(self, request: Request) -> Any:
        """(Resource)"""
        self._metrics.health_requests.value += 1
        request.setHeader(b"server", b"mtatwist")
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"x-content-type-options", b"nosniff")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _json(request, 405, {"error": "GET and HEAD only"})
        if isinstance(request, HealthRequest) and request.has_body:
            return _json(request, 413, {"error": "a request has no body here"})
        if request.path == b"/health/live":
            return _json(request, 200, {"alive": True})
        if request.path == b"/health/ready":
            return self._ready(request)
        if request.path == b"/metrics":
            request.setHeader(b"content-type", self._text_type.encode())
            return _sent(request, 200, self._text())
        return _json(request, 404, {"error": "here are /health/live, /health/ready and /metrics"})

    def _ready(self, request: Request) -> Any:
        asking = Deferred.fromCoroutine(self._readiness.reasons())
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(reasons: dict[str, str]) -> None:
            if reasons:
                self._metrics.health_unready.value += 1
            if not gone:
                body = _json(request, 503 if reasons else 200, {"ready": not reasons, "reasons": reasons})
                request.write(body)
                request.finish()

        asking.addCallback(answer)
        asking.addErrback(lambda failure: _log.failure("health_failed", failure))
        return NOT_DONE_YET


def _json(request: Request, code: int, said: dict[str, Any]) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    return _sent(request, code, json.dumps(said).encode() + b"\n")


def _sent(request: Request, code: int, body: bytes) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-length", b"%d" % len(body))
    return b"" if request.method == b"HEAD" else body


class HealthChannel(HTTPChannel):
    """One connection, for one request."""

    totalHeadersSize = 8192
    maxHeaders = 100
    factory: HealthSite
    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """(HTTPChannel) Its time runs."""
        self.factory.open += 1
        self._deadline = self.factory.reactor.callLater(DEADLINE, self._cut)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """(HTTPChannel)"""
        self.factory.open -= 1
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        super().connectionLost(reason)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """(HTTPChannel) One is enough."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    def _cut(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class HealthSite(Site):
    """Makes the connections, as many as there may be."""

    protocol = HealthChannel  # type: ignore[assignment]
    noisy = False

    def __init__(self, answers: Answers, reactor: Any) -> None:
        super().__init__(answers, requestFactory=HealthRequest, timeout=None, reactor=reactor)
        self.open = 0

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # type: ignore[override]
        """(Site) None: the connection is closed."""
        return super().buildProtocol(addr) if self.open < CONNECTIONS else None

    def startFactory(self) -> None:
        """(Site) Without a log of requests, and the timer that goes with it."""
        super(HTTPFactory, self).startFactory()

    def stopFactory(self) -> None:
        """(Site)"""
        super(HTTPFactory, self).stopFactory()

    def log(self, request: Any) -> None:
        """(Site) Probes come every few seconds: they are counted."""

    def acceptableProtocols(self) -> list[bytes]:
        """(Site) What the channel speaks."""
        return [b"http/1.1"]
