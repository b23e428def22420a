"""Probes of a server that runs: while mail flows, drains, finds no room, or misses its directory."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rigs.client import Client
from rigs.faults import fill, small_disk
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink
from rigs.slapd import SERVICE_PASSWORD, Slapd

from mtatwist.health.site import CONNECTIONS

MakeMta = Callable[..., Mta]

LOOPBACK = "tcp:0:interface=127.0.0.1"


def config(sink: Sink, **tables: Any) -> dict[str, Any]:
    return relaying_to(sink.port, **{"health": {"endpoint": LOOPBACK}, **tables})


def port(mta: Mta) -> int:
    (start,) = [event for event in mta.events() if event.get("event") == "start"]
    return int(start["health"]["port"])


def ask(mta: Mta, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port(mta), timeout=20)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ready(mta: Mta) -> tuple[int, dict[str, str]]:
    code, body = ask(mta, "/health/ready")
    return code, json.loads(body)["reasons"]


def await_ready(mta: Mta, code: int, **reasons: str) -> None:
    """The checks are asked every five seconds."""
    wait_until(lambda: ready(mta) == (code, reasons), 30, lambda: f"{ready(mta)}\n{mta.log()}")


def send(mta: Mta) -> int:
    with Client(mta.address()) as client:
        client.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        client.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        return client.reply().code


def test_a_server_that_runs(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(config(sink)) as mta:
        assert send(mta) == 250
        sink.wait_for(1, 20)
        assert ask(mta, "/health/live") == (200, b'{"alive": true}\n')
        assert ready(mta) == (200, {})
        assert ask(mta, "/health/ready", "HEAD") == (200, b"")
        assert ask(mta, "/health/ready", "POST")[0] == 405
        found = {one.name: one for one in text_string_to_metric_families(ask(mta, "/metrics")[1].decode())}
        messages = {one.labels["mtatwist_outcome"]: one.value for one in found["mtatwist_smtp_messages"].samples}
        assert messages == {"accepted": 1, "refused": 0, "postponed": 0}
        assert found["process_thread_count"].samples[0].value > 1


def test_a_server_that_drains(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(config(sink, timeouts={"shutdown": "1m"})) as mta, Client(mta.address()) as client:
        client.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        mta.process.signal(15)
        await_ready(mta, 503, server="stopping")
        assert ask(mta, "/health/live")[0] == 200
        client.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        assert client.reply().code == 250
        assert mta.ended_well()


def test_a_disk_that_is_full(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    mta = make_mta(config(sink, spool={"minimum_free": "1MiB", "ballast": "8MiB"}))
    with small_disk(mta.data_dir, "100m") as disk, mta:
        assert ready(mta) == (200, {})
        other = fill(disk, leave=20 << 20)
        await_ready(mta, 503, spool="no room for new mail")
        assert ask(mta, "/health/live")[0] == 200
        other.unlink()
        await_ready(mta, 200)


def test_a_queue_that_is_long(make_mta: MakeMta, sink: Sink) -> None:
    sink.policy = lambda stage, what: "451 4.3.2 not yet"
    health = {"endpoint": LOOPBACK, "queue_limit": 2}
    with make_mta(config(sink, health=health)) as mta:
        for _ in range(3):
            assert send(mta) == 250
        wait_until(lambda: "queue" in ready(mta)[1], 40, lambda: mta.log())
        sink.policy = lambda stage, what: None
        wait_until(lambda: ready(mta)[0] == 200, 60, lambda: mta.log())


def test_a_directory_that_is_down(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    with ExitStack() as stack:
        slapd = Slapd(tmp_path)
        stack.enter_context(slapd)
        settings = {**slapd.settings(), "recipient_filter": "(mail={address})"}
        mta = stack.enter_context(make_mta(config(sink, **{"auth.ldap": settings})))
        await_ready(mta, 200)
        slapd.stop()
        wait_until(lambda: list(ready(mta)[1]) == ["directory"], 40, lambda: mta.log())
        assert SERVICE_PASSWORD not in ready(mta)[1]["directory"]
        slapd.start()
        await_ready(mta, 200)


def test_an_endpoint_that_is_taken_exits_71_naming_it(make_mta: MakeMta, sink: Sink) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        mta = make_mta(config(sink, health={"endpoint": endpoint}))
        assert mta.spawn().wait(30) == 71
    assert f"health.endpoint '{endpoint}' can't be bound: Address already in use" in mta.process.output()


def test_a_crowd_of_probes_that_hang_harms_no_mail(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(config(sink)) as mta, ExitStack() as stack:
        before = mta.process.descriptors()
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port(mta)), 20)) for _ in range(4 * CONNECTIONS)
        ]
        for each in crowd:
            with suppress(OSError):
                each.sendall(b"GET /health/ready HTTP/1.1\r\n")
        assert send(mta) == 250
        assert mta.process.descriptors() < before + CONNECTIONS + 20
        # All are cut, the first as well as the last.
        for each in crowd:
            with suppress(ConnectionError):
                while each.recv(1000):
                    pass
        assert ready(mta) == (200, {})
