"""People of a real directory log in and send, with the clients they have, on both ports."""

from __future__ import annotations

import base64
import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client
from rigs.mta import Mta, relaying_to
from rigs.processes import need, need_perl, wait_until
from rigs.sink import Sink
from rigs.slapd import PASSWORD, Slapd, user_dn

MakeMta = Callable[..., Mta]

MESSAGE = "From: user1@example.org\r\nTo: you@away.test\r\nSubject: hello\r\n\r\nIt works.\r\n"
PORTS = ("starttls", "implicit")


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("directory")) as ldap:
        yield ldap


@pytest.fixture
def start(make_mta: MakeMta, sink: Sink, slapd: Slapd, tmp_path: Path) -> Callable[..., Mta]:
    """A server with both kinds of listeners for the people of the directory."""

    def start(ldap: Slapd = slapd, lockout: dict[str, Any] | None = None, **auth: Any) -> Mta:
        files = ldap.authority.issue(tmp_path, "mta.test", addresses=("127.0.0.1", "127.0.0.2"))
        config = relaying_to(
            sink.port,
            listen=[
                {"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "starttls"},
                {"endpoint": "tcp:0:interface=127.0.0.2", "role": "submission", "tls": "implicit"},
            ],
            tls={"certificate": str(files.certificate), "private_key": str(files.key)},
            relay={"networks": [], "domains": ["example.org"]},
            auth={"backend": "ldap", **auth},
        )
        config["auth.ldap"] = ldap.settings()
        config["auth.lockout"] = lockout or {}
        return make_mta(config).start()

    return start


def trusting(ldap: Slapd) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ldap.ca_file)


def connect(mta: Mta, ldap: Slapd, port: str = "implicit") -> Client:
    """A session in TLS, greeted."""
    if port == "implicit":
        client = Client(mta.address("submission", 1), context=trusting(ldap))
    else:
        client = Client(mta.address("submission"))
        client.ehlo()
        client.starttls(trusting(ldap))
    client.ehlo()
    return client


def plain(user: str | bytes, password: str | bytes) -> str:
    octets = [each.encode() if isinstance(each, str) else each for each in ("", user, password)]
    return "AUTH PLAIN " + base64.b64encode(b"\0".join(octets)).decode()


def arrived(sink: Sink, count: int = 1) -> list[Any]:
    wait_until(lambda: len(sink.arrivals) >= count, 20, "the mail has arrived")
    return list(sink.arrivals)


def event(mta: Mta, name: str) -> dict[str, Any]:
    """The first of this name; the log is written a little later than it happens."""
    return wait_until(lambda: next((each for each in mta.events() if each["event"] == name), None), 10, name)


# --- Clients ------------------------------------------------------------------------------------------------------


def swaks(mta: Mta, port: str, mechanism: str, password: str) -> subprocess.CompletedProcess[str]:
    need("swaks")
    need_perl("Net::SSLeay")
    host, number = mta.address("submission", PORTS.index(port))
    return subprocess.run(
        [
            "swaks",
            *("--server", f"{host}:{number}", "--tls" if port == "starttls" else "--tlsc", "--helo", "client.test"),
            *("--auth", mechanism, "--auth-user", "user1", "--auth-password", password),
            *("--from", "user1@example.org", "--to", "you@away.test"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(start: Callable[..., Mta], sink: Sink, port: str, mechanism: str) -> None:
    mta = start()
    done = swaks(mta, port, mechanism, "pw1")
    assert done.returncode == 0, done.stdout + done.stderr
    (message,) = arrived(sink)
    assert message.reverse_path == "user1@example.org"
    received = message.content.split(b"\r\n\r\n")[0]
    assert b"with ESMTPSA id" in received
    login = event(mta, "login")
    assert (login["user"], login["mechanism"], login["peer"]) == ("user1", mechanism, "127.0.0.1")
    assert login["tls"].startswith("TLSv1.3")


def test_swaks_with_a_wrong_password(start: Callable[..., Mta]) -> None:
    mta = start()
    done = swaks(mta, "starttls", "PLAIN", "hunter2hunter2")
    # Its code for a login that failed.
    assert done.returncode == 28, done.stdout
    assert "535 5.7.8" in done.stdout
    assert event(mta, "login_refused")["user"] == "user1"
    assert "hunter2" not in mta.log()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
def test_smtplib(start: Callable[..., Mta], sink: Sink, slapd: Slapd, port: str, mechanism: str) -> None:
    mta = start()
    host, number = mta.address("submission", PORTS.index(port))
    client: smtplib.SMTP
    if port == "implicit":
        client = smtplib.SMTP_SSL(host, number, timeout=30, context=trusting(slapd))
    else:
        client = smtplib.SMTP(host, number, timeout=30)
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.login("user1", "pw1")
        client.starttls(context=trusting(slapd))
    with client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        client.user, client.password = "user1", "pw1"
        assert client.auth(mechanism.removeprefix("auth_").upper(), getattr(client, mechanism))[0] == 235
        client.sendmail("user1@example.org", ["you@away.test"], MESSAGE)
    (message,) = arrived(sink)
    assert b"It works." in message.content


def test_smtplib_tries_the_next_mechanism(start: Callable[..., Mta], slapd: Slapd) -> None:
    """Its login() goes through all that are offered: with a wrong password that is still one failed session."""
    mta = start()
    host, number = mta.address("submission", 1)
    with smtplib.SMTP_SSL(host, number, timeout=60, context=trusting(slapd)) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login("user1", "wrong")
        assert (caught.value.smtp_code, caught.value.smtp_error[:5]) == (535, b"5.7.8")
        assert client.login("user1", "pw1")[0] == 235


@pytest.mark.parametrize("port", PORTS)
def test_openssl(start: Callable[..., Mta], sink: Sink, slapd: Slapd, port: str) -> None:
    """By hand, as administrators do."""
    need("openssl")
    mta = start()
    host, number = mta.address("submission", PORTS.index(port))
    argv = ["openssl", "s_client", "-connect", f"{host}:{number}", "-quiet", "-crlf", "-CAfile", slapd.ca_file]
    # What is said before its own STARTTLS it keeps to itself.
    argv += ["-verify_return_error", *(["-starttls", "smtp"] if port == "starttls" else [])]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def say(line: str) -> str:
        stdin.write(f"{line}\n")
        stdin.flush()
        return hear()

    def hear() -> str:
        while (heard := stdout.readline())[3:4] == "-":
            pass
        return heard

    try:
        if port == "implicit":
            assert hear()[:3] == "220"
        assert say("EHLO client.test")[:3] == "250"
        assert say("AUTH LOGIN")[:4] == "334 "
        assert say(base64.b64encode(b"user1").decode())[:4] == "334 "
        assert say(base64.b64encode(b"pw1").decode())[:9] == "235 2.7.0"
        assert say("MAIL FROM:<user1@example.org>")[:3] == "250"
        assert say("RCPT TO:<you@away.test>")[:3] == "250"
        assert say("DATA")[:3] == "354"
        assert say(MESSAGE.replace("\r\n", "\n") + ".")[:3] == "250"
        assert say("QUIT")[:3] == "221"
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    assert len(arrived(sink)) == 1


# --- Whoever is not who he says -----------------------------------------------------------------------------------


def test_nobody_else_gets_in(start: Callable[..., Mta], slapd: Slapd) -> None:
    """Wrong password, unknown user, locked by us, locked and disabled by the directory: the same bytes."""
    mta = start(failures=100)
    wrong: set[str] = set()
    with connect(mta, slapd) as client:
        for user, password in (
            ("user1", "wrong"),
            ("nobody", "wrong"),
            ("locked", PASSWORD),
            ("off", PASSWORD),
            ("twin", PASSWORD),
            ("away", PASSWORD),
            ("", "wrong"),
            ("user1", ""),
        ):
            wrong.add(str(client.command(plain(user, password))))
    assert wrong == {"535 5.7.8 Authentication credentials invalid"}


def test_a_locked_account_and_a_wrong_password_sound_the_same(start: Callable[..., Mta], slapd: Slapd) -> None:
    mta = start(lockout={"threshold": 3})
    replies = []
    # Another one each time: the same one again would count once.
    for number in range(4):
        with connect(mta, slapd) as client:
            replies.append(str(client.command(plain("user2", f"guess {number}"))))
    asked = len(slapd.binds(user_dn("user2")))
    assert asked == 3
    with connect(mta, slapd) as client:
        replies.append(str(client.command(plain("user2", "pw2"))))
    assert len(slapd.binds(user_dn("user2"))) == asked
    assert set(replies) == {"535 5.7.8 Authentication credentials invalid"}
    with connect(mta, slapd) as client:
        client.expect(235, plain("user3", "pw3"))


def test_the_third_failure_ends_the_session(start: Callable[..., Mta], slapd: Slapd) -> None:
    mta = start()
    client = connect(mta, slapd)
    for _ in range(3):
        client.expect(535, plain("user4", "wrong"))
    assert str(client.reply()).startswith("421 4.7.0")
    assert client.at_end()
    client.close()


@pytest.mark.parametrize(
    "user",
    [
        "*)(uid=*",
        "admin)(|(password=*",
        "user1)(objectClass=*",
        "*",
        "user1\\",
        "uid=user1,ou=people,dc=example,dc=org",
        b"user1\0",
        b"user1\xff",
        "user1\n",
        "u" * 9000,
        "us\u0308er1",
    ],
    ids=ascii,
)
def test_names_that_are_meant_badly(start: Callable[..., Mta], slapd: Slapd, user: str | bytes) -> None:
    """None of them is anybody, and none makes trouble: the fixture looks for tracebacks."""
    mta = start()
    login = plain(user, "pw1").removeprefix("AUTH PLAIN ")
    with connect(mta, slapd) as client:
        client.expect(334, "AUTH PLAIN")
        reply = client.command(login)
        assert reply.code in (535, 501, 500), str(reply)
        client.expect(235, plain("user1", "pw1"))


def test_a_line_of_64_kilobytes(start: Callable[..., Mta], slapd: Slapd) -> None:
    mta = start()
    with connect(mta, slapd) as client:
        client.expect(334, "AUTH LOGIN")
        assert str(client.command(base64.b64encode(b"u" * 65536))).startswith("500 5.5.6")
        client.expect(235, plain("user1", "pw1"))


@pytest.mark.parametrize("name", ["zoë", "zoe\u0308", "ZOE\u0308", "дмитрий"])
def test_names_beyond_ascii(start: Callable[..., Mta], slapd: Slapd, name: str) -> None:
    """However a keyboard writes them."""
    mta = start()
    with connect(mta, slapd) as client:
        client.expect(235, plain(name, PASSWORD))


# --- A directory that has a bad day -------------------------------------------------------------------------------


def test_a_directory_that_hangs_holds_up_nobody_else(start: Callable[..., Mta], sink: Sink, tmp_path: Path) -> None:
    """Its logins are answered 454 within 10 s; who has logged in before goes on sending meanwhile."""
    with Slapd(tmp_path) as own:
        mta = start(own)
        sending, waiting = connect(mta, own), connect(mta, own)
        sending.expect(235, plain("user1", "pw1"))
        own.hang()
        try:
            began = time.monotonic()
            waiting.send(plain("user2", "pw2").encode() + b"\r\n")
            sent = 0
            while sent < 20:
                reply = sending.transaction("user1@example.org", ["you@away.test"], MESSAGE.encode())
                assert reply.code == 250
                sent += 1
            spent = time.monotonic() - began
            assert str(waiting.reply()).startswith("454 4.7.0")
            # It has taken ten seconds at most, and this machine may have other things to do.
            assert spent < time.monotonic() - began < 25
        finally:
            own.go_on()
        wait_until(lambda: waiting.command(plain("user2", "pw2")).code == 235, 10, "the directory is back")
        for client in (sending, waiting):
            client.expect(221, "QUIT")
            client.close()
    assert len(arrived(sink, 20)) == 20
