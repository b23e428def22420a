"""A server that runs is told to take its configuration again: SIGHUP, real listeners, next hops and directories."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from passlib import hash as passlib
from rigs import certificates
from rigs.certificates import Authority
from rigs.client import Client
from rigs.collector import PATH, FakeCollector
from rigs.control import mtactl, refusal, told
from rigs.mta import Config, Mta, relaying_to, toml
from rigs.processes import wait_until
from rigs.sink import Sink
from rigs.slapd import GROUPS, Slapd, user_dn

MakeMta = Callable[..., Mta]

BODY = b"Subject: x\r\n\r\nhello\r\n"
QUICK = passlib.ldap_salted_sha512
SUBMISSION = [
    {"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx", "tls": "none"},
    {"endpoint": "tcp:0:interface=127.0.0.2", "role": "submission", "tls": "none"},
]


def events(mta: Mta, *names: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] in names]


def outcomes(mta: Mta) -> list[dict[str, Any]]:
    """What came of each time; of a file with several things wrong there are several."""
    return events(mta, "reload", "reload_refused")


def write(mta: Mta, config: Config) -> None:
    """Another file in the place of the one that is there."""
    new = mta.config.with_suffix(".new")
    new.write_text(toml({**config, "server": {**config["server"], "data_dir": str(mta.data_dir)}}))
    os.replace(new, mta.config)


def hang_up(mta: Mta) -> dict[str, Any]:
    """SIGHUP; what came of it."""
    before = len(outcomes(mta))
    mta.process.signal(signal.SIGHUP)
    wait_until(lambda: len(outcomes(mta)) > before, 60, lambda: f"it says nothing: {mta.log()[-2000:]}")
    return outcomes(mta)[before]


def change(mta: Mta, config: Config) -> dict[str, Any]:
    """The configuration becomes this one, all of it; the keys that changed."""
    write(mta, config)
    said = hang_up(mta)
    assert said["event"] == "reload", said
    return said


def send(mta: Mta, *to: str) -> str:
    """The reply to a message, or to the last recipient."""
    with Client(mta.address()) as client:
        client.ehlo()
        client.expect(250, "MAIL FROM:<a@client.test>")
        for address in to:
            reply = client.command(f"RCPT TO:<{address}>")
            if reply.code != 250:
                return str(reply)
        client.expect(354, "DATA")
        return str(client.command(BODY + b"."))


class Crowd:
    """Sessions that send one message after the other; every reply has to be the right one."""

    def __init__(self, mta: Mta, sessions: int) -> None:
        self.accepted = 0
        self.trouble: list[str] = []
        self._mta = mta
        self._leave = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(sessions)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        try:
            with Client(self._mta.address()) as client:
                client.ehlo()
                sent = 0
                while not self._leave.is_set():
                    content = f"X-Ledger-Id: {number}-{sent}\r\n\r\nhello\r\n".encode()
                    reply = client.transaction("a@client.test", ["b@sink.test"], content)
                    assert reply.code == 250, str(reply)
                    sent += 1
                    with self._lock:
                        self.accepted += 1
        except Exception as error:
            self.trouble.append(repr(error))

    def go_on(self, messages: int) -> None:
        """Wait until so many more are accepted."""
        until = self.accepted + messages
        wait_until(lambda: self.trouble or self.accepted >= until, 60, "sessions go on")
        assert not self.trouble

    def leave(self) -> int:
        """How many messages were accepted in all."""
        self._leave.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.trouble
        return self.accepted


def test_changes_under_load_cost_no_session_and_no_message(make_mta: MakeMta, sink: Sink) -> None:
    token = {"name": "ops", "role": "admin", "sha256": hashlib.sha256(b"open sesame").hexdigest()}
    with Sink() as other, make_mta(relaying_to(sink.port)) as mta:
        crowd = Crowd(mta, 4)
        crowd.go_on(20)
        for number in range(6):
            port = (other, sink)[number % 2].port
            config = relaying_to(
                port,
                relay={"domains": [f"d{number}.test"], "retry": f"{number + 1}s, 3s", "connections": 20 + number},
                limits={"connections": 100 + number, "recipients": 10 + number},
                dns={"timeout": f"{5 + number}s"},
                timeouts={"command": f"{60 + number}s"},
                **({"control.token": [token]} if number % 2 else {}),
            )
            said = change(mta, config)
            assert {"route[0].next_hop", "limits.recipients", "relay.retry"} <= set(said["changed"])
            assert said["restart"] == []
            assert send(mta, f"x@d{number}.test").startswith("250")
            crowd.go_on(20)
        accepted = crowd.leave()
        wait_until(lambda: mta.queued() == 0, 60, "the queue is empty")
        came = [arrival.ledger_id for each in (sink, other) for arrival in each.arrivals if arrival.ledger_id]
        assert len(came) == len(set(came)) == accepted
        assert len(other.arrivals) > 20
        assert mtactl(mta, "system", "ping").returncode != 0, "it has no token"
        assert mtactl(mta, "system", "ping", token="open sesame").returncode == 0


def test_what_waits_goes_the_new_way(make_mta: MakeMta, sink: Sink) -> None:
    """A next hop that is silent has mail on its connections, and more of it waiting for them."""
    with Sink() as dead, make_mta(relaying_to(sink.port)) as mta:
        dead.go_down()
        change(mta, relaying_to(dead.port, relay={"retry": "1s"}))
        for number in range(5):
            assert send(mta, f"{number}@sink.test").startswith("250")
        wait_until(lambda: events(mta, "deferred"), 30, "it is tried")
        change(mta, relaying_to(sink.port, relay={"retry": "1s"}))
        sink.wait_for(5)
        wait_until(lambda: mta.queued() == 0, 30, "the queue is empty")


WRONG: dict[str, tuple[Callable[[Mta], None], str, str]] = {
    "a value": (lambda mta: write(mta, relaying_to(1, limits={"recipients": 0})), "limits.recipients", "at least 1"),
    "a key": (lambda mta: write(mta, relaying_to(1, relay={"domain": ["a.test"]})), "relay.domain", "domains"),
    "no TOML": (lambda mta: mta.config.write_text("[relay"), "", "not valid TOML"),
    "no file": (lambda mta: mta.config.unlink(), "", "no such file"),
    "a directory": (lambda mta: (mta.config.unlink(), mta.config.mkdir())[1], "", "cannot be read"),
    "another file": (
        lambda mta: write(mta, relaying_to(1, relay={"aliases": "/nowhere/aliases"})),
        "relay.aliases",
        "/nowhere/aliases",
    ),
    "authorities": (
        lambda mta: write(mta, relaying_to(1, metrics={"endpoint": "https://a.test/v1", "ca_file": "/nowhere/ca"})),
        "metrics.ca_file",
        "/nowhere/ca",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_changes_nothing(make_mta: MakeMta, sink: Sink, what: str) -> None:
    spoil, key, reason = WRONG[what]
    config = relaying_to(sink.port, limits={"recipients": 1})
    with make_mta(config) as mta:
        spoil(mta)
        said = hang_up(mta)
        assert said["event"] == "reload_refused"
        assert (said["file"], said["key"]) == (str(mta.config), key)
        assert reason in said["reason"]
        assert send(mta, "a@sink.test", "b@sink.test").startswith("452 4.5.3")
        assert send(mta, "a@sink.test").startswith("250")
        sink.wait_for(1)
        if mta.config.is_dir():
            mta.config.rmdir()
        config["limits"]["recipients"] = 2
        assert change(mta, config)["changed"] == ["limits.recipients"]
        assert send(mta, "a@sink.test", "b@sink.test").startswith("250")


def test_a_file_that_may_not_be_read(make_mta: MakeMta, sink: Sink) -> None:
    """The server has given its privileges away, and the file is root's alone."""
    if os.geteuid() != 0:
        pytest.fail("only root can give privileges away")
    mta = make_mta(relaying_to(sink.port), options=("--uid", "65534", "--gid", "65534"))
    for directory in (mta.directory, *mta.directory.parents):
        if directory.stat().st_uid == 0 and "pytest" in str(directory):
            directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
    mta.data_dir.mkdir()
    shutil.chown(mta.data_dir, 65534, 65534)
    with mta:
        mta.config.chmod(0o600)
        said = hang_up(mta)
        assert (said["event"], said["key"]) == ("reload_refused", "")
        assert "Permission denied" in said["reason"]
        assert send(mta, "a@sink.test").startswith("250")
        sink.wait_for(1)


def test_what_takes_a_restart_is_named_and_stays(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    config = relaying_to(sink.port, spool={"ballast": "64KiB"})
    with make_mta(config) as mta:
        address = mta.address()
        files = set(mta.data_dir.iterdir())
        moved = {
            **config,
            "server": {**config["server"], "data_dir": str(tmp_path / "other")},
            "listen": [*config["listen"], {"endpoint": "tcp:0:interface=127.0.0.2", "role": "mx"}],
            "spool": {"ballast": "128KiB", "minimum_free": "1MiB"},
            "control": {"socket": "other.sock", "mode": "0660", "group": "root"},
            "health": {"endpoint": "tcp:0:interface=127.0.0.1", "queue_limit": 7},
            "limits": {"recipients": 1},
        }
        mta.config.write_text(toml(moved))
        said = hang_up(mta)
        assert said["restart"] == [
            "server.data_dir",
            "listen",
            "spool.minimum_free",
            "spool.ballast",
            "control.socket",
            "control.mode",
            "control.group",
            "health.endpoint",
        ]
        assert {"limits.recipients", "health.queue_limit"} <= set(said["changed"])
        assert not set(said["changed"]) & set(said["restart"])
        assert mta.address() == address
        assert send(mta, "a@sink.test", "b@sink.test").startswith("452")
        assert send(mta, "a@sink.test").startswith("250")
        assert not (tmp_path / "other").exists()
        assert {path.name for path in files} <= {path.name for path in mta.data_dir.iterdir()}
        assert (mta.data_dir / "ballast").stat().st_size == 64 * 1024
        assert stat.S_IMODE((mta.data_dir / "control.sock").stat().st_mode) == 0o600
        # It is named each time, as long as it is so.
        assert hang_up(mta)["restart"] == said["restart"]
        assert outcomes(mta)[-1]["changed"] == []


def test_what_only_goes_with_a_restart_is_refused(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """Without certificates the listeners can't have the TLS that they have until then."""
    files = certificates.make(tmp_path)
    listen = {"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx", "tls": "starttls"}
    tls = {"certificate": str(files.certificate), "private_key": str(files.key)}
    with make_mta(relaying_to(sink.port, listen=[listen], tls=tls)) as mta:
        write(mta, relaying_to(sink.port, limits={"recipients": 1}))
        said = hang_up(mta)
        assert (said["event"], said["key"]) == ("reload_refused", "listen[0].tls")
        assert "restart" in said["reason"]
        assert send(mta, "a@sink.test", "b@sink.test").startswith("250")
        with Client(mta.address()) as client:
            assert "STARTTLS" in client.ehlo().text


def log_in(mta: Mta, user: str, secret: str, *then: str) -> int:
    """The code of the reply to a login, or to the last of the commands after it."""
    with Client(mta.address("submission")) as client:
        client.ehlo()
        plain = base64.b64encode(f"\0{user}\0{secret}".encode()).decode()
        code = client.command(f"AUTH PLAIN {plain}").code
        for command in then:
            code = client.command(command).code
        return code


def users(path: Path, **passwords: str) -> str:
    path.write_text("".join(f"{name}:{QUICK.hash(secret)}\n" for name, secret in passwords.items()))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def ldap(tmp_path: Path) -> Iterator[Slapd]:
    with Slapd(tmp_path) as it:
        yield it


def with_users(
    port: int, ldap: dict[str, Any] | None = None, lockout: dict[str, Any] | None = None, **auth: Any
) -> Config:
    return relaying_to(
        port,
        listen=SUBMISSION,
        relay={"networks": [], "domains": ["example.org"]},
        auth={"require_tls": False, **auth},
        **{"auth.ldap": ldap or {}, "auth.lockout": lockout or {}},
    )


def test_users_of_another_file_and_of_a_directory(make_mta: MakeMta, ldap: Slapd, tmp_path: Path) -> None:
    one, two = users(tmp_path / "one", alice="first"), users(tmp_path / "two", alice="second")
    with make_mta(with_users(9, file=one)) as mta:
        assert log_in(mta, "alice", "first") == 235
        with Client(mta.address("submission")) as open_before:
            open_before.ehlo()
            assert change(mta, with_users(9, file=two))["changed"] == ["auth.file"]
            assert log_in(mta, "alice", "second") == 235
            assert log_in(mta, "alice", "first") == 535
            assert change(mta, with_users(9, ldap.settings(), backend="ldap", file=two))["changed"][0] == "auth.backend"
            assert log_in(mta, "user1", "pw1") == 235
            assert log_in(mta, "alice", "second") == 535
            plain = base64.b64encode(b"\0user2\0pw2").decode()
            open_before.expect(235, f"AUTH PLAIN {plain}")
        write(mta, with_users(9, file=str(tmp_path / "none")))
        (tmp_path / "none").write_text("nonsense\n")
        said = hang_up(mta)
        assert (said["event"], said["key"]) == ("reload_refused", "auth.file")
        assert log_in(mta, "user1", "pw1") == 235
        change(mta, with_users(9, file=one))
        assert log_in(mta, "alice", "first") == 235


def test_other_thresholds_and_the_same_counts(make_mta: MakeMta, tmp_path: Path) -> None:
    file = users(tmp_path / "users", alice="right", bob="right", carol="right")
    with make_mta(with_users(9, lockout={"threshold": 4}, file=file)) as mta:
        assert [log_in(mta, "alice", f"wrong{number}") for number in range(2)] == [535, 535]
        # Two were counted before, and this is the third.
        change(mta, with_users(9, lockout={"threshold": 3, "duration": "1h"}, file=file))
        assert log_in(mta, "alice", "wrong3") == 535
        (locked,) = events(mta, "login_locked")
        assert (locked["user"], round(locked["seconds"])) == ("alice", 3600)
        # The lock survives what would not have set it.
        change(mta, with_users(9, lockout={"threshold": 10, "window": "1s"}, file=file))
        assert log_in(mta, "alice", "right") == 535
        assert log_in(mta, "bob", "right") == 235
        change(mta, with_users(9, lockout={"threshold": 1, "address_threshold": 1, "duration": "2h"}, file=file))
        assert log_in(mta, "nobody", "wrong") == 535
        last = events(mta, "login_locked")[-1]
        assert (last["kind"], round(last["seconds"])) == ("address", 7200)
        assert log_in(mta, "carol", "right") == 535


SALES = ["sales@example.org"]
MEMBERS = ["user1@example.org", "user2@example.org"]


def test_the_directory_of_another_configuration(make_mta: MakeMta, ldap: Slapd, tmp_path: Path, sink: Sink) -> None:
    """Each key, from what works to what does not and back, or the other way round."""
    stranger = certificates.make(tmp_path)
    group = "(&(objectClass=groupOfNames)(member={dn}))"
    sender = "MAIL FROM:<{}@example.org>".format

    mail = "(&(objectClass=groupOfNames)(mail={address}))"

    def receivers(mta: Mta, address: str) -> list[str]:
        sink.arrivals.clear()
        assert send(mta, address).startswith("250")
        wait_until(lambda: mta.queued() == 0, 30, "the queue is empty")
        return sorted(path for arrival in sink.arrivals for path in arrival.forward_paths)

    def asks(mta: Mta, address: str) -> str:
        return send(mta, address)[:3]

    known = {"recipient_filter": "(mail={address})"}
    as_it_is = ldap.settings(**known)

    def user1(mta: Mta) -> int:
        return log_in(mta, "user1", "pw1")

    cases: list[tuple[dict[str, Any], Callable[[Mta], Any], Any, Any]] = [
        ({"uris": ["ldap://127.0.0.1:1"]}, user1, 235, 454),
        ({"ca_file": str(stranger.authority)}, user1, 235, 454),
        ({"ca_file": str(stranger.authority), "start_tls": False}, user1, 235, 235),
        ({"bind_password": "wrong"}, user1, 235, 454),
        ({"bind_dn": user_dn("user3"), "bind_password": "pw3"}, lambda mta: user1(mta) == 235, True, False),
        ({"base_dn": GROUPS}, user1, 235, 535),
        ({"user_filter": "(mail={user})"}, lambda mta: log_in(mta, "alias2@example.org", "pw2"), 535, 235),
        ({"address_attributes": ["cn"]}, lambda mta: log_in(mta, "user3", "pw3", sender("user3")), 250, 553),
        ({"group_filter": group}, lambda mta: log_in(mta, "user1", "pw1", sender("sales")), 553, 250),
        ({"recipient_filter": "(cn={local})"}, lambda mta: asks(mta, "alias4@example.org"), "250", "550"),
        ({"alias_filter": mail}, lambda mta: receivers(mta, "sales@example.org"), SALES, MEMBERS),
        (
            {"alias_filter": mail, "member_filter": "(&(entryDN={dn})(uid=user2))"},
            lambda mta: receivers(mta, "sales@example.org"),
            SALES,
            MEMBERS[1:],
        ),
        (
            {"alias_filter": mail, "alias_attributes": ["cn"], "member_attributes": ["uid"]},
            lambda mta: receivers(mta, "sales@example.org"),
            SALES,
            SALES,
        ),
    ]
    with make_mta(with_users(sink.port, as_it_is, backend="ldap")) as mta:
        for settings, look, before, after in cases:
            assert look(mta) == before, settings
            said = change(mta, with_users(sink.port, {**as_it_is, **settings}, backend="ldap"))
            assert set(said["changed"]) == {f"auth.ldap.{key}" for key in settings}
            assert look(mta) == after, settings
            change(mta, with_users(sink.port, as_it_is, backend="ldap"))
        assert log_in(mta, "user1", "pw1") == 235


def test_a_route_to_somewhere_else(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    config = relaying_to(sink.port)
    with make_mta(config) as mta:
        assert send(mta, "a@sink.test").startswith("250")
        sink.wait_for(1)
        box = tmp_path / "boxes"
        maildir = [{"domain": "*", "transport": "maildir", "next_hop": f"{box}/{{local}}"}]
        for _ in range(2):
            change(mta, {**config, "route": maildir})
            assert send(mta, "b@sink.test").startswith("250")
            wait_until(lambda: mta.queued() == 0, 30, "it is delivered")
            change(mta, config)
        assert len(list((box / "b" / "new").iterdir())) == 2
        assert send(mta, "c@sink.test").startswith("250")
        assert [each.forward_paths for each in sink.wait_for(2)] == [("a@sink.test",), ("c@sink.test",)]


def test_another_collector(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """With other authorities, too, be they in another file or in the same one."""
    right, wrong = Authority(tmp_path / "right.pem"), Authority(tmp_path / "wrong.pem")
    files = right.issue(tmp_path, "localhost", name="collector")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with FakeCollector() as open_to_all, FakeCollector(context=context) as secure:
        url = f"https://localhost:{secure.port}{PATH}"

        def pushing(**metrics: Any) -> Config:
            return relaying_to(sink.port, metrics={"interval": "1s", **metrics})

        with make_mta(pushing(endpoint=url, ca_file=str(wrong.file))) as mta:
            wait_until(lambda: events(mta, "metrics_push_failed"), 30, "it is not the one that is meant")
            change(mta, pushing(endpoint=open_to_all.url))
            wait_until(lambda: len(open_to_all.pushes) >= 2, 30, "it is pushed to")
            assert not secure.pushes
            change(mta, pushing(endpoint=url, ca_file=str(right.file)))
            wait_until(lambda: len(secure.pushes) >= 2, 30, "it is pushed to")
            change(mta, pushing(endpoint=url, ca_file=str(wrong.file)))
            wait_until(lambda: len(events(mta, "metrics_push_failed")) == 2, 30, "it is not the one that is meant")
            came = len(secure.pushes)
            shutil.copy(right.file, wrong.file)
            assert hang_up(mta)["changed"] == []
            wait_until(lambda: len(secure.pushes) > came, 30, "it is pushed to")
            assert change(mta, relaying_to(sink.port))["changed"] == [
                "metrics.endpoint",
                "metrics.interval",
                "metrics.ca_file",
            ]


def test_an_administrator_hears_what_came_of_it(make_mta: MakeMta, sink: Sink) -> None:
    config = relaying_to(sink.port)
    with make_mta(config) as mta:
        write(mta, {**config, "limits": {"recipients": 3}, "spool": {"ballast": "1MiB"}})
        (answer,) = told(mta, "system", "reload")
        assert "limits.recipients" in answer["changed"]
        assert answer["restart"] == ["spool.ballast"]
        write(mta, {**config, "limits": {"recipients": 0, "hops": 0}})
        code, why = refusal(mta, "system", "reload")
        assert code == 78
        assert f"{mta.config}: limits.recipients: " in why
        assert f"{mta.config}: limits.hops: " in why


def test_the_log(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:

        def said(word: str) -> None:
            wait_until(lambda: word in mta.log(), 30, lambda: f"{word} in {mta.log()[-1000:]}")

        write(mta, relaying_to(sink.port, log={"format": "text"}))
        mta.process.signal(signal.SIGHUP)
        said("Z reload changed=")
        assert send(mta, "hannah@sink.test").startswith("250")
        said("Z accepted ")
        said("hannah@sink.test")
        write(mta, relaying_to(sink.port, log={"format": "json", "redact": True}))
        assert hang_up(mta)["changed"] == ["log.format", "log.redact"]
        assert send(mta, "ottokar@sink.test").startswith("250")
        wait_until(lambda: events(mta, "delivered"), 30, "it is delivered")
        assert "ottokar" not in mta.log()
        accepted = len(events(mta, "accepted"))
        write(mta, relaying_to(sink.port, log={"format": "json", "level": "error"}))
        mta.process.signal(signal.SIGHUP)
        wait_until(lambda: (send(mta, "bob@sink.test"), len(events(mta, "accepted")))[1] >= accepted, 30, "it goes on")
        write(mta, relaying_to(sink.port, log={"format": "json", "level": "info"}))
        mta.process.signal(signal.SIGHUP)
        wait_until(lambda: "log.level" in events(mta, "reload")[-1]["changed"], 30, "it says so again")


def test_many_signals_are_taken_one_after_the_other(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port, limits={"recipients": 1})) as mta:
        for _ in range(200):
            mta.process.signal(signal.SIGHUP)
        change(mta, relaying_to(sink.port, limits={"recipients": 2}))
        wait_until(lambda: any(each["changed"] for each in events(mta, "reload")), 30, "the last one is heard")
        assert send(mta, "a@sink.test", "b@sink.test").startswith("250")
        assert len(outcomes(mta)) <= 201


def test_a_server_that_stops_changes_nothing_more(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as mta:
        assert send(mta, "a@sink.test").startswith("250")
        sink.wait_for(1)
        write(mta, relaying_to(sink.port, limits={"recipients": 2}))
        mta.process.signal(signal.SIGHUP)
        mta.process.signal(signal.SIGTERM)
        mta.process.signal(signal.SIGHUP)
        assert mta.ended_well()


def connections_to(port: int) -> int:
    """How many there are on this machine, to this port of 127.0.0.1."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2] == f"0100007F:{port:04X}" and fields[3] == "01" for fields in lines)


def test_a_directory_is_asked_more_at_once_and_remembered(make_mta: MakeMta, ldap: Slapd, sink: Sink) -> None:
    known = ldap.settings(recipient_filter="(mail={address})", connections=1)
    with make_mta(with_users(sink.port, known, backend="ldap")) as mta:
        assert send(mta, "user1@example.org").startswith("250")
        # A login that was right is remembered when that is wanted, and until it is wanted no more.
        known |= {"offline_cache": "1h"}
        assert change(mta, with_users(sink.port, known, backend="ldap"))["changed"] == ["auth.ldap.offline_cache"]
        assert log_in(mta, "user1", "pw1") == 235
        ldap.stop()
        wait_until(lambda: log_in(mta, "user1", "pw1") == 235, 30, "it is remembered")
        known |= {"offline_cache": "0s"}
        change(mta, with_users(sink.port, known, backend="ldap"))
        assert log_in(mta, "user1", "pw1") == 454
        ldap.start()
        wait_until(lambda: log_in(mta, "user1", "pw1") == 235, 30, "it is back")
        # One connection for logins before, and four now.
        known |= {"connections": 4}
        del known["recipient_filter"]
        change(mta, with_users(sink.port, known, backend="ldap"))
        before = connections_to(ldap.port)
        ldap.hang()
        threads = [threading.Thread(target=log_in, args=(mta, f"user{n}", f"pw{n}")) for n in range(4)]
        for thread in threads:
            thread.start()
        # A probe has left one, which is taken.
        wait_until(lambda: connections_to(ldap.port) >= before + 3, 30, "four are asked about at the same time")
        ldap.go_on()
        for thread in threads:
            thread.join(60)
