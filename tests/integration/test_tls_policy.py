"""TLS as a server offers it, seen by openssl, a scanner, and clients that come while a certificate is renewed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.control import mtactl
from rigs.mta import Config, Mta, StartFailed, relaying_to
from rigs.processes import need, wait_until
from rigs.sink import Sink
from rigs.testssl import CHOSEN, Scan

from mtatwist.tls.reasons import RELUCTANT, SILENT, SLOW

MakeMta = Callable[..., Mta]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "tls.rst"
IMPLICIT, STARTTLS = 0, 1
BODY = b"Subject: renewed\r\n\r\nstill here\r\n"


class Authorities:
    """Certificates below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = certificates.Authority(directory / "authority.pem")

    def issue(self, name: str = "mta", host: str = "mta.test", days: float = 90) -> certificates.Files:
        return self.authority.issue(self.directory, host, days=days, name=name)


@pytest.fixture
def made(tmp_path: Path) -> Authorities:
    (tmp_path / "certificates").mkdir()
    return Authorities(tmp_path / "certificates")


def serving(files: certificates.Files, *, port: int = 9, **tls: Any) -> Config:
    """A server with a listener for each way to begin TLS."""
    config = relaying_to(
        port, tls={"certificate": str(files.certificate), "private_key": str(files.key), "reload": "1s", **tls}
    )
    config["listen"] = [
        {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "implicit"},
        {"endpoint": "tcp:port=0:interface=127.0.0.1", "tls": "starttls"},
    ]
    return config


def s_client(mta: Mta, *options: str, listener: int = IMPLICIT, say: Sequence[str] = ("QUIT",)) -> str:
    """What OpenSSL's client says of a session in which it says these lines, each after an answer to the last."""
    need("openssl")
    port = mta.address(number=listener)[1]
    starttls = ["-starttls", "smtp"] if listener == STARTTLS else []
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *starttls, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    heard = bytearray()

    def more() -> bool:
        part = process.stdout.read()  # type: ignore[union-attr]
        heard.extend(part or b"")
        return bool(part) or process.poll() is not None

    try:
        for line in say:
            wait_until(lambda: more() and (b"\n2" in heard or process.poll() is not None), 20, "it connects")
            try:
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                break
        wait_until(lambda: more() and process.poll() is not None, 20, lambda: f"it ends: {heard!r}")
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        heard += process.stdout.read() or b""
        process.stdout.close()
    return heard.decode("utf-8", "replace")


def events(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == name]


def reasons(mta: Mta) -> list[str]:
    return [event["reason"] for event in events(mta, "tls_failed")]


@pytest.mark.parametrize("listener", [IMPLICIT, STARTTLS], ids=["implicit", "STARTTLS"])
def test_what_openssl_may_use(make_mta: MakeMta, made: Authorities, listener: int) -> None:
    with make_mta(serving(made.issue())) as mta:
        for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            said = s_client(mta, version, "-CAfile", str(made.authority.file), "-alpn", "http/1.1", listener=listener)
            assert f"New, {name}, Cipher is" in said
            assert "Verify return code: 0 (ok)" in said
            assert "Secure Renegotiation IS" in said
            assert "Compression: NONE" in said
            assert "No ALPN negotiated" in said
            assert "Server Temp Key: X25519" in said
        for version in ("-tls1", "-tls1_1"):
            said = s_client(mta, version, "-cipher", "ALL:@SECLEVEL=0", listener=listener)
            assert "Cipher is (NONE)" in said
            assert "alert protocol version" in said
        old = "the client knows only TLS versions that are too old for tls.minimum"
        wait_until(lambda: reasons(mta) == [old] * 2, 10, "both failures are logged")


def test_the_minimum_can_be_raised(make_mta: MakeMta, made: Authorities) -> None:
    with make_mta(serving(made.issue(), minimum="1.3")) as mta:
        assert "Cipher is (NONE)" in s_client(mta, "-tls1_2")
        assert "New, TLSv1.3" in s_client(mta, "-tls1_3")


def test_only_the_listed_ciphers_are_taken(make_mta: MakeMta, made: Authorities) -> None:
    """Each that openssl knows for TLS 1.2 is tried; the certificate's key leaves those with ECDSA."""
    need("openssl")
    every = ["openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    known = subprocess.run(every, check=True, capture_output=True, text=True).stdout.strip().split(":")
    candidates = [name for name in known if "PSK" not in name and "SRP" not in name and not name.startswith("TLS_")]
    assert len(candidates) > 30
    with make_mta(serving(made.issue())) as mta:
        taken = {name for name in candidates if f"Cipher is {name}" in _try_cipher(mta, name)}
    assert taken == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    }


def _try_cipher(mta: Mta, name: str) -> str:
    address = "{}:{}".format(*mta.address())
    command = ["openssl", "s_client", "-connect", address, "-tls1_2", "-cipher", f"{name}:@SECLEVEL=0"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout


def test_renegotiation_is_refused(make_mta: MakeMta, made: Authorities) -> None:
    with make_mta(serving(made.issue())) as mta:
        said = s_client(mta, "-tls1_2", say=["R"])
        assert "RENEGOTIATING" in said
        assert "no renegotiation" in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_tickets_shorten_the_next_handshake_for_an_hour(
    make_mta: MakeMta, made: Authorities, tmp_path: Path, version: str
) -> None:
    kept = str(tmp_path / "session")
    with make_mta(serving(made.issue())) as mta:
        said = s_client(mta, version, "-sess_out", kept)
        assert "New, " in said
        assert "TLS session ticket lifetime hint: 3600 (seconds)" in said
        assert "Reused, " in s_client(mta, version, "-sess_in", kept)
        assert "Max Early Data: 0" in said or version == "-tls1_2"
        # What a context encrypted is nothing to the next one.
        made.issue()
        mta.process.signal(signal.SIGHUP)
        wait_until(lambda: len(events(mta, "certificate_loaded")) == 2, 20, "the certificate is read")
        assert "New, " in s_client(mta, version, "-sess_in", kept)


def test_the_name_that_a_client_asks_for(make_mta: MakeMta, made: Authorities) -> None:
    default, other = made.issue(), made.issue("other", "*.example.net")
    config = serving(default)
    config["tls.name"] = [{"certificate": str(other.certificate), "private_key": str(other.key)}]
    names = (("mta.test", "mta.test"), ("mail.example.net", "*.example.net"), ("x.test", "mta.test"))
    with make_mta(config) as mta:
        for listener in (IMPLICIT, STARTTLS):
            for asked, shown in names:
                for version in ("-tls1_2", "-tls1_3"):
                    said = s_client(mta, version, "-servername", asked, listener=listener)
                    assert f"subject=CN = {shown}\n" in said
            assert "subject=CN = mta.test\n" in s_client(mta, "-noservername", listener=listener)


def test_received_and_the_log_say_how(make_mta: MakeMta, made: Authorities, sink: Sink) -> None:
    with make_mta(serving(made.issue(), port=sink.port)) as mta:
        with Client(mta.address(number=STARTTLS)) as client:
            client.ehlo()
            client.starttls(trusting(made))
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], BODY).code == 250
        (message,) = sink.wait_for(1)
        used = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384"
        field = re.sub(rb"\s+", b" ", message.content.partition(b"\r\n\r\n")[0]).decode()
        assert f"(using {used}) by mta.test with ESMTPS id" in field
        (event,) = wait_until(lambda: events(mta, "accepted"), 10, "it is logged")
        assert event["tls"] == used


def trusting(made: Authorities) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(made.authority.file))


def test_clients_may_show_who_they_are(make_mta: MakeMta, made: Authorities, tmp_path: Path) -> None:
    """Verified, it is logged; another is as good as none; none of them relays."""
    ours = made.issue("client", "phone.test")
    (tmp_path / "others").mkdir()
    theirs = certificates.make(tmp_path / "others", "other.test")
    config = serving(made.issue(), client_certificates="ask", client_ca_file=str(made.authority.file))
    config["relay"]["networks"] = []
    with make_mta(config) as mta:
        for files in (ours, theirs, None):
            context = trusting(made)
            if files is not None:
                context.load_cert_chain(files.certificate, files.key)
            with Client(mta.address(number=STARTTLS)) as client:
                client.ehlo()
                client.starttls(context)
                client.ehlo()
                client.expect(250, "MAIL FROM:<a@client.test>")
                client.expect(550, "RCPT TO:<b@elsewhere.test>")
        said = s_client(mta, "-tls1_3", "-cert", str(ours.certificate), "-key", str(ours.key))
        assert "Acceptable client certificate CA names" in said
        wait_until(lambda: len(events(mta, "client_certificate")) == 2, 10, "those who are known are logged")
        assert {event["subject"] for event in events(mta, "client_certificate")} == {"CN=phone.test"}


def test_clients_may_have_to_show_who_they_are(make_mta: MakeMta, made: Authorities, tmp_path: Path) -> None:
    ours = made.issue("client", "phone.test")
    (tmp_path / "others").mkdir()
    theirs = certificates.make(tmp_path / "others", "other.test")
    config = serving(made.issue(), client_certificates="require", client_ca_file=str(made.authority.file))
    kept = str(tmp_path / "session")
    shown, wrongly = (["-cert", str(each.certificate), "-key", str(each.key)] for each in (ours, theirs))
    with make_mta(config) as mta:
        for version in ("-tls1_2", "-tls1_3"):
            assert "\n220 mta.test" in s_client(mta, version, *shown, "-sess_out", kept)
            # Nobody is taken at the word of an earlier session.
            assert "Reused, " not in s_client(mta, version, *shown, "-sess_in", kept)
            assert "\n220 mta.test" not in s_client(mta, version)
            assert "\n220 mta.test" not in s_client(mta, version, *wrongly)
        none = "the client has shown no certificate, and tls.client_certificates is require"
        wrong = "the client's certificate is not one of tls.client_ca_file's, or not valid"
        wait_until(lambda: reasons(mta) == [none, wrong] * 2, 10, lambda: f"all are logged: {reasons(mta)}")


def client_hello() -> bytes:
    """How a client begins."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(to_client, to_server, server_hostname="mta.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read()


def test_handshakes_that_fail_are_told_of_in_words(make_mta: MakeMta, made: Authorities) -> None:
    """And nowhere is there a traceback: the fixture looks for them."""
    config = serving(made.issue())
    config["timeouts"] = {"handshake": "2s"}
    with make_mta(config) as mta:
        implicit, starttls = mta.address(number=IMPLICIT), mta.address(number=STARTTLS)
        expected = []

        def told(reason: str) -> None:
            expected.append(reason)
            wait_until(lambda: reasons(mta) == expected, 20, lambda: f"{reason!r} is told: {reasons(mta)}")

        for said, reason in (
            (b"EHLO client.test\r\n", "the client does not speak TLS: it may expect to begin in clear"),
            (b"GET / HTTP/1.1\r\n\r\n", "the client speaks HTTP, not TLS"),
            (b"", "the client closed the connection"),
        ):
            with socket.create_connection(implicit) as connection:
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                told(reason)
        with Client(starttls) as client:
            client.ehlo()
            client.expect(220, "STARTTLS")
            client.send(b"EHLO client.test\r\n")
            told("the client does not speak TLS: it may expect to begin in clear")
        for maximum in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            stranger = ssl.create_default_context()
            stranger.maximum_version = maximum
            with pytest.raises(ssl.SSLCertVerificationError), Client(implicit, context=stranger):
                pass
            told("the client does not know the authority that signed our certificate (alert: unknown ca)")
        with socket.create_connection(implicit) as silent:
            told(SILENT)
            with pytest.raises(ConnectionResetError):
                silent.recv(1000)
        with Client(starttls) as slow:
            slow.ehlo()
            slow.expect(220, "STARTTLS")
            slow.send(client_hello()[:20])
            told(RELUCTANT)
            assert slow.at_end()
        with Client(starttls) as slow:
            slow.ehlo()
            slow.expect(220, "STARTTLS")
            slow.send(client_hello())
            told(SLOW)
        with Client(starttls) as client:
            client.ehlo()


def start_fails(mta: Mta) -> str:
    with pytest.raises(StartFailed) as caught:
        mta.start()
    assert mta.process.process.returncode == os.EX_CONFIG
    return str(caught.value)


def test_a_pair_that_does_not_fit_keeps_the_server_from_starting(make_mta: MakeMta, made: Authorities) -> None:
    files, other = made.issue(), made.issue("other")
    mta = make_mta(serving(files._replace(key=other.key)))
    said = start_fails(mta)
    assert f"{mta.config}: tls.private_key: {other.key} is not the key of {files.certificate}" in said
    config = serving(files)
    config["tls.name"] = [{"certificate": str(other.certificate), "private_key": "absent.key"}]
    said = start_fails(make_mta(config))
    assert re.search(r"tls\.name\[0\]\.private_key: .*/absent\.key: No such file or directory", said)


def test_an_expired_certificate_is_shown_and_complained_of(make_mta: MakeMta, made: Authorities, sink: Sink) -> None:
    """Most servers that send mail don't look; for those who do it is a matter of minutes, not of no mail at all."""
    with make_mta(serving(made.issue(days=-1), port=sink.port)) as mta:
        (told,) = events(mta, "certificate_invalid")
        assert "has expired on" in told["reason"]
        assert "Verify return code: 10 (certificate has expired)" in s_client(
            mta, "-CAfile", str(made.authority.file), listener=STARTTLS
        )


class Crowd:
    """Clients that begin TLS, send a message and leave, over and over."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, number: int) -> None:
        self._address = address
        self._context = context
        self._leaving = threading.Event()
        self.sent = 0
        self.trouble: list[BaseException] = []
        self.serials: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._leaving.is_set() and not self.trouble:
            try:
                self._visit()
            except BaseException as error:
                self.trouble.append(error)

    def _visit(self) -> None:
        with Client(self._address) as client:
            client.ehlo()
            client.starttls(self._context)
            self.serials.append(serial(client))
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], BODY).code == 250
            self.sent += 1

    def leave(self) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join(60)
        if self.trouble:
            raise self.trouble[0]


def serial(client: Client) -> str:
    assert isinstance(client.socket, ssl.SSLSocket)
    certificate = client.socket.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"]).lower().lstrip("0")


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "file change"])
def test_a_certificate_renewed_under_load_costs_no_session(
    make_mta: MakeMta, made: Authorities, sink: Sink, told: bool
) -> None:
    """New sessions see the new one; those that are open go on; what fits nothing for a while does no harm."""
    with make_mta(serving(made.issue(), port=sink.port, reload="1s" if not told else "1h")) as mta:
        address = mta.address(number=STARTTLS)
        context = trusting(made)
        lasting = Client(address)
        lasting.ehlo()
        lasting.starttls(context)
        first = serial(lasting)
        crowd = Crowd(address, context, 4)
        try:
            for number in range(1, 4):
                came = crowd.sent
                new = made.issue("unfinished")
                # One file after the other, as people and tools do, with sessions in between.
                os.replace(new.certificate, made.directory / "mta.pem")
                wait_until(lambda came=came: crowd.trouble or crowd.sent >= came + 5, 60, "sessions go on")
                os.replace(new.key, made.directory / "mta.key")
                if told:
                    mta.process.signal(signal.SIGHUP)
                wait_until(lambda n=number: len(events(mta, "certificate_loaded")) > n, 60, "it is read")
                expected = events(mta, "certificate_loaded")[-1]["serial"]
                with Client(address) as after:
                    after.ehlo()
                    after.starttls(context)
                    assert serial(after) == expected
                lasting.ehlo()
                assert lasting.transaction("a@client.test", ["b@sink.test"], BODY).code == 250
        finally:
            crowd.leave()
        lasting.expect(221, "QUIT")
        lasting.close()
        assert first not in crowd.serials[-1:]
        assert len(set(crowd.serials)) >= 2
        sink.wait_for(crowd.sent + 3)


def test_a_broken_pair_on_disk_is_told_of_once(make_mta: MakeMta, made: Authorities) -> None:
    files = made.issue()
    with make_mta(serving(files)) as mta:
        files.key.write_text("nonsense")
        wait_until(lambda: events(mta, "certificate_refused"), 20, "it is told")
        for _ in range(2):
            assert "Verify return code: 0 (ok)" in s_client(mta, "-CAfile", str(made.authority.file))
        (told,) = events(mta, "certificate_refused")
        assert told["key"] == "tls.private_key"
        made.issue()
        wait_until(lambda: len(events(mta, "certificate_loaded")) == 2, 20, "the new one is read")
        assert len(events(mta, "certificate_refused")) == 1


def test_a_reload_says_what_is_wrong_with_the_files_and_what_was_renewed(make_mta: MakeMta, made: Authorities) -> None:
    files, aliases = made.issue(), made.directory / "aliases"
    aliases.write_text("postmaster: root@client.test\n")
    config = serving(files, reload="1h")
    config["relay"] = {**config.get("relay", {}), "domains": ["sink.test"], "aliases": str(aliases)}
    with make_mta(config) as mta:
        same = mtactl(mta, "system", "reload")
        assert (same.returncode, "no setting has changed" in same.stdout) == (0, True)
        assert "certificates taken" not in same.stdout
        key = files.key.read_text()
        files.key.write_text("nonsense")
        aliases.write_text("no colon here\n")
        broken = mtactl(mta, "system", "reload")
        assert broken.returncode == 78
        assert "tls.private_key: " in broken.stderr
        assert f"relay.aliases: {aliases}:1: " in broken.stderr
        wait_until(lambda: events(mta, "certificate_refused"), 60, "the log says it, too")
        assert "Verify return code: 0 (ok)" in s_client(mta, "-CAfile", str(made.authority.file))
        files.key.write_text(key)
        aliases.write_text("postmaster: root@client.test\n")
        made.issue()
        renewed = mtactl(mta, "system", "reload")
        assert renewed.returncode == 0
        assert f"certificates taken: {files.certificate}" in renewed.stdout
        wait_until(lambda: len(events(mta, "certificate_loaded")) == 2, 60, "the new one is shown")


def test_a_server_without_tls_survives_sighup(make_mta: MakeMta) -> None:
    with make_mta(relaying_to(9)) as mta:
        mta.process.signal(signal.SIGHUP)
        wait_until(lambda: events(mta, "reload"), 20, "it is told")
        with Client(mta.address()) as client:
            client.ehlo()


def explained() -> set[str]:
    """The findings that docs/tls.rst has a word about."""
    _, _, section = DOCS.read_text().partition("What a scanner says\n")
    return set(re.findall(r"^``(\w+)``", section, re.MULTILINE))


def unexplained(findings: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{found['severity']} {found['id']}: {found['finding']}"
        for found in findings
        if found["severity"] not in ("OK", "INFO", "DEBUG") and found["id"] not in explained()
    ]


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.campaign)], ids=["chosen", "all"])
@pytest.mark.timeout(900)
def test_a_scanner_finds_nothing_that_is_not_explained(
    make_mta: MakeMta, made: Authorities, tmp_path: Path, thorough: bool, long_campaign: bool
) -> None:
    if thorough and not long_campaign:
        pytest.skip("the whole scan takes three minutes: tox -e campaign")
    assert explained()
    with make_mta(serving(made.issue())) as mta:
        checks = () if thorough else CHOSEN
        scans = [
            Scan(
                tmp_path,
                mta.address(number=listener)[1],
                "mta.test",
                made.authority.file,
                starttls=listener == STARTTLS,
                checks=checks,
            )
            for listener in (IMPLICIT, STARTTLS)
        ]
        for scan in scans:
            findings = scan.findings(600)
            assert unexplained(findings) == []
            by_id = {found["id"]: found for found in findings}
            assert by_id["TLS1_3"]["severity"] == "OK"
            assert "not offered" in by_id["TLS1_1"]["finding"]
            assert by_id["secure_client_renego"]["severity"] == "OK"
            assert by_id["cert_chain_of_trust"]["severity"] == "OK"
