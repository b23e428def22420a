"""The log of a real server: a message from its session to the report about it, and what is kept to itself."""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rigs import certificates
from rigs.client import Client
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

from mtatwist.auth import hashes

MakeMta = Callable[..., Mta]

USER, FRIEND, STRANGER = "wilhelmina", "rumpelstilz", "blaubart"
CLIENT = "her-own-laptop"
HEAD = f"From: <{USER}@home.test>\r\nTo: <{FRIEND}@away.test>\r\nSubject: dinner\r\n\r\n"


@pytest.fixture
def dialogue(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> Callable[[str, bool], Mta]:
    """A wrong login, and a right one; a message of which one recipient is delivered, one deferred, one bounced, and the
    report about that, which a next hop takes."""

    def policy(stage: str, what: str) -> str | None:
        if stage == "RCPT" and STRANGER in what:
            return f"550 5.1.1 {STRANGER} is nobody here, {USER}@home.test should know"
        if stage == "RCPT" and "later" in what:
            return f"451 4.2.1 <{what}> is busy"
        return None

    def play(format: str, redact: bool) -> Mta:
        sink.policy = policy
        made = certificates.make(tmp_path)
        users = tmp_path / "users"
        users.write_text(f"{USER}:{hashes.make('secret')}:{USER}@home.test\n")
        users.chmod(0o600)
        config = relaying_to(
            sink.port,
            listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "starttls"}],
            tls={"certificate": str(made.certificate), "private_key": str(made.key)},
            relay={"networks": [], "domains": ["home.test"], "retry": "1h"},
            auth={"backend": "file", "file": str(users)},
            log={"format": "json", "redact": redact},
        )
        with make_mta(config) as mta:
            if format == "text":
                # The rig reads JSON; so the text is another server's, when this one's start has been seen.
                mta.stop()
                mta.config.write_text(mta.config.read_text().replace('"json"', '"text"'))
                child = mta.spawn()
                wait_until(lambda: " start version=" in child.output(), 30, mta.log)
                port = int(re.findall(r'"port": (\d+)', child.output())[0])
                address = ("127.0.0.1", port)
            else:
                address = mta.address("submission")
            talk(address, made.authority)
            sink.wait_for(2, 30)
            said = mta.process.output
            wait_until(lambda: all(word in said() for word in ("deferred", "failed", "session_ended")), 20, mta.log)
            wait_until(lambda: said().count("delivered") >= 2, 20, mta.log)
        return mta

    return play


def talk(address: tuple[str, int], authority: Path) -> None:
    """What the client says."""

    def login(password: str) -> str:
        return "AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{password}".encode()).decode()

    trust = ssl.create_default_context(cafile=authority)
    with Client(address) as client:
        client.ehlo(CLIENT)
        client.starttls(trust)
        client.ehlo(CLIENT)
        client.expect(535, login("wrong"))
        client.expect(235, login("secret"))
        client.expect(553, f"MAIL FROM:<{STRANGER}@home.test>")
        paths = [f"{FRIEND}@away.test", f"{STRANGER}@away.test", f"{FRIEND}.later@away.test"]
        assert client.transaction(f"{USER}@home.test", paths, HEAD.encode() + b"At eight.\r\n").code == 250
    with Client(address) as client:
        # One who leaves without mail.
        client.ehlo(CLIENT)


def one(mta: Mta, name: str, **facts: Any) -> dict[str, Any]:
    """The one event of this name with these facts."""
    found = [e for e in mta.events() if e["event"] == name and facts.items() <= e.items()]
    assert len(found) == 1, (name, facts, found)
    return found[0]


def test_a_message_is_one_story(dialogue: Callable[[str, bool], Mta]) -> None:
    mta = dialogue("json", False)
    accepted = one(mta, "accepted")
    session, number = accepted["session"], accepted["id"]
    assert one(mta, "login")["session"] == session
    assert (accepted["user"], accepted["helo"], accepted["peer"]) == (USER, CLIENT, "127.0.0.1")
    assert accepted["tls"].startswith("TLSv1.3")
    assert accepted["reverse_path"] == f"{USER}@home.test"
    assert len(accepted["forward_paths"]) == 3
    for name, to, code in (("delivered", "", 250), ("failed", STRANGER, 550), ("deferred", f"{FRIEND}.later", 451)):
        attempt = one(mta, name, session=session, forward_path=f"{to or FRIEND}@away.test")
        assert (attempt["id"], attempt["code"], attempt["attempts"]) == (number, code, 1)
        assert attempt["reverse_path"] == accepted["reverse_path"]
        assert attempt["size"] == accepted["size"]
        assert attempt["next_hop"] == attempt["host"] + ":" + attempt["next_hop"].rpartition(":")[2]
        assert attempt["delay"] >= 0
        assert STRANGER in attempt["reply"] or name != "failed"
    assert 0 < one(mta, "deferred")["retry_in"] <= 3600
    report = one(mta, "report")
    assert (report["about"], report["forward_path"], report["kind"]) == (number, f"{USER}@home.test", "failed")
    assert one(mta, "delivered", id=report["id"])["forward_path"] == f"{USER}@home.test"
    assert [e["accepted"] for e in mta.events() if e["event"] == "session_ended"] == [0]


@pytest.mark.parametrize("format", ["json", "text"])
def test_nobody_can_be_told_from_the_log(dialogue: Callable[[str, bool], Mta], format: str) -> None:
    mta = dialogue(format, True)
    said = mta.process.output()
    for personal in (USER, FRIEND, STRANGER, CLIENT):
        assert personal not in said.lower()
    assert "@away.test" in said
    assert "@home.test" in said
    assert re.search(r"~[0-9a-f]{10} is nobody here, ~[0-9a-f]{10}@home\.test should know", said)


def test_one_can_still_be_followed(dialogue: Callable[[str, bool], Mta]) -> None:
    mta = dialogue("json", True)
    accepted = one(mta, "accepted")
    assert one(mta, "login")["user"] == accepted["user"] == one(mta, "login_refused")["user"]
    failed, report = one(mta, "failed"), one(mta, "report")
    assert failed["forward_path"] in accepted["forward_paths"]
    assert report["forward_path"] == accepted["reverse_path"] == failed["reverse_path"]
    assert one(mta, "send_as_refused")["user"] == accepted["user"]
    assert json.dumps(accepted).count("~") == 6
