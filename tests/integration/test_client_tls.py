"""The delivering client over real TLS, to a server of our own that hands on to a sink."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.content import HEAD, awkward
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SENDER = "sender@client.test"
RECIPIENT = "someone@sink.test"


@pytest.fixture
def files(tmp_path: Path) -> certificates.Files:
    return certificates.make(tmp_path, "localhost")


def offering_tls(sink: Sink, files: certificates.Files) -> Config:
    config = relaying_to(sink.port, tls={"certificate": str(files.certificate), "private_key": str(files.key)})
    config["listen"][0]["tls"] = "starttls"
    return config


def sending_to(port: int, tls: str, host: str = "127.0.0.1") -> Config:
    config = relaying_to(port)
    config["route"][0].update(tls=tls, next_hop=f"{host}:{port}")
    return config


def send(mta: Mta, *contents: bytes) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        for content in contents:
            assert client.transaction(SENDER, [RECIPIENT], content).code == 250


def connected(mta: Mta) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == "connected"]


@pytest.mark.parametrize("tls", ["may", "require"])
def test_every_octet_arrives_through_tls(make_mta: MakeMta, sink: Sink, files: certificates.Files, tls: str) -> None:
    """By BDAT from one server of ours to the other, by DATA to the sink."""
    contents = [content for _, content in awkward()]
    with make_mta(offering_tls(sink, files)) as second, make_mta(sending_to(second.address()[1], tls)) as first:
        send(first, *contents)
        came = sink.wait_for(len(contents))
        wait_until(lambda: first.queued() == second.queued() == 0, 20, "the queues are empty")
    # What is too large for the sink to keep has been compared elsewhere.
    kept = [_behind_received(arrival.content) for arrival in came if arrival.content]
    assert sorted(kept) == sorted(content for content in contents if content in kept)
    assert len(kept) >= 10
    for mta, begin in ((first, "TLSv1"), (second, "")):
        events = [event for event in mta.events() if event["event"] in ("connected", "delivered")]
        assert {event["tls"][:5] for event in events} == {begin}


def _behind_received(content: bytes) -> bytes:
    """The message behind the trace fields of two servers."""
    match = re.match(rb"(?:Received:[^\n]*\n(?:[ \t][^\n]*\n)*){2}", content)
    assert match
    return content[match.end() :]


def test_a_certificate_from_a_known_authority_is_believed(
    make_mta: MakeMta, sink: Sink, files: certificates.Files
) -> None:
    with make_mta(offering_tls(sink, files)) as second:
        config = sending_to(second.address()[1], "verify", "localhost")
        with make_mta(config, environment={"SSL_CERT_FILE": str(files.authority)}) as first:
            send(first, HEAD)
            sink.wait_for(1)
    assert connected(first)[0]["tls"].startswith("TLSv1")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_other_certificates_are_not(make_mta: MakeMta, sink: Sink, files: certificates.Files, host: str) -> None:
    """One from nobody we know; one for another name."""
    environment = {"SSL_CERT_FILE": str(files.authority)} if host != "localhost" else {}
    with (
        make_mta(offering_tls(sink, files)) as second,
        make_mta(sending_to(second.address()[1], "verify", host), environment=environment) as first,
    ):
        send(first, HEAD)
        wait_until(lambda: "TLS failed" in first.log(), 20, "the failed handshake is logged")
        assert first.queued() == 1
    assert sink.arrivals == []


@pytest.fixture
def broken_tls() -> Iterator[int]:
    """The port of a server that offers STARTTLS and then speaks no TLS, but takes mail in clear."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b"220 broken.test\r\n")
                for line in lines:
                    verb = line[:4].upper()
                    if verb == b"STAR":
                        connection.sendall(b"220 go on\r\n")
                        connection.recv(1000)
                        connection.sendall(b"500 what is this?\r\n")
                        break
                    if verb == b"DATA":
                        connection.sendall(b"354 go on\r\n")
                        while lines.readline() != b".\r\n":
                            pass
                    connection.sendall(
                        b"250-broken.test\r\n250 STARTTLS\r\n" if verb == b"EHLO" else b"250 2.0.0 ok\r\n"
                    )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def test_a_handshake_that_fails_is_followed_by_a_try_in_clear(make_mta: MakeMta, broken_tls: int) -> None:
    with make_mta(sending_to(broken_tls, "may")) as mta:
        send(mta, HEAD)
        wait_until(lambda: mta.queued() == 0, 20, "the message is delivered")
    assert connected(mta)[0]["tls"] == ""
    assert any(event["event"] == "tls_failed" for event in mta.events())


def test_but_not_where_tls_is_required(make_mta: MakeMta, broken_tls: int) -> None:
    with make_mta(sending_to(broken_tls, "require")) as mta:
        send(mta, HEAD)
        wait_until(lambda: "TLS failed" in mta.log(), 20, "the failed handshake is logged")
        assert mta.queued() == 1
    assert connected(mta) == []
