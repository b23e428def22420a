"""Metrics go to a collector, a real one; and whatever a collector does, mail goes on and nothing grows."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rigs.certificates import Authority
from rigs.client import Client
from rigs.collector import GOOD, PATH, FakeCollector, Rotel, answer
from rigs.mta import Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SOON = "100ms"

ACCEPTED = "mtatwist.smtp.messages{mtatwist.outcome=accepted}"


def config(sink: Sink, url: str, **settings: Any) -> dict[str, Any]:
    return relaying_to(sink.port, metrics={"endpoint": url, "interval": SOON, "api_key": "s3cr3t", **settings})


def send(mta: Mta) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        client.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        assert client.reply().code == 250


def events(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event.get("event") == name]


def await_event(mta: Mta, name: str) -> dict[str, Any]:
    return wait_until(lambda: events(mta, name), 40, lambda: f"no {name}: {mta.log()}")[0]


class AtWork:
    """What a server that has delivered a message holds: its first one opens connections and files that stay."""

    def __init__(self, mta: Mta, sink: Sink) -> None:
        send(mta)
        sink.wait_for(1, 20)
        self._process = mta.process
        self._descriptors, self._memory = mta.process.descriptors(), mta.process.memory()

    def has_not_grown(self) -> None:
        """Connections that are just being closed, or made for a push, may pass; what leaks stays."""
        wait_until(lambda: self._process.descriptors() <= self._descriptors + 3, 10, "descriptors are left behind")
        assert self._process.memory() < self._memory + (20 << 20)


def test_a_real_collector_gets_the_metrics(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    attributes = ["deployment.environment.name=test"]
    with Rotel(tmp_path) as rotel, make_mta(config(sink, rotel.url, attributes=attributes)) as mta:
        send(mta)
        for name, attributes, value in (
            ("mtatwist.smtp.messages", {"mtatwist.outcome": "accepted"}, "1"),
            ("mtatwist.relay.attempts", {"mtatwist.outcome": "delivered", "mtatwist.transport": "smart_host"}, "1"),
            ("process.memory.usage", {}, r"\d{8,}"),
        ):
            named = "".join(rf".*{re.escape(key)}: Str\({word}\)\n" for key, word in attributes.items())
            # A metric has many points, each with its attributes and then its value.
            others = r"(?:(?!.*Name: ).*\n)*?"
            arrived = re.compile(rf"Name: {re.escape(name)}\n{others}{named}(?:.*\n){{0,4}}?Value: {value}\n")
            wait_until(lambda at=arrived: at.search(rotel.log()), 30, lambda: rotel.log()[-3000:])
        log = rotel.log()
    assert "service.name: Str(mtatwist)" in log
    assert "deployment.environment.name: Str(test)" in log
    assert "Name: mtatwist.smtp.accept.duration" in log
    assert not events(mta, "metrics_push_failed")
    assert "s3cr3t" not in mta.log()


def status(line: str, *headers: str) -> Callable[[FakeCollector], Any]:
    return lambda collector: lambda peer: peer.sendall(answer(line, *headers))


BAD: dict[str, tuple[Callable[[FakeCollector], Any], str]] = {
    "hangs": (lambda collector: collector.hang, "no whole answer within 10 s"),
    "drips": (lambda collector: collector.drip, "no whole answer within 10 s"),
    "401": (status("401 Unauthorized"), "answered 401"),
    "413": (status("413 Content Too Large"), "answered 413"),
    "503": (status("503 Service Unavailable", "Retry-After: 1"), "answered 503"),
    "hangs up": (lambda collector: lambda peer: None, ""),
    "garbage": (lambda collector: lambda peer: peer.sendall(b"220 mx ESMTP\r\n" * 10), ""),
    "a web page": (
        lambda collector: lambda peer: peer.sendall(answer("200 OK", "Content-Type: text/html", body=b"<html>")),
        "that is no collector",
    ),
    "endless body": (
        lambda collector: collector.endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        "had no end, or was too long",
    ),
    "endless header": (lambda collector: collector.endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10000), ""),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_collector_harms_nobody(make_mta: MakeMta, sink: Sink, how: str) -> None:
    behave, reason = BAD[how]
    with FakeCollector() as collector, make_mta(config(sink, collector.url)) as mta:
        collector.behave = behave(collector)
        failed = await_event(mta, "metrics_push_failed")
        assert reason in failed["reason"], failed
        at_work = AtWork(mta, sink)
        for _ in range(3):
            send(mta)
        sink.wait_for(4, 20)
        if "10 s" not in reason:
            wait_until(lambda: len(collector.pushes) >= 5, 30, "it does not try again")
        at_work.has_not_grown()
        collector.behave = lambda peer: peer.sendall(GOOD)
        await_event(mta, "metrics_push_again")
        assert collector.pushes[-1].values()[ACCEPTED] == 4, "nothing was lost meanwhile"
    assert len(events(mta, "metrics_push_failed")) == 1
    assert "s3cr3t" not in mta.log()


def test_a_collector_that_is_not_there_may_come_later(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    port = free_port()
    with make_mta(config(sink, f"http://127.0.0.1:{port}{PATH}")) as mta:
        assert "refused" in await_event(mta, "metrics_push_failed")["reason"].lower()
        at_work = AtWork(mta, sink)
        for _ in range(3):
            send(mta)
        sink.wait_for(4, 20)
        at_work.has_not_grown()
        with FakeCollector(port=port) as collector:
            await_event(mta, "metrics_push_again")
            values = collector.pushes[0].values()
            assert values[ACCEPTED] == 4, "nothing was lost meanwhile"
            assert values["mtatwist.metric.pushes{mtatwist.outcome=failed}"] >= 1
            assert len(events(mta, "metrics_push_failed")) == 1


def test_a_collector_whose_name_nobody_tells(make_mta: MakeMta, sink: Sink) -> None:
    """A DNS that is silent holds up neither mail nor the server's end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dns = {"servers": [f"127.0.0.1:{silent.getsockname()[1]}"], "timeout": "3s"}
        with make_mta({**config(sink, f"http://collector.test{PATH}"), "dns": dns}) as mta:
            send(mta)
            sink.wait_for(1, 20)
            await_event(mta, "metrics_push_failed")
            mta.process.end()
            assert mta.ended_well()


def test_the_key_follows_no_redirect(make_mta: MakeMta, sink: Sink) -> None:
    with FakeCollector() as thief, FakeCollector() as collector:
        moved = answer("307 Temporary Redirect", f"Location: {thief.url}")
        collector.behave = lambda peer: peer.sendall(moved)
        with make_mta(config(sink, collector.url)) as mta:
            failed = await_event(mta, "metrics_push_failed")
            wait_until(lambda: len(collector.pushes) >= 3, 30, "it does not try again")
        assert (failed["setting"], thief.connections) == ("metrics.endpoint", 0)
        assert "Bearer s3cr3t" in collector.pushes[0].header


@pytest.mark.parametrize(
    ("host", "ours", "reason"),
    [
        ("localhost", True, ""),
        ("other.test", True, "TLS failed: the certificate is for another name"),
        ("localhost", False, "TLS failed: certificate verify failed"),
    ],
)
def test_the_collector_has_to_be_the_one_we_mean(
    make_mta: MakeMta, sink: Sink, tmp_path: Path, host: str, ours: bool, reason: str
) -> None:
    authority, other = Authority(tmp_path / "ca.pem"), Authority(tmp_path / "other.pem")
    files = authority.issue(tmp_path, host, name="collector")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with FakeCollector(context=context) as collector:
        url = f"https://localhost:{collector.port}{PATH}"
        with make_mta(config(sink, url, ca_file=str((authority if ours else other).file))) as mta:
            if reason:
                assert await_event(mta, "metrics_push_failed")["reason"] == reason
                assert not collector.pushes, "it was told nothing"
            else:
                wait_until(lambda: collector.pushes, 20, lambda: mta.log())


def test_a_ca_file_that_is_none_ends_the_start(make_mta: MakeMta, sink: Sink) -> None:
    mta = make_mta(config(sink, "https://localhost/", ca_file="/etc/hostname"))
    assert mta.spawn().wait(30) == 78
    assert "mta.toml: metrics.ca_file: /etc/hostname: has no certificates in PEM form" in mta.process.output()


def test_the_last_push_says_how_it_ended(make_mta: MakeMta, sink: Sink) -> None:
    with FakeCollector() as collector, make_mta(config(sink, collector.url)) as mta:
        wait_until(lambda: collector.pushes, 20, lambda: mta.log())
        send(mta)
        sink.wait_for(1, 20)
        mta.process.end()
        assert mta.ended_well()
        values = collector.pushes[-1].values()
    assert values["mtatwist.relay.attempts{mtatwist.outcome=delivered,mtatwist.transport=smart_host}"] == 1
    assert values["mtatwist.smtp.session.active"] == 0


def test_a_collector_that_hangs_does_not_hold_up_the_end(make_mta: MakeMta, sink: Sink) -> None:
    with ExitStack() as stack:
        collector = stack.enter_context(FakeCollector())
        collector.behave = collector.hang
        mta = stack.enter_context(make_mta(config(sink, collector.url)))
        wait_until(lambda: collector.pushes, 20, lambda: mta.log())
        mta.process.end()
        assert mta.ended_well()
