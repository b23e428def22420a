"""Whoever asks how the server is gets an answer: the right one, soon, and with bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from receive.whole import Whole
from rigs.probe import ask, connect, health
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from mtatwist.bound import BoundEndpoint
from mtatwist.health.readiness import FRESH, PATIENCE, NotReady, Phase, Readiness
from mtatwist.health.site import CONNECTIONS, DEADLINE, Answers, HealthSite
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.metrics.instruments import Instruments

ENDPOINT = {"health.endpoint": '"tcp:8080:interface=127.0.0.1"'}


class Served:
    """A site with checks of the test's own."""

    def __init__(self, **checks: Callable[[], Any]) -> None:
        self.clock, self.metrics = MemoryReactorClock(), Instruments()
        self.readiness = Readiness(checks, clock=self.clock)
        self.readiness.phase = Phase.RUNNING
        self.site = HealthSite(Answers(self.readiness, self.metrics, lambda: b"x 1\n", "text/plain"), self.clock)

    def ready(self) -> Any:
        return ask(self.site).said


def refuse(why: str = "no") -> Any:
    raise NotReady(why)


# What is said.


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/health/live", 200, {"alive": True}),
        ("/health/ready", 200, {"ready": True, "reasons": {}}),
        ("/health/ready?verbose=1", 200, {"ready": True, "reasons": {}}),
        ("/health/ready/", 404, {"error": "here are /health/live, /health/ready and /metrics"}),
        ("/", 404, {"error": "here are /health/live, /health/ready and /metrics"}),
        ("/%2e%2e/etc/passwd", 404, {"error": "here are /health/live, /health/ready and /metrics"}),
    ],
)
def test_paths(path: str, code: int, said: Any) -> None:
    answer = ask(Served(spool=lambda: None).site, path)
    assert (answer.code, answer.said) == (code, said)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["server"] == "mtatwist", "no version"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/nowhere"])
def test_head_is_get_without_the_body(path: str) -> None:
    site = Served().site
    whole, head = ask(site, path), ask(site, path, "HEAD")
    assert (head.code, head.body) == (whole.code, b"")
    assert head.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_other_methods_are_refused(method: str) -> None:
    answer = ask(Served().site, "/health/live", method)
    assert (answer.code, answer.headers["allow"]) == (405, "get, head")


def test_a_body_is_refused() -> None:
    wire = connect(Served().site)
    wire.protocol.dataReceived(b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert wire.answer().code == 413


def test_the_reasons_are_those_of_the_checks() -> None:
    served = Served(spool=lambda: refuse("no room"), queue=lambda: None, later=lambda: fail(NotReady("down")))
    answer = ask(served.site)
    assert (answer.code, answer.said) == (
        503,
        {"ready": False, "reasons": {"spool": "no room", "later": "down"}},
    )
    assert (served.metrics.health_requests.value, served.metrics.health_unready.value) == (1, 1)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
def test_before_and_after_its_time_nothing_is_asked(phase: Phase) -> None:
    served = Served(spool=lambda: pytest.fail("there is none"))
    served.readiness.phase = phase
    assert served.ready() == {"ready": False, "reasons": {"server": phase.value}}
    assert ask(served.site, "/health/live").code == 200


def test_who_drains_is_not_ready() -> None:
    served = Served(spool=lambda: None)
    served.readiness.phase = Phase.DRAINING
    assert served.ready()["reasons"] == {"server": "draining"}


def test_what_an_exception_says_stays_in_the_log() -> None:
    served = Served(spool=lambda: {}["the password is hunter2"])
    assert served.ready()["reasons"] == {"spool": "failed: KeyError"}


# Checks take what time they take.


def test_a_check_is_asked_again_when_its_answer_is_old() -> None:
    answers = [None, NotReady("no"), None]

    def check() -> Any:
        answer = answers.pop(0)
        return fail(answer) if answer else None

    served = Served(spool=check)
    for _ in range(3):
        assert served.ready()["ready"]
    served.clock.advance(FRESH)
    assert not served.ready()["ready"]
    served.clock.advance(FRESH)
    assert served.ready()["ready"]
    assert answers == []


def test_a_check_that_hangs_is_asked_once_and_nobody_waits_for_long() -> None:
    asked: list[Deferred[None]] = []

    def check() -> Deferred[None]:
        asked.append(Deferred())
        return asked[-1]

    served = Served(directory=check)
    wire = connect(served.site)
    wire.protocol.dataReceived(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.value() == b""
    served.clock.advance(PATIENCE)
    assert wire.answer().said["reasons"] == {"directory": "no answer within 2 s"}
    for _ in range(1000):
        served.clock.advance(1)
        assert served.ready()["reasons"] == {"directory": "no answer within 2 s"}, "at once"
    assert len(asked) == 1
    assert [call for call in served.clock.getDelayedCalls() if call.active()] == []
    asked[0].callback(None)
    wire = connect(served.site)
    wire.protocol.dataReceived(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    asked[1].callback(None)
    assert wire.answer().said["ready"], "when it answers again, all is well"


def test_those_who_ask_meanwhile_share_an_answer() -> None:
    asked: list[Deferred[None]] = []

    def check() -> Deferred[None]:
        asked.append(Deferred())
        return asked[-1]

    readiness = Readiness({"x": check}, clock=Clock())
    readiness.phase = Phase.RUNNING
    results: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(readiness.reasons()).addBoth(results.append)
    asked[0].errback(NotReady("no"))
    assert results == [{"x": "no"}] * 3
    assert len(asked) == 1


def test_a_client_that_goes_before_its_answer_harms_nobody() -> None:
    asked: Deferred[None] = Deferred()
    served = Served(x=lambda: asked)
    wire = connect(served.site)
    wire.protocol.dataReceived(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    wire.loseConnection()
    asked.callback(None)
    assert served.ready()["ready"]


# Bounds.


def test_connections_are_bounded() -> None:
    site = Served().site
    wires = [connect(site) for _ in range(CONNECTIONS)]
    assert site.buildProtocol(None) is None
    wires[0].loseConnection()
    assert ask(site, "/health/live").code == 200
    connect(site)
    assert site.buildProtocol(None) is None


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"", b""),
        (b"GET /health/live HTTP/1.1\r\n", b"X: y\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x" * 100),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_a_connection_has_so_long_whatever_it_says(first: bytes, more: bytes) -> None:
    served = Served()
    wire = connect(served.site)
    wire.protocol.dataReceived(first)
    for _ in range(int(DEADLINE) - 1):
        served.clock.advance(1)
        wire.protocol.dataReceived(more)
        assert not wire.disconnected
    served.clock.advance(1)
    assert wire.aborted
    assert served.site.open == 0
    assert [call for call in served.clock.getDelayedCalls() if call.active()] == []


def test_a_header_is_bounded() -> None:
    wire = connect(Served().site)
    sent = 0
    while not wire.disconnected:
        wire.protocol.dataReceived(b"GET / HTTP/1.1\r\n" if not sent else b"X-Y: z\r\n")
        sent += 1
        assert sent < 1000
    assert b" 400 " in wire.value()


def test_nothing_of_a_body_is_kept() -> None:
    wire = connect(Served().site)
    wire.protocol.dataReceived(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(100):
        wire.protocol.dataReceived(b"x" * 65536)
    (request,) = wire.protocol.requests
    assert request.content.getvalue() == b""
    assert not hasattr(request.content, "name"), "no file"


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"Host: x\r\n"])))
)
def test_whatever_comes_no_exception_leaves(parts: list[bytes]) -> None:
    served = Served()
    wire = connect(served.site)
    for part in parts:
        if not wire.disconnected:
            wire.protocol.dataReceived(part)
    served.clock.advance(DEADLINE)
    assert wire.disconnected
    assert served.site.open == 0


# The endpoint.


def test_an_endpoint_that_can_not_be_bound_ends_the_start_with_71() -> None:
    class Taken(MemoryReactorClock):
        def listenTCP(self, *arguments: Any, **keywords: Any) -> Any:
            raise CannotListenError("127.0.0.1", 8080, OSError(98, "Address already in use"))

    def leave(code: int, why: str) -> Any:
        raise SystemExit(f"{code}: {why}")

    endpoint = BoundEndpoint(Taken(), "health.endpoint", "tcp:8080", Served().site, fail=leave, lost=leave)
    with pytest.raises(SystemExit, match=r"^71: health.endpoint 'tcp:8080' can't be bound: Address already in use$"):
        endpoint.privilegedStartService()


# The whole server.


def reasons(server: Whole) -> Any:
    server.pass_time(FRESH)
    return ask(health(server)).said["reasons"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Whole:
    return Whole(monkeypatch, tmp_path, {**ENDPOINT, "health.queue_limit": "1"})


def test_a_server_that_runs_is_ready(server: Whole) -> None:
    assert reasons(server) == {}


def test_a_spool_in_trouble(server: Whole) -> None:
    server.spool.trouble = "full"
    assert reasons(server) == {"spool": "trouble: full"}
    server.spool.trouble = ""
    assert reasons(server) == {}


def test_a_spool_that_does_not_take_a_commit(server: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.spool, "try_to_write", lambda: fail(OSError("/secret/path: broken")))
    assert reasons(server) == {"spool": "failed: OSError"}
    monkeypatch.setattr(server.spool, "try_to_write", lambda: succeed(None))
    assert reasons(server) == {}


def test_a_disk_without_room(server: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.spool, "has_room", lambda size: False)
    monkeypatch.setattr(server.spool, "try_to_write", lambda: pytest.fail("it might take the last room"))
    assert reasons(server) == {"spool": "no room for new mail"}


def test_a_long_queue(server: Whole) -> None:
    for _ in range(3):
        server.connect().send()
    server.pass_time(15)
    assert "health.queue_limit" in reasons(server)["queue"]


def test_a_directory_that_is_away(server: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    class Directory:
        exists = True
        trouble: Exception | None = DirectoryTrouble("ldap://one.test: no connection")

        def search(self, filter: str, attributes: Any, limit: int) -> Deferred[Any]:
            return fail(self.trouble) if self.trouble else succeed([])

    directory = Directory()
    watching = server.mta.watching
    monkeypatch.setattr(watching, "_directory", directory)
    watching.readiness = Readiness({"directory": watching._check_directory}, clock=server.reactor)
    watching.readiness.phase = Phase.RUNNING
    monkeypatch.setattr(health(server).resource, "_readiness", watching.readiness)
    assert reasons(server) == {"directory": "ldap://one.test: no connection"}
    directory.trouble = None
    assert reasons(server) == {}


def test_a_listener_that_is_gone(server: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(server.mta.listeners[0]), "accepting", False)
    assert reasons(server) == {"listeners": "not bound: tcp:2525:interface=127.0.0.1"}


def test_a_server_that_stops_says_so_until_its_end(server: Whole) -> None:
    session = server.connect()
    session.begin()
    server.mta.stopService()
    answer = ask(health(server))
    assert (answer.code, answer.said["reasons"]) == (503, {"server": "stopping"})
    assert ask(health(server), "/health/live").code == 200


def test_prometheus_reads_the_metrics(server: Whole) -> None:
    server.connect().send()
    answer = ask(health(server), "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {metric.name: metric for metric in text_string_to_metric_families(answer.body.decode())}
    samples = {sample.labels["mtatwist_outcome"]: sample for sample in found["mtatwist_smtp_messages"].samples}
    assert (samples["accepted"].name, samples["accepted"].value) == ("mtatwist_smtp_messages_total", 1)
    assert found["process_memory_usage_bytes"].samples[0].value > 0
