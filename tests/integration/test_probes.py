"""Attacks and foreign clients against the real server."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.content import HEAD
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import need, need_perl, program, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

SMUGGLED = b"\r\nMAIL FROM:<evil@client.test>\r\nRCPT TO:<b@sink.test>\r\nDATA\r\nsmuggled\r\n.\r\n"


def for_strangers(port: int, **tables: Any) -> Config:
    """Loopback may not relay; mail to sink.test is taken from anybody."""
    return relaying_to(port, relay={"networks": [], "domains": ["sink.test"]}, **tables)


def with_starttls(files: certificates.Files) -> dict[str, Any]:
    return {
        "listen": [{"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx", "tls": "starttls"}],
        "tls": {"certificate": str(files.certificate), "private_key": str(files.key)},
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r"])
def test_smuggling_is_refused_after_the_true_end(make_mta: MakeMta, sink: Sink, end: bytes) -> None:
    with make_mta(for_strangers(sink.port)) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            client.envelope("a@client.test", ["b@sink.test"])
            client.send(HEAD + b"hello" + end + SMUGGLED)
            reply = client.reply()
            assert (reply.code, reply.text[:5]) == (550, "5.5.2")
            client.expect(250, "NOOP")
            assert client.transaction("a@client.test", ["c@sink.test"], HEAD).code == 250
        sink.wait_for(1)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert [arrival.forward_paths for arrival in sink.arrivals] == [("c@sink.test",)]


def test_bare_line_feeds_from_our_networks_are_mended(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            client.envelope("a@client.test", ["b@sink.test"])
            client.send(b"Subject: unix\n\nhello\n.\nstill hello\r\n.\r\n")
            assert client.reply().code == 250
        arrivals = sink.wait_for(1)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    expected = b"Subject: unix\r\n\r\nhello\r\n.\r\nstill hello\r\n"
    assert [arrival.digest for arrival in arrivals] == [hashlib.sha256(expected).hexdigest()]


def test_strangers_cannot_relay(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(for_strangers(sink.port)) as mta, Client(mta.address()) as client:
        client.ehlo()
        client.expect(250, "MAIL FROM:<a@client.test>")
        reply = client.command("RCPT TO:<x@elsewhere.test>")
        assert (reply.code, reply.text[:5]) == (550, "5.7.1")


@pytest.mark.parametrize("behind", [b"MAIL FROM:<evil@client.test>\r\n", b"NOOP", b"\0"])
def test_nothing_may_be_pipelined_behind_starttls(
    make_mta: MakeMta, sink: Sink, files: certificates.Files, behind: bytes
) -> None:
    with make_mta(for_strangers(sink.port, **with_starttls(files))) as mta:
        client = Client(mta.address())
        client.ehlo()
        client.send(b"STARTTLS\r\n" + behind)
        reply = client.reply()
        assert reply.code >= 400, reply
        assert client.at_end()
        client.close()


def test_starttls_forgets_what_came_before(make_mta: MakeMta, sink: Sink, files: certificates.Files) -> None:
    context = ssl.create_default_context(cafile=str(files.authority))
    with make_mta(for_strangers(sink.port, **with_starttls(files))) as mta:
        with Client(mta.address()) as client:
            assert "STARTTLS" in client.ehlo().lines
            client.expect(250, "MAIL FROM:<a@client.test>")
            client.starttls(context)
            assert client.command("RCPT TO:<b@sink.test>").code == 503
            assert client.command("MAIL FROM:<a@client.test>").code == 503
            assert "STARTTLS" not in client.ehlo().lines
            assert client.transaction("a@client.test", ["b@sink.test"], HEAD).code == 250
        arrived = sink.wait_for(1)[0]
    assert b"ESMTPS" in arrived.content.partition(b"Subject:")[0]


def test_openssl_accepts_the_handshake(make_mta: MakeMta, sink: Sink, files: certificates.Files) -> None:
    need("openssl")
    with make_mta(for_strangers(sink.port, **with_starttls(files))) as mta:
        host, port = mta.address()
        argv = [program("openssl"), "s_client", "-starttls", "smtp", "-connect", f"{host}:{port}"]
        argv += ["-servername", "mta.test", "-verify_hostname", "mta.test", "-verify_return_error"]
        argv += ["-CAfile", str(files.authority), "-crlf", "-quiet"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as peer:
            try:
                output, _ = peer.communicate(b"EHLO openssl.test\nNOOP\nQUIT\n", timeout=30)
            finally:
                peer.kill()
    assert b"221 " in output, output
    assert b"verify error" not in output


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_swaks(make_mta: MakeMta, sink: Sink, files: certificates.Files, tmp_path: Path, tls: bool) -> None:
    need("swaks")
    if tls:
        need_perl("Net::SSLeay")
    body = tmp_path / "message"
    body.write_bytes(b"Subject: from swaks\n\n.dots\n.\n..and more\n")
    with make_mta(for_strangers(sink.port, **with_starttls(files))) as mta:
        argv = [program("swaks"), "--server", "127.0.0.1", "--port", str(mta.address()[1])]
        argv += ["--helo", "swaks.test", "--from", "a@client.test", "--to", "b@sink.test,c@sink.test"]
        argv += ["--data", f"@{body}", "--pipeline"]
        argv += ["--tls", "--tls-verify", "--tls-ca-path", str(files.authority)] if tls else []
        argv += ["--tls-sni", "mta.test"] if tls else []
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        arrived = sink.wait_for(1)[0]
    assert sorted(arrived.forward_paths) == ["b@sink.test", "c@sink.test"]
    assert b"\r\n\r\n.dots\r\n.\r\n..and more\r\n" in arrived.content


def test_a_web_browser_is_cut(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(for_strangers(sink.port)) as mta:
        client = Client(mta.address())
        client.send(b"POST / HTTP/1.1\r\nHost: mta.test\r\n\r\nEHLO x\r\nMAIL FROM:<evil@client.test>\r\n")
        assert client.reply().code == 421
        assert client.at_end()
        client.close()
