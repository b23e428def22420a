"""One push: what is sent, and what is made of every kind of answer."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from rigs.collector import GOOD, answer
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from mtatwist.metrics.collector import REASON_LIMIT, Collector, PushFailed, trust_in
from mtatwist.metrics.exchange import ADDRESSES, ANSWER_LIMIT

URL = "http://collector.test:4318/v1/metrics?tenant=a"
KEY = "s3cr3t"


class Wire(StringTransport):
    """The connection to the collector."""

    aborted = False
    protocol: Any = None

    def abortConnection(self) -> None:
        self.aborted = True
        self.lose(ConnectionLost())

    def loseConnection(self) -> None:
        self.lose(ConnectionDone())

    def lose(self, why: Exception) -> None:
        if not self.disconnected:
            self.disconnected = True
            self.protocol.connectionLost(Failure(why))

    def hear(self, data: bytes) -> None:
        self.protocol.dataReceived(data)


class Exchange:
    """A push that is under way."""

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = KEY,
        message: bytes = b"message",
        addresses: Sequence[str] = ("192.0.2.1",),
    ) -> None:
        self.reactor = MemoryReactorClock()
        self.asked: list[str] = []

        async def find(host: str) -> Sequence[str]:
            self.asked.append(host)
            return addresses

        collector = Collector(
            url,
            api_key=api_key,
            reactor=self.reactor,
            wall=lambda: 784111777.0,
            trust=trust_in(None),
            addresses=find,
        )
        self.collector = collector
        self.shown = collector.shown
        self.results: list[Any] = []
        Deferred.fromCoroutine(collector.push(message)).addBoth(self.results.append)

    def connect(self) -> Wire:
        host, port, factory, _, _ = self.reactor.tcpClients.pop(0)
        wire = Wire()
        wire.protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        wire.protocol.makeConnection(wire)
        self.reactor.advance(0)
        return wire

    def failed(self) -> PushFailed:
        (failure,) = self.results
        assert isinstance(failure, Failure), failure
        assert isinstance(failure.value, PushFailed)
        assert KEY not in str(failure.value)
        return failure.value


def answered(*parts: bytes, close: bool = False) -> Exchange:
    exchange = Exchange()
    wire = exchange.connect()
    for part in parts:
        if not wire.disconnected:
            wire.hear(part)
    if close:
        wire.loseConnection()
    if exchange.results:
        assert wire.disconnected, "nothing stays open"
    return exchange


def test_what_is_sent() -> None:
    exchange = Exchange()
    wire = exchange.connect()
    head, _, body = wire.value().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert first == "POST /v1/metrics?tenant=a HTTP/1.1"
    assert headers["host"] == "collector.test:4318"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["content-encoding"] == "gzip"
    assert headers["authorization"] == f"bearer {KEY}"
    assert headers["user-agent"].startswith("mtatwist/")
    assert headers["connection"] == "close"
    assert "accept-encoding" not in headers, "what comes must not be larger than what was sent"
    assert gzip.decompress(body) == b"message"
    wire.hear(GOOD)
    assert exchange.results == [(0, "")]
    assert wire.disconnected


def test_an_address_in_brackets() -> None:
    exchange = Exchange("http://[2001:db8::1]:4318/v1/metrics")
    assert exchange.shown == "http://[2001:db8::1]:4318/v1/metrics"
    assert b"Host: [2001:db8::1]:4318\r\n" in exchange.connect().value()


def test_without_a_key_there_is_no_authorization() -> None:
    assert b"uthorization" not in Exchange(api_key=None).connect().value()


def test_the_log_may_show_the_endpoint_without_what_may_be_secret() -> None:
    assert Exchange("http://user:pass@collector.test/v1/metrics?token=a").shown == "http://collector.test/v1/metrics"


@pytest.mark.parametrize(
    "kind", ["Content-Type: application/x-protobuf", "Content-Type: application/json", "X-None: x"]
)
def test_good_answers(kind: str) -> None:
    body = b"{}" if "json" in kind else b""
    assert answered(answer("200 OK", kind, body=body)).results == [(0, "")]


def test_values_that_were_not_wanted() -> None:
    partial = ExportMetricsPartialSuccess(rejected_data_points=7, error_message="too old")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    said = answer("200 OK", "Content-Type: application/x-protobuf", body=body)
    assert answered(said).results == [(7, "too old")]


@pytest.mark.parametrize(
    ("status", "setting"),
    [
        ("301 Moved", "metrics.endpoint"),
        ("307 Elsewhere", "metrics.endpoint"),
        ("400 Bad", "metrics.endpoint"),
        ("401 No", "metrics.api_key"),
        ("403 No", "metrics.api_key"),
        ("404 No", "metrics.endpoint"),
        ("413 Large", "metrics.endpoint"),
        ("500 Oh", "metrics.endpoint"),
    ],
)
def test_other_answers_are_failures_that_name_a_setting(status: str, setting: str) -> None:
    exchange = answered(answer(status, "Location: http://thief.test/"))
    failed = exchange.failed()
    assert (failed.kind, failed.setting, failed.retry_after) == (status[:3], setting, 0.0)
    assert status[:3] in str(failed)
    assert exchange.reactor.tcpClients == [], "the key goes nowhere else"


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [
        ("429 Busy", "120", 120.0),
        ("503 Down", "120", 120.0),
        ("503 Down", "Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("503 Down", "Sun, 06 Nov 1994 08:40:00 GMT", 0.0),
        ("503 Down", "-5", 0.0),
        ("503 Down", "soon", 0.0),
        ("503 Down", "99999999999999999999", 999999999.0),
        ("503 Down", "Sun, 06 Xyz 1994 08:51:37 GMT", 0.0),
        ("400 Bad", "120", 0.0),
    ],
)
def test_how_long_the_collector_wants_to_be_left_alone(status: str, said: str, seconds: float) -> None:
    assert answered(answer(status, f"Retry-After: {said}")).failed().retry_after == seconds


@pytest.mark.parametrize(
    "parts",
    [
        [b"220 mx.example.org ESMTP\r\n"],
        [b"\x16\x03\x01\x02\x00\x01" * 20],
        [b"x" * 10000 + b"\r\n"],
        [answer("200 OK", "Content-Type: text/html", body=b"<html>it works</html>")],
        [answer("200 OK", "Content-Type: application/x-protobuf", body=b"\xff" * 50)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"],
    ],
)
def test_garbage(parts: list[bytes]) -> None:
    exchange = answered(*parts, close=True)
    assert len(str(exchange.failed())) <= REASON_LIMIT


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 500),
        (b"", b"x" * 4096),
    ],
)
def test_an_answer_without_end_is_cut(head: bytes, more: bytes) -> None:
    exchange = Exchange()
    wire = exchange.connect()
    wire.hear(head)
    heard = 0
    while not wire.disconnected:
        wire.hear(more)
        heard += len(more)
        assert heard <= ANSWER_LIMIT + len(more)
    exchange.failed()


def test_a_compressed_answer_is_not_blown_up() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    said = answer("200 OK", "Content-Type: application/json", "Content-Encoding: gzip", body=bomb)
    assert answered(said).results == [(0, "")]


def test_it_has_ten_seconds() -> None:
    exchange = Exchange()
    wire = exchange.connect()
    for octet in GOOD[:18]:
        wire.hear(bytes([octet]))
        exchange.reactor.advance(0.5)
    assert exchange.results == []
    exchange.reactor.advance(1)
    assert exchange.failed().kind == "timeout"
    assert wire.aborted


def test_the_deadline_includes_the_answers_body() -> None:
    exchange = Exchange()
    wire = exchange.connect()
    wire.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
    exchange.reactor.advance(10)
    assert exchange.failed().kind == "timeout"
    assert wire.aborted


def test_a_collector_that_can_not_be_reached() -> None:
    exchange = Exchange()
    assert refuse(exchange) == "192.0.2.1"
    assert exchange.failed().kind == "ConnectionRefusedError"
    exchange = Exchange()
    exchange.reactor.advance(10)
    assert exchange.failed().kind == "timeout"


def test_cookies_are_forgotten() -> None:
    exchange = Exchange()
    for _ in range(2):
        wire = exchange.connect()
        assert b"ookie" not in wire.value()
        wire.hear(answer("200 OK", "Set-Cookie: a=b; Max-Age=100000"))
        assert exchange.results.pop() == (0, "")
        Deferred.fromCoroutine(exchange.collector.push(b"x")).addBoth(exchange.results.append)


def refuse(exchange: Exchange) -> str:
    """Nobody listens at the address that is tried; gives it."""
    host, _, factory, _, _ = exchange.reactor.tcpClients.pop(0)
    factory.clientConnectionFailed(exchange.reactor.connectors.pop(0), Failure(ConnectionRefusedError()))
    return str(host)


def test_every_address_is_tried() -> None:
    exchange = Exchange(addresses=["192.0.2.1", "2001:db8::2", "192.0.2.3"])
    assert [refuse(exchange), refuse(exchange)] == ["192.0.2.1", "2001:db8::2"]
    exchange.connect().hear(GOOD)
    assert exchange.results == [(0, "")]
    assert exchange.asked == ["collector.test"]


def test_no_more_addresses_are_tried_than_there_is_time_for() -> None:
    exchange = Exchange(addresses=[f"192.0.2.{number}" for number in range(100)])
    tried = 0
    while exchange.reactor.tcpClients:
        refuse(exchange)
        tried += 1
    assert tried == ADDRESSES
    assert exchange.failed().kind == "ConnectionRefusedError"


def test_a_host_without_an_address() -> None:
    assert "collector.test has no address" in str(Exchange(addresses=[]).failed())


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_whatever_comes_ends_as_a_success_or_a_failure(parts: list[bytes]) -> None:
    exchange = answered(*parts, close=True)
    (result,) = exchange.results
    assert result[0] >= 0 if isinstance(result, tuple) else result.check(PushFailed)
    assert [call for call in exchange.reactor.getDelayedCalls() if call.active()] == []
