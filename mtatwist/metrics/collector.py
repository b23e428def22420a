"""One push: an HTTP request to the collector, as OTLP/HTTP has it. All that the collector says is hostile."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding
from hyperlink import URL
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import stringToDatetime
from twisted.web.http_headers import Headers

from mtatwist import __version__
from mtatwist.authorities import read_authorities
from mtatwist.metrics.exchange import DEADLINE, Content, Exchange, FindAddresses
from mtatwist.metrics.otlp import rejected

REASON_LIMIT = 200
"""Characters of a reason that may be the collector's own words."""

_PROTOBUF = "application/x-protobuf"
_SETTINGS = {
    401: "metrics.api_key",
    403: "metrics.api_key",
    404: "metrics.endpoint",
    405: "metrics.endpoint",
}
_REASONS = {
    401: "the collector wants another key",
    403: "the collector wants another key",
    404: "the collector knows no such path",
    405: "the collector takes no metrics at this path",
    413: "the collector takes no message of this size",
    429: "the collector has too much to do",
    503: "the collector has too much to do",
}


class PushFailed(Exception):
    """The collector did not take it; the message says why, and no secret.

    :ivar kind: what tells this failure from others: a status, or the name of an exception.
    :ivar setting: the setting to look at first.
    :ivar retry_after: how many seconds the collector wants to be left alone.
    """

    def __init__(self, kind: str, reason: str, *, setting: str = "metrics.endpoint", retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.setting = setting
        self.retry_after = retry_after


def trust_in(ca_file: str | None) -> Any:
    """The authorities in a PEM file, or without one those that this machine trusts. Raises AuthoritiesError."""
    if ca_file is None:
        return platformTrust()
    found = [each.public_bytes(Encoding.PEM) for each in read_authorities(ca_file)]
    return trustRootFromCertificates([Certificate.loadPEM(each) for each in found])


class Collector:
    """Where metrics go. Each push has a connection of its own: no state of one is in the way of the next."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        reactor: Any,
        wall: Callable[[], float],
        trust: Any,
        addresses: FindAddresses,
    ) -> None:
        """``wall`` is the machine's time; ``trust``: see trust_in(); ``addresses`` finds those of a host."""
        parsed = URL.from_text(url)
        self._url = _Literal.from_text(url) if ":" in parsed.host else parsed
        self.shown = parsed.replace(userinfo="", query=(), fragment="").to_text()
        self._reactor = reactor
        self._wall = wall
        self._trust = trust
        self._addresses = addresses
        self._headers: dict[str | bytes, str | bytes] = {
            "Content-Type": _PROTOBUF,
            "Content-Encoding": "gzip",
            "User-Agent": f"mtatwist/{__version__}",
        }
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def push(self, message: bytes) -> tuple[int, str]:
        """Send an ExportMetricsServiceRequest. Gives how many of its values were not wanted, and why.

        Raises PushFailed.
        """
        exchange = Exchange(self._reactor, self._trust, self._addresses)
        answering = Deferred.fromCoroutine(self._exchange(exchange, gzip.compress(message, 6, mtime=0)))
        answering.addTimeout(DEADLINE, self._reactor, onTimeoutCancel=_too_slow)
        try:
            return await answering
        except (PushFailed, CancelledError):
            raise
        except Exception as error:
            raise _failed(error) from None
        finally:
            exchange.cut()

    async def _exchange(self, exchange: Exchange, message: bytes) -> tuple[int, str]:
        # Cookies are forgotten with the client; redirects would take the key elsewhere.
        client = HTTPClient(exchange, data_to_body_producer=Content)
        response = await client.post(
            self._url,
            data=message,
            headers=self._headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        code = response.code
        if not 200 <= code < 300:
            raise PushFailed(
                str(code),
                f"answered {code}: {_words(code)}",
                setting=_SETTINGS.get(code, "metrics.endpoint"),
                retry_after=self._retry_after(response.headers) if code in (429, 502, 503, 504) else 0.0,
            )
        body = _Body()
        response.deliverBody(body)
        answer = await body.ended
        return self._judge(response.headers, answer)

    def _judge(self, headers: Headers, answer: bytes) -> tuple[int, str]:
        kind = (headers.getRawHeaders("content-type", [""]) or [""])[0].partition(";")[0].strip().lower()
        if kind == _PROTOBUF or not kind:
            try:
                return rejected(answer)
            except ValueError as error:
                raise PushFailed("answer", str(error)) from None
        if kind.startswith("text/") and answer.strip():
            raise PushFailed("answer", "answered with text: that is no collector")
        return 0, ""

    def _retry_after(self, headers: Headers) -> float:
        """RFC 9110 §10.2.3: seconds, or a date."""
        said = (headers.getRawHeaders(b"retry-after", [b""]) or [b""])[0].strip()
        if said.isdigit():
            return float(said[:9])
        try:
            return max(0.0, float(stringToDatetime(said)) - self._wall())
        except (ValueError, IndexError, KeyError, OverflowError):
            return 0.0


class _Literal(URL):
    """A URL with an IPv6 address, which hyperlink takes for a name to be encoded."""

    def to_uri(self) -> URL:
        """See URL: there is nothing to encode."""
        return self


def _words(code: int) -> str:
    if 300 <= code < 400:
        return "redirects are not followed, write where it leads to"
    return _REASONS.get(code, "the collector is in trouble" if code >= 500 else "the collector does not want it")


def _too_slow(_: object, seconds: float) -> Any:
    raise PushFailed("timeout", f"no whole answer within {seconds:g} s")


def _failed(error: Exception) -> PushFailed:
    """What went wrong below HTTP."""
    reasons = getattr(error, "reasons", None)
    cause = reasons[0].value if reasons and isinstance(reasons[0], Failure) else error
    kind = type(cause).__name__
    if isinstance(cause, SSL.Error):
        entries: Any = cause.args[0] if cause.args else ()
        words = ", ".join(str(entry[-1]) for entry in entries) or "it ended early"
        return PushFailed(f"tls {words}", f"TLS failed: {words}", setting="metrics.ca_file")
    if kind in ("VerificationError", "CertificateError"):
        return PushFailed("tls name", "TLS failed: the certificate is for another name", setting="metrics.endpoint")
    if isinstance(cause, CancelledError | ConnectionAborted):
        return PushFailed("cut", "it said too much, or was given up")
    # It may hold what the collector has said, all of it.
    return PushFailed(kind, str(cause)[:REASON_LIMIT] or kind)


class _Body(Protocol):
    """Collects an answer, which the connection bounds."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self._parts.append(data)

    def connectionLost(self, reason: Failure = cast(Failure, None)) -> None:  # noqa: B008
        """See IProtocol."""
        ended = self.ended
        if ended.called:
            return
        if reason.check(ResponseDone):
            ended.callback(b"".join(self._parts))
        else:
            ended.errback(PushFailed("answer", "its answer had no end, or was too long"))
