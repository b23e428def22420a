"""mtactl's verbs of the DNS, routes, logins and the server as a whole, at a real server with real peers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from control.test_users import Terminal
from rigs.client import Client
from rigs.control import SOCKET
from rigs.dnslab import DnsLab
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import keep_port, wait_until
from rigs.sink import Sink
from rigs.slapd import PASSWORD, Slapd

from mtatwist.control.cli import main

MakeMta = Callable[..., Mta]

LOOPBACK = "tcp:0:interface=127.0.0.1"
LISTEN = [
    {"endpoint": LOOPBACK, "role": "mx", "tls": "none"},
    {"endpoint": "tcp:0:interface=127.0.0.2", "role": "submission", "tls": "none"},
]
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"
MANUAL = Path(__file__).parents[2] / "docs" / "administration.rst"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsLab]:
    with DnsLab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def mtactl(mta: Mta, *words: str, password: str | None = None, token: str | None = None) -> Result:
    """Run it: the server is in another process."""
    environment = {"MTACTL_TOKEN": token} if token else {}
    return CliRunner().invoke(main, ["--socket", str(mta.data_dir / SOCKET), *words], input=password, env=environment)


def told(mta: Mta, *words: str, code: int = 0, **settings: Any) -> list[dict[str, Any]]:
    """What it says in JSON; it ends with ``code``."""
    done = mtactl(mta, "--json", *words, **settings)
    assert done.exit_code == code, f"{words}: {done.exit_code} {done.output}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def one(mta: Mta, *words: str, **settings: Any) -> dict[str, Any]:
    (facts,) = told(mta, *words, **settings)
    return facts


def audited(mta: Mta, command: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event.get("event") == "control" and event["command"] == command]


# The manual and the server.


def manual() -> dict[str, set[str]]:
    """The fields that the manual tells of, by verb."""
    found: dict[str, set[str]] = {}
    text = MANUAL.read_text("utf-8")
    for match in re.finditer(r"^Fields of (``[^\n:]*``)[^\n:]*:\n((?:\n|``.*\n|    .*\n)+)", text, re.MULTILINE):
        fields = set(re.findall(r"^``([\w.]+)``$", match[2], re.MULTILINE))
        for verb in re.findall(r"``([^`]+)``", match[1]):
            found[verb] = fields
    return found


def fields(rows: list[dict[str, Any]], *inner: str) -> set[str]:
    """The names of fields in these objects, and in those that stand below ``inner``."""
    names = {name for row in rows for name in row}
    return names | {f"{each}.{name}" for each in inner for row in rows for below in row[each] for name in below}


def with_everything(sink: Sink, users: Path, **tables: Any) -> Config:
    users.write_text("")
    done = CliRunner().invoke(main, ["users", "add", "--file", str(users), "alice"], input="secret\n")
    assert done.exit_code == 0, done.output
    return relaying_to(
        sink.port,
        listen=LISTEN,
        auth={"backend": "file", "file": str(users), "require_tls": False},
        health={"endpoint": LOOPBACK},
        **tables,
    )


def test_the_manual_tells_of_every_field_and_of_no_other(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    documented = manual()
    with make_mta(with_everything(sink, tmp_path / "users")) as mta:
        guess(mta, "alice", 5)
        assert fields(told(mta, "auth", "locks")) == documented["auth locks"]
        assert fields(told(mta, "auth", "test", "alice", password="secret\n")) == documented["auth test"]
        assert fields(told(mta, "auth", "unlock", "alice")) == documented["auth unlock"]
        lookup = told(mta, "dns", "lookup", "localhost")
        assert fields(lookup) == documented["dns lookup"] == documented["dns refresh"]
        assert fields(told(mta, "dns", "override", "a.test", "192.0.2.1")) == documented["dns override"]
        assert fields(told(mta, "dns", "list")) == documented["dns list"]
        assert fields(told(mta, "dns", "clear", "--everything")) == documented["dns clear"]
        assert fields(told(mta, "route", "test", "a@b.test"), "ways") == documented["route test"]
        assert fields(told(mta, "system", "ping")) == documented["system ping"]
        assert fields(told(mta, "system", "status")) == documented["system status"] - {"left_out"}
        assert fields(told(mta, "system", "reload")) == documented["system reload"]
        assert fields(told(mta, "system", "drain")) == documented["system drain"]
        assert fields(told(mta, "system", "undrain")) == documented["system undrain"]
        assert fields(told(mta, "system", "log-level", "debug")) == documented["system log-level"]


CHANGING = [
    ("auth", "unlock", "alice"),
    ("auth", "test", "alice"),
    ("dns", "clear", "--everything"),
    ("dns", "override", "a.test", "192.0.2.1"),
    ("system", "reload"),
    ("system", "drain"),
    ("system", "undrain"),
    ("system", "log-level", "debug"),
]
LOOKING = [
    ("auth", "locks"),
    ("dns", "list"),
    ("dns", "lookup", "localhost"),
    ("route", "test", "a@b.test"),
    ("system", "ping"),
    ("system", "status"),
]


def test_who_may_look_may_not_change(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    token = {"name": "eye", "role": "read", "sha256": hashlib.sha256(b"look").hexdigest()}
    config = with_everything(sink, tmp_path / "users", **{"control.token": [token]})
    with make_mta(config) as mta:
        for words in CHANGING:
            refused = one(mta, *words, token="look", password="secret\n", code=os.EX_NOPERM)
            assert refused["level"] == "error"
            assert 'has the role "read"' in refused["reason"]
        for words in LOOKING:
            assert told(mta, *words, token="look") is not None
            assert mtactl(mta, *words).exit_code == os.EX_NOPERM
        status = one(mta, "system", "status", token="look")
        assert (status["phase"], status["log_level"], status["overrides"]) == ("running", "info", 0)
        assert "secret" not in mta.log()


# Draining.


def ready(mta: Mta) -> tuple[int, dict[str, str]]:
    (start,) = [event for event in mta.events() if event.get("event") == "start"]
    connection = http.client.HTTPConnection("127.0.0.1", int(start["health"]["port"]), timeout=20)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        return response.status, json.loads(response.read())["reasons"]
    finally:
        connection.close()


def test_draining(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port, health={"endpoint": LOOPBACK})) as mta:
        with Client(mta.address()) as idle, Client(mta.address()) as busy, Client(mta.address()) as patient:
            idle.ehlo()
            patient.ehlo()
            busy.ehlo()
            busy.envelope("a@client.test", ["b@sink.test"])
            assert one(mta, "system", "drain") == {"level": "ok", "phase": "draining"}
            assert ready(mta) == (503, {"server": "draining"})
            status = one(mta, "system", "status")
            assert (status["phase"], status["sessions"], status["ready"]) == ("draining", 3, False)
            with Client(mta.address()) as new:
                assert new.greeting.code == 421
                assert new.at_end()
            assert idle.command("MAIL FROM:<a@client.test>").code == 421
            assert idle.at_end()
            # What has begun goes on, and out.
            busy.send(MESSAGE + b".\r\n")
            assert busy.reply().code == 250
            assert sink.wait_for(1, 30)[0].forward_paths == ("b@sink.test",)
            assert busy.command("MAIL FROM:<a@client.test>").code == 421
            assert one(mta, "system", "drain")["phase"] == "draining"
            assert one(mta, "system", "undrain")["phase"] == "running"
            assert ready(mta) == (200, {})
            assert patient.transaction("a@client.test", ["c@sink.test"], MESSAGE).code == 250
        sink.wait_for(2, 30)


def test_a_restart_ends_the_drain(make_mta: MakeMta, sink: Sink) -> None:
    mta = make_mta(relaying_to(sink.port, health={"endpoint": LOOPBACK}))
    with mta:
        one(mta, "system", "drain")
    with mta, Client(mta.address()) as client:
        assert one(mta, "system", "status")["phase"] == "running"
        client.ehlo()
        assert client.transaction("a@client.test", ["b@sink.test"], MESSAGE).code == 250


# Reload and the log.


def test_a_configuration_is_taken_or_refused_whole(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        text = mta.config.read_text()
        assert one(mta, "system", "reload") == {
            "level": "ok",
            "changed": [],
            "restart": [],
            "certificates": [],
            "warnings": [],
        }
        mta.config.write_text(text.replace('retry = "1s, 2s"', 'retry = "3s, 4s"').replace("mta.test", "other.test"))
        done = one(mta, "system", "reload")
        assert "relay.retry" in done["changed"]
        mta.config.write_text(text.replace('retry = "1s, 2s"', 'retry = "never"\nretri = "1s"'))
        problems = told(mta, "system", "reload", code=os.EX_CONFIG)
        assert sorted(each["key"] for each in problems) == ["relay.retri", "relay.retry"]
        assert {each["level"] for each in problems} == {"error"}
        assert all(each["file"] == str(mta.config) and each["reason"] for each in problems)
        shown = mtactl(mta, "system", "reload")
        assert shown.exit_code == os.EX_CONFIG
        assert f"{mta.config}: relay.retry: " in shown.stderr
        mta.config.unlink()
        assert told(mta, "system", "reload", code=os.EX_CONFIG)
        wait_until(lambda: len(audited(mta, "Reload")) == 5, 10, lambda: mta.log())
        assert [event["answer"]["outcome"] for event in audited(mta, "Reload")] == ["taken"] * 2 + ["refused"] * 3


def test_the_log_level(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        assert one(mta, "system", "log-level", "error") == {"level": "ok", "log_level": "error", "before": "info"}
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], MESSAGE).code == 250
        sink.wait_for(1, 30)
        assert one(mta, "system", "log-level", "info")["before"] == "error"
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["c@sink.test"], MESSAGE).code == 250
        wait_until(lambda: "accepted" in {each["event"] for each in mta.events()}, 30, lambda: mta.log())
        paths = [event["forward_paths"] for event in mta.events() if event["event"] == "accepted"]
        assert paths == [["c@sink.test"]]


# The DNS and routes.


def test_the_dns_and_mail_that_an_override_diverts(make_mta: MakeMta, sink: Sink, lab: DnsLab) -> None:
    route = {"domain": "*", "transport": "smtp", "tls": "none", "mx_port": sink.port, "mx_loopback": True}
    config = relaying_to(1, route=[route], dns={"servers": [lab.server], "timeout": "3s", "trust_ad": True})
    with make_mta(config) as mta:
        rows = told(mta, "dns", "lookup", "example.test")
        assert [(row["name"], row["type"], row["records"]) for row in rows] == [
            ("example.test", "MX", ["10 mx1.example.test.", "20 mx2.example.test."]),
            ("mx1.example.test", "AAAA", []),
            ("mx1.example.test", "A", ["127.0.0.2"]),
            ("mx2.example.test", "AAAA", []),
            ("mx2.example.test", "A", ["127.0.0.3"]),
        ]
        assert all(row["authentic"] and 0 < row["ttl"] <= 300 for row in rows if row["records"])
        assert one(mta, "dns", "lookup", "nobody.example.test")["outcome"] == "no such name"
        (bogus,) = told(mta, "dns", "lookup", "--type", "MX", "bogus.test", code=os.EX_TEMPFAIL)
        assert (bogus["outcome"], "SERVFAIL" in bogus["reason"]) == ("failed", True)
        listed = {(row["name"], row["type"]): row["outcome"] for row in told(mta, "dns", "list")}
        assert listed["mx1.example.test", "A"] == "records"
        assert listed["nobody.example.test", "MX"] == "no such name"
        assert listed["bogus.test", "MX"] == "failed"
        (way,) = one(mta, "route", "test", "you@example.test")["ways"]
        targets = [(each["preference"], each["host"], each["address"], each["port"]) for each in way["targets"]]
        assert targets == [
            (10, "mx1.example.test", "127.0.0.2", sink.port),
            (20, "mx2.example.test", "127.0.0.3", sink.port),
        ]
        (nowhere,) = one(mta, "route", "test", "you@null.example.test")["ways"]
        assert nowhere["reply"] == "556 5.1.10 null.example.test takes no mail (null MX)"

        one(mta, "dns", "override", "mx1.example.test", "127.0.0.1")
        (way,) = one(mta, "route", "test", "you@example.test")["ways"]
        assert (way["targets"][0]["host"], way["targets"][0]["address"]) == ("mx1.example.test", "127.0.0.1")
        one(mta, "system", "reload")
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("me@hosts.plain.test", ["you@example.test"], MESSAGE).code == 250
        assert sink.wait_for(1, 30)[0].forward_paths == ("you@example.test",)
        one(mta, "dns", "override", "mx1.example.test", "--remove")
        assert one(mta, "dns", "lookup", "--type", "A", "mx1.example.test")["records"] == ["127.0.0.2"]
        again = told(mta, "dns", "override", "mx1.example.test", "--remove", code=os.EX_DATAERR)
        assert "has no override" in again[0]["reason"]

        cleared = one(mta, "dns", "clear", "--everything")["cleared"]
        assert cleared >= 5
        assert told(mta, "dns", "list") == []
        for words in (("clear",), ("clear", "a.test", "--everything"), ("override", "a.test")):
            assert mtactl(mta, "dns", *words).exit_code == 2
        assert one(mta, "dns", "refresh", "--type", "A", "mx1.example.test")["records"] == ["127.0.0.2"]


def test_a_next_hop_that_is_left_alone(make_mta: MakeMta) -> None:
    with keep_port() as kept, make_mta(relaying_to(kept.getsockname()[1])) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], MESSAGE).code == 250

        def way() -> dict[str, Any]:
            return dict(one(mta, "route", "test", "b@sink.test")["ways"][0])

        wait_until(lambda: way()["failures"], 30, lambda: mta.log())
        assert "refused" in way()["trouble"]
        assert "in a row" in mtactl(mta, "route", "test", "b@sink.test").stdout
        assert one(mta, "system", "status")["destinations_down"] == 1


# Logins.


def guess(mta: Mta, user: str, count: int) -> None:
    for number in range(count):
        assert log_in(mta, user, f"guess {number}") == 535


def log_in(mta: Mta, user: str, password: str) -> int:
    host, port = mta.address("submission")
    with smtplib.SMTP(host, port, timeout=60) as client:
        client.ehlo()
        client.user, client.password = user, password
        try:
            return client.auth("PLAIN", client.auth_plain)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def test_locks_and_trials_at_a_directory(make_mta: MakeMta, tmp_path: Path) -> None:
    with Slapd(tmp_path) as ldap:
        settings = ldap.settings(offline_cache="1h")
        config = relaying_to(
            9,
            listen=LISTEN,
            auth={"backend": "ldap", "require_tls": False},
            health={"endpoint": LOOPBACK},
            **{"auth.ldap": settings},
        )
        with make_mta(config) as mta:
            assert told(mta, "auth", "locks") == []
            guess(mta, "user1", 5)
            (lock,) = told(mta, "auth", "locks")
            assert (lock["kind"], lock["user"], lock["address"]) == ("account", "user1", None)
            assert 0 < lock["left"] <= 1800
            assert one(mta, "system", "status")["locks"] == 1

            right = one(mta, "auth", "test", "user1", password="pw1\n")
            assert (right["outcome"], right["account"]) == ("let in", "user1")
            assert right["addresses"] == ["alias1@example.org", "user1@example.org"]
            assert [each["kind"] for each in right["locks"]] == ["account"], "it is named, and in nobody's way"
            assert log_in(mta, "user1", "pw1") == 535

            for user, password, reason in (
                ("user2", "wrong", "wrong password"),
                ("nobody", "wrong", "nobody has that name"),
                ("twin", PASSWORD, "several entries have that name"),
                ("off", PASSWORD, "the account is disabled"),
                ("locked", PASSWORD, "the account is locked"),
            ):
                refused = one(mta, "auth", "test", user, password=f"{password}\n", code=os.EX_NOPERM)
                assert (refused["outcome"], refused["reason"]) == ("refused", reason)
            for number in range(6):
                one(mta, "auth", "test", "user3", password=f"wrong {number}\n", code=os.EX_NOPERM)
            assert len(told(mta, "auth", "locks")) == 1, "a trial is no guess"
            wait_until(lambda: len(audited(mta, "AuthTest")) == 12, 10, lambda: mta.log())
            trials = audited(mta, "AuthTest")
            assert all(event["seconds"] >= 1 for event in trials if event["answer"]["outcome"] == "refused")
            assert {event["arguments"]["password"] for event in trials} == {"(hidden)"}
            assert "wrong 5" not in mta.log()
            assert mtactl(mta, "auth", "test", "user1", password="\n").exit_code == os.EX_DATAERR

            assert one(mta, "auth", "unlock", "USER1")["count"] == 1
            assert told(mta, "auth", "locks") == []
            assert log_in(mta, "user1", "pw1") == 235
            assert mtactl(mta, "auth", "unlock").exit_code == 2
            assert mtactl(mta, "auth", "unlock", "--address", "nowhere").exit_code == os.EX_DATAERR

            ldap.stop()
            away = one(mta, "auth", "test", "user1", password="pw1\n", code=os.EX_TEMPFAIL)
            assert (away["outcome"], away["account"]) == ("unavailable", None)
            assert ldap.uri in away["reason"], "what is remembered for an outage plays no part"
            (server,) = one(mta, "system", "status")["directory"]
            assert (server["server"], bool(server["trouble"])) == (ldap.uri, True)
            wait_until(lambda: ready(mta)[0] == 503, 40, lambda: mta.log())


def test_at_a_terminal_the_password_is_asked_for_and_not_shown(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    with make_mta(with_everything(sink, tmp_path / "users")) as mta:
        terminal = Terminal("--socket", mta.data_dir / SOCKET, "auth", "test", "alice")
        terminal.read_until(b"Password: ")
        terminal.type("secret\n")
        terminal.read_until(b"alice is let in as alice")
        assert b"secret" not in terminal.shown
        assert terminal.end() == 0


def test_the_status_of_a_server_whose_collector_is_away(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    config = relaying_to(sink.port, metrics={"endpoint": "http://127.0.0.1:9/v1/metrics", "interval": "1s"})
    with make_mta(config) as mta:
        wait_until(lambda: one(mta, "system", "status")["collector"]["failures"], 40, lambda: mta.log())
        status = one(mta, "system", "status")
        assert status["collector"]["reason"]
        assert [each["role"] for each in status["listeners"]] == ["mx"]
        assert status["listeners"][0]["port"] == mta.address()[1]
        assert status["spool"]["room"]
        assert status["spool"]["free"] > 0
        assert status["queue"] == {"pending": 0, "deferred": 0, "held": 0, "due": 0, "oldest": None}
        shown = mtactl(mta, "system", "status").stdout
        assert "metrics: http://127.0.0.1:9/v1/metrics does not get them: " in shown
        assert f"process {status['pid']}" in shown
        assert "queue: 0 pending, 0 deferred, 0 held, 0 due" in shown
