"""What users may send, and what their messages become, with the real server and real clients."""

from __future__ import annotations

import base64
import random
import re
import smtplib
import ssl
import subprocess
import threading
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from passlib.hash import ldap_salted_sha1
from rigs import certificates
from rigs.client import Client
from rigs.mta import Mta, relaying_to
from rigs.processes import need, need_perl, program, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

PASSWORD = "open sesame"
FROM_ALICE = b"From: Alice <alice@example.org>\r\nSubject: hi\r\n\r\n..dots\r\n.\r\nlast"


@pytest.fixture
def make_server(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> Callable[..., Mta]:
    """Make a server for alice and bob, with these settings of [submission]."""
    made = certificates.make(tmp_path)

    def make(**settings: Any) -> Mta:
        listen = {"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission"}
        mta = make_mta(
            relaying_to(
                sink.port,
                listen=[{**listen, "tls": "starttls"}, {**listen, "endpoint": "tcp:0", "tls": "implicit"}],
                tls={"certificate": str(made.certificate), "private_key": str(made.key)},
                relay={"networks": [], "domains": ["example.org"]},
                submission=settings,
            )
        )
        mta.data_dir.mkdir()
        # Quick to verify.
        words = ldap_salted_sha1.hash(PASSWORD)
        (mta.data_dir / "users").write_text(f"alice:{words}:alice@example.org,office@example.org\nbob:{words}\n")
        (mta.data_dir / "users").chmod(0o600)
        return mta

    return make


def trust(mta: Mta) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=mta.directory.parent / "authority.pem")


def login(mta: Mta, name: str = "alice") -> Client:
    """A session of this user."""
    client = Client(mta.address("submission"))
    client.ehlo()
    client.starttls(trust(mta))
    client.ehlo()
    client.expect(235, "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{PASSWORD}".encode()).decode())
    return client


def logged(mta: Mta, event: str) -> list[dict[str, Any]]:
    return [each for each in mta.events() if each["event"] == event]


def test_a_message_is_completed_and_nothing_else(make_server: Callable[..., Mta], sink: Sink) -> None:
    with make_server() as mta, login(mta) as alice:
        assert alice.command("MAIL FROM:<bob@example.org>").code == 553
        assert alice.transaction("alice+lists@example.org", ["you@sink.test"], FROM_ALICE).code == 250
        (arrived,) = sink.wait_for(1)
        trace, _, rest = arrived.content.partition(b"\r\nDate: ")
        assert re.fullmatch(
            rb"[^\r]+\r\nMessage-ID: <[0-9a-f]{32}@mta\.test>\r\n" + re.escape(FROM_ALICE + b"\r\n"), rest
        )
        # That somebody had logged in is told, but not who it was.
        assert b" with ESMTPSA id " in trace
        assert b"alice" not in trace
        (accepted,) = wait_until(lambda: logged(mta, "accepted"), 10, "it is logged")
        assert (accepted["user"], accepted["reverse_path"]) == ("alice", "alice+lists@example.org")
        (refused,) = logged(mta, "send_as_refused")
        assert (refused["user"], refused["reverse_path"]) == ("alice", "bob@example.org")


def test_from_fields_by_policy(make_server: Callable[..., Mta], sink: Sink) -> None:
    foreign = FROM_ALICE.replace(b"alice@", b"bob@")
    for policy, code, in_all in (("log", 250, 3), ("off", 250, 6), ("reject", 553, 8)):
        with make_server(from_mismatch=policy) as mta, login(mta) as alice:
            assert alice.transaction("alice@example.org", ["you@sink.test"], FROM_ALICE).code == 250
            assert alice.transaction("", ["you@sink.test"], FROM_ALICE).code == 250
            assert alice.transaction("", ["you@sink.test"], foreign).code == 553
            assert alice.transaction("alice@example.org", ["you@sink.test"], foreign).code == code
            sink.wait_for(in_all)
        # All is written once it has stopped.
        refused = [event["refused"] for event in logged(mta, "from_mismatch")]
        assert refused == [True, *{"log": [False], "off": [], "reject": [True]}[policy]]
    sent_for = [b"\r\nSender: alice@example.org\r\nFrom: Alice <bob@" in each.content for each in sink.arrivals]
    assert sent_for.count(True) == 2


def test_large_and_binary_messages_stay_as_they_are(make_server: Callable[..., Mta], sink: Sink) -> None:
    """Those that lie in files, and those without lines, among them."""
    sink.extensions = [b"250-sink.test", b"250-CHUNKING", b"250-BINARYMIME", b"250 8BITMIME"]
    sink.kept = 10_000_000
    chance = random.Random(4)
    with make_server() as mta, login(mta) as alice:
        for sent, (size, piece) in enumerate(((0, 1), (5, 1), (100_000, 4096), (4_000_000, 1_000_000)), start=1):
            body = FROM_ALICE + chance.randbytes(size)
            alice.expect(250, "MAIL FROM:<alice@example.org> BODY=BINARYMIME")
            alice.expect(250, "RCPT TO:<you@sink.test>")
            for at in range(0, len(body), piece):
                alice.send(f"BDAT {len(body[at : at + piece])}\r\n".encode() + body[at : at + piece])
                assert alice.reply().code == 250
            alice.expect(250, "BDAT 0 LAST")
            fields = sink.wait_for(sent)[-1].content.removesuffix(body)
            assert re.fullmatch(rb"Received: (?:.|\r\n\t)+\r\nDate: .+\r\nMessage-ID: .+\r\n", fields)


def test_limits_hold_for_sessions_at_the_same_time_and_after_a_restart(
    make_server: Callable[..., Mta], sink: Sink
) -> None:
    mta = make_server(messages=["5/h", "1000/d"], recipients=["8/h"])
    with mta:
        results: list[int] = []

        def send() -> None:
            with login(mta) as alice:
                alice.expect(250, "MAIL FROM:<alice@example.org>")
                alice.expect(250, "RCPT TO:<you@sink.test>")
                gate.wait(30)
                code = alice.command("DATA").code
                if code == 354:
                    alice.send(b"x\r\n.\r\n")
                    code = alice.reply().code
                results.append(code)

        gate = threading.Barrier(12)
        threads = [threading.Thread(target=send) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == [250] * 5 + [450] * 7
        (near,) = wait_until(lambda: logged(mta, "submission_limit_near"), 10, "it is logged")
        assert (near["user"], near["limit"], near["level"]) == ("alice", "5/h messages", "warn")
        with login(mta, "bob") as bob:
            bob.expect(250, "MAIL FROM:<bob@example.org>")
            codes = [bob.command(f"RCPT TO:<{number}@sink.test>").code for number in range(10)]
            assert codes == [250] * 8 + [450] * 2
            bob.expect(250, "RSET")
            # What was not sent does not count.
            assert bob.transaction("bob@example.org", [f"{n}@sink.test" for n in range(8)], b"x").code == 250
    with mta:
        with login(mta) as alice:
            refusal = alice.command("MAIL FROM:<alice@example.org>")
            assert str(refusal).startswith("450 4.7.1 Too many messages for now: you may send 5/h")
        with login(mta, "bob") as bob:
            bob.expect(250, "MAIL FROM:<bob@example.org>")
            assert bob.command("RCPT TO:<you@sink.test>").code == 450
    assert len(sink.wait_for(6)) == 6


def test_smtplib(make_server: Callable[..., Mta], sink: Sink) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Alice <office@example.org>", "you@sink.test", "Grüße"
    message.set_content("Schöne Grüße\n")
    with make_server(from_mismatch="reject", received_user=True) as mta:
        with smtplib.SMTP(*mta.address("submission")) as client:
            client._host = "mta.test"  # type: ignore[attr-defined]
            client.starttls(context=trust(mta))
            client.login("alice", PASSWORD)
            assert client.send_message(message) == {}
            message.replace_header("From", "Bob <bob@example.org>")
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                client.send_message(message)
            assert refused.value.smtp_code == 553
            with pytest.raises(smtplib.SMTPDataError) as not_taken:
                client.send_message(message, from_addr="alice@example.org")
            assert not_taken.value.smtp_code == 553
        (arrived,) = sink.wait_for(1)
    assert b"\r\n\t(authenticated user alice)\r\n" in arrived.content


def test_swaks(make_server: Callable[..., Mta], sink: Sink) -> None:
    need("swaks")
    need_perl("Net::SSLeay")
    with make_server() as mta:
        argv = [program("swaks"), "--server", "127.0.0.1", "--port", str(mta.address("submission", 1)[1])]
        argv += ["--tls-on-connect", "--tls-verify", "--tls-ca-path", str(mta.directory.parent / "authority.pem")]
        argv += ["--tls-sni", "mta.test", "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", PASSWORD]
        argv += ["--to", "you@sink.test"]
        sent = subprocess.run([*argv, "--from", "alice@example.org"], capture_output=True, text=True, timeout=60)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        refused = subprocess.run([*argv, "--from", "bob@example.org"], capture_output=True, text=True, timeout=60)
        assert "553 5.7.1 You may not send from this address" in refused.stdout
        (arrived,) = sink.wait_for(1)
    # It had all of its fields.
    assert arrived.content.lower().count(b"\r\ndate: ") == arrived.content.lower().count(b"\r\nmessage-id: ") == 1
