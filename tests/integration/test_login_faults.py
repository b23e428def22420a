"""What is wrong with logins, and meant badly, over real listeners, by a directory's people and by those of a file.

Nobody gets in, nobody else is asked about, and the log has an event for it: no traceback (the fixture looks for those)
and no password.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from passlib import hash as passlib
from rigs.client import Client, Disconnected, Reply
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.slapd import PASSWORD, SERVICE_DN, Slapd, user_dn

WRONG = "535 5.7.8 Authentication credentials invalid"
LATER = "454 4.7.0"
USERS = {"user1": "pw1", "user2": "pw2", "zoë": PASSWORD}
LOG_LINE = 4096
"""Octets of an event, whatever a name was."""


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("directory")) as ldap:
        yield ldap


class Rig:
    """A server with a backend, and two listeners for the users of it."""

    def __init__(self, backend: str, directory: Path, ldap: Slapd) -> None:
        self.backend = backend
        self.ldap = ldap
        files = ldap.authority.issue(directory, "mta.test", addresses=("127.0.0.1", "127.0.0.2"))
        config = relaying_to(
            1,
            listen=[
                {"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "starttls"},
                {"endpoint": "tcp:0:interface=127.0.0.2", "role": "submission", "tls": "implicit"},
            ],
            tls={"certificate": str(files.certificate), "private_key": str(files.key)},
            relay={"networks": [], "domains": ["example.org"]},
            auth={"backend": backend, "failures": 1000},
            # What is shown here is not the lockout; it would answer most of it.
            **{"auth.lockout": {"threshold": 1000, "address_threshold": 1000}},
        )
        if backend == "ldap":
            config["auth.ldap"] = ldap.settings()
        self.mta = Mta(directory, config, forked=True)
        self._earlier = 0
        self.users = self.mta.data_dir / "users"
        self.mta.data_dir.mkdir()
        self.write(USERS)

    def write(self, passwords: dict[str, str]) -> None:
        quick = passlib.ldap_salted_sha512
        new = self.users.with_suffix(".new")
        new.write_text("".join(f"{name}:{quick.hash(secret)}\n" for name, secret in passwords.items()))
        new.chmod(0o600)
        new.replace(self.users)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ldap.ca_file)

    def connect(self) -> Client:
        """A session in TLS, greeted."""
        client = Client(self.mta.address("submission", 1), context=self.trust)
        client.ehlo()
        return client

    def login(self, name: str | bytes, secret: str | bytes) -> str:
        with self.connect() as client:
            return str(client.command(plain(name, secret)))

    def begin(self) -> None:
        """A test begins: what was before is not its matter."""
        self._earlier = len(list(self.mta.events()))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in list(self.mta.events())[self._earlier :] if event["event"] == name]

    def logged(self, name: str, count: int) -> list[dict[str, Any]]:
        """The events of this name, once there are so many; events may wait a moment for others."""
        wait_until(lambda: len(self.events(name)) >= count, 10, lambda: f"{count} times {name}: {self.mta.log()}")
        return self.events(name)


@pytest.fixture(scope="module", params=["file", "ldap"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, slapd: Slapd) -> Iterator[Rig]:
    made = Rig(request.param, tmp_path_factory.mktemp(request.param), slapd)
    with made.mta:
        yield made
    assert made.mta.complaints() == []


@pytest.fixture
def rig(running: Rig) -> Rig:
    """One for each backend, that goes on from test to test: whatever they say to it, it has to."""
    running.begin()
    return running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[str, Slapd], Rig]]:
    """Start one for this test alone."""
    with contextlib.ExitStack() as ending:

        def start(backend: str, ldap: Slapd) -> Rig:
            made = Rig(backend, tmp_path, ldap)
            ending.enter_context(made.mta)
            return made

        yield start


Own = Callable[[str, Slapd], Rig]


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def encoded(text: str | bytes) -> str:
    return base64.b64encode(octets(text)).decode()


def plain(name: str | bytes, secret: str | bytes) -> str:
    return "AUTH PLAIN " + encoded(b"\0" + octets(name) + b"\0" + octets(secret))


def by_parts(client: Client, mechanism: str, name: str | bytes, secret: str | bytes) -> Callable[[], Reply]:
    """A login in which each part comes when it is asked for; what is given waits for the reply that ends it."""
    parts = [name, secret] if mechanism == "LOGIN" else [b"\0" + octets(name) + b"\0" + octets(secret)]
    reply = client.expect(334, f"AUTH {mechanism}")
    for part in parts[:-1]:
        reply = client.command(encoded(part))
    if reply.code != 334:
        return lambda: reply
    client.send(encoded(parts[-1]).encode() + b"\r\n")
    return client.reply


def refused_all(rig: Rig, mechanism: str, logins: Mapping[str, tuple[str | bytes, str | bytes]]) -> None:
    """These logins, all at once, each in a session of its own that goes on well."""
    sessions = {what: rig.connect() for what in logins}
    pending = {what: by_parts(client, mechanism, *logins[what]) for what, client in sessions.items()}
    for what, answer in pending.items():
        reply = answer()
        too_long = max(map(len, map(octets, logins[what]))) > 8000
        assert str(reply) == WRONG or reply.code == (500 if too_long else 501), f"{what}: {reply}"
        with sessions[what] as client:
            assert client.command("NOOP").code == 250, what


def looks_whole(rig: Rig) -> None:
    """The server is as it was, and so is its log."""
    with rig.connect() as client:
        assert client.command(plain("user1", "pw1")).code == 235
    wait_until(lambda: any(event["user"] == "user1" for event in rig.events("login")), 10, "the log has it")
    for line in rig.mta.process.stdout.read_bytes().split(b"\n"):
        assert len(line) < LOG_LINE, line[:200]
    assert rig.mta.complaints() == []
    for name in ("checker_failed", "checker_crashed", "users_check_failed"):
        assert rig.events(name) == []


NAMES: dict[str, str | bytes] = {
    "all": "*",
    "filter, closed and opened": "*)(uid=*",
    "filter, another attribute": "admin)(|(password=*",
    "filter, one more term": "user1)(objectClass=*",
    "filter, always true": "*)(|(objectClass=*)",
    "filter, escapes": "\\2a\\29\\28uid=\\2a",
    "filter, a lone backslash": "user1\\",
    "filter, negated": "!(uid=x)",
    "DN": "uid=user1,ou=people,dc=example,dc=org",
    "DN, the service's": SERVICE_DN,
    "DN, multi-valued": "user1+cn=user1",
    "DN, hexadecimal": "#0405",
    "NUL": "user1\0",
    "NUL, and on": "user1\0admin",
    "NUL, first": "\0user1",
    "line of the file": "user1:{PLAIN}pw1:a@example.org",
    "line feed": "user1\nuser2",
    "carriage return": "user1\r\nMAIL FROM:<>",
    "comment": "#",
    "colon": ":",
    "log event": '"}\n{"event":"login","user":"root"}',
    "terminal": "\x1b]0;owned\x07user1",
    "format": "{user}%s%(x)s{0.__class__}",
    "path": "../../etc/passwd",
    "space": "user1 ",
    "no-break space": "user1\xa0",
    "zero width": "us\u200ber1",
    "right to left": "\u202euser1",
    "fullwidth": "\uff55\uff53\uff45\uff52\uff11\u200d",
    "combining marks": "us\u0308er1",
    "only a combining mark": "\u0301",
    "very many combining marks": "e" + "\u0301" * 500,
    "non-character": "user1\uffff",
    "private use": "user1\ue000",
    "unassigned": "user1\U000e0fff",
    "surrogate": b"user1\xed\xa0\x80",
    "Latin-1": b"us\xe9r1",
    "overlong slash": b"user1\xc0\xaf",
    "no UTF-8": bytes(range(128, 256)),
    "8 kB": "u" * 8192,
    "64 kB": "u" * 65536,
    "64 kB of stars": "*" * 65536,
    "64 kB of three octets": "\u20ac" * 21845,
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_names_that_are_meant_badly(rig: Rig, mechanism: str) -> None:
    """None is anybody. A directory sees each, if at all, as one value; a log line holds no more than its event."""
    searches = len(rig.ldap.searches())
    binds = len(rig.ldap.binds())
    refused_all(rig, mechanism, {what: (name, "pw1") for what, name in NAMES.items()})
    looks_whole(rig)
    assert [event["user"] for event in rig.events("login")] == ["user1"]
    refused = [event for event in rig.events("login_refused") if len(event["user"]) > 300]
    assert refused == []
    # One value, in which all that means something in a filter is escaped (RFC 4515 §3).
    term = re.compile(r"\(&\(objectClass=inetOrgPerson\)\(uid=(?:[^()*\\\0]|\\[0-9A-Fa-f]{2})*\)\)")
    for search in rig.ldap.searches()[searches:]:
        assert term.fullmatch(search.filter), search.filter
    assert set(rig.ldap.binds()[binds:]) <= {SERVICE_DN, user_dn("user1")}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_passwords_that_are_meant_badly(rig: Rig, mechanism: str) -> None:
    refused_all(rig, mechanism, {what: ("user2", secret) for what, secret in NAMES.items()})
    looks_whole(rig)


@pytest.mark.parametrize("name", ["zoë", "zoe\u0308", "ZOË", "ZOE\u0308", "\uff3a\uff4fë"])
def test_a_name_is_the_same_however_it_is_written(rig: Rig, name: str) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        with rig.connect() as client:
            assert by_parts(client, mechanism, name, PASSWORD)().code == 235
    assert {event["user"] for event in rig.logged("login", 2)} == {"zoë"}


def any_octets(rig: Rig, seed: str) -> None:
    """Some fifty logins of octets by chance, in a session that is begun anew whenever one of them ends it."""
    chance = random.Random(seed)
    alphabet = [b"\0", b"user1", b"pw1", b"*", b"(", b")", b"\\", b"=", b"\xff", b"\xcc\x81", "ë".encode(), b" ", b"\r"]
    client = rig.connect()
    for _ in range(50):
        raw = b"".join(chance.choices(alphabet, k=chance.randrange(8)))
        response = chance.choice(
            [base64.b64encode(raw), raw.replace(b"\r", b""), b"=", b"*", base64.b64encode(raw)[:-1]]
        )
        line = b"AUTH " + chance.choice([b"PLAIN ", b"LOGIN ", b"plain  ", b"PLAIN\t", b"", b"X "]) + response
        try:
            reply = client.command(line)
            for _ in range(3):
                if reply.code == 334:
                    reply = client.command(chance.choice([response, b"*", b""]))
            assert reply.code in (235, 421, 500, 501, 503, 504, 535), (line, str(reply))
        except Disconnected:
            # The 421 had been said as well.
            reply = Reply(421, [])
        if reply.code in (235, 421):
            client.close()
            client = rig.connect()
    client.close()


def test_any_octets_for_a_login(rig: Rig) -> None:
    """Whatever a client says in place of a login, it gets a reply, or is cut off with a word, and others are served.

    Several at once: what is refused takes half a second and more, and none of them is in another's way.
    """
    seed = os.environ.get("MTATWIST_SEED", "4")
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(any_octets, rig, f"{seed}-{number}") for number in range(6)]:
            done.result()
    looks_whole(rig)


def test_a_wrong_password_is_an_event_and_no_more(rig: Rig) -> None:
    secret = "a password that nobody else has"
    for name, wrong in (("user1", secret), ("nobody", secret), ("user1", ""), ("", secret)):
        assert rig.login(name, wrong) == WRONG
    refused = rig.logged("login_refused", 4)
    assert [event["user"] for event in refused] == ["user1", "nobody", "user1", ""]
    assert {event["level"] for event in refused} == {"info"}
    assert all(event["reason"] and event["peer"] == "127.0.0.1" and event["session"] for event in refused)
    looks_whole(rig)
    assert secret not in rig.mta.log()
    assert encoded(secret)[4:-4] not in rig.mta.log()


def test_each_backend_lets_its_own_users_in(rig: Rig) -> None:
    rig.write({"alice": "sesame"})
    mine, others = (("alice", "sesame"), ("user2", "pw2"))[:: 1 if rig.backend == "file" else -1]
    wait_until(lambda: rig.login(*mine)[:3] == "235", 10, "who is in it gets in")
    assert rig.login(*others) == WRONG
    rig.write(USERS)
    wait_until(lambda: rig.login("user2", "pw2")[:3] == "235", 10, "all is as it was")


def test_whoever_hangs_up_in_the_middle(rig: Rig) -> None:
    """Before, within and behind the exchange, with and without a reset: nothing is left over."""
    for said in (
        "AUTH PLAIN\r\n",
        "AUTH LOGIN\r\n" + encoded("user1") + "\r\n",
        "AUTH LOGIN\r\n" + encoded("user1"),
        plain("user1", "pw1") + "\r\n",
        plain("user1", "wrong") + "\r\n",
        plain("user1", "pw1")[:-3],
    ):
        for reset in (False, True):
            client = rig.connect()
            client.send(said.encode())
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    looks_whole(rig)


def test_handshakes_that_fail(rig: Rig) -> None:
    """Each is an event, and the next client is served."""
    for number, port in enumerate(("starttls", "implicit")):
        address = rig.mta.address("submission", number)

        def begin(port: str = port, address: tuple[str, int] = address) -> socket.socket:
            plain_socket = socket.create_connection(address, 30)
            if port == "starttls":
                plain_socket.recv(1000)
                plain_socket.sendall(b"STARTTLS\r\n")
                assert plain_socket.recv(1000).startswith(b"220")
            return plain_socket

        # Who does not believe us:
        with begin() as client, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(client, server_hostname="mta.test")
        # Who speaks no TLS, and who hangs up:
        for said in (
            b"EHLO client.test\r\nAUTH PLAIN AHVzZXIxAHB3MQ==\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"\0" * 5000,
            b"",
        ):
            with begin() as client:
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
    assert len(rig.logged("tls_failed", 10)) == 10
    looks_whole(rig)
    assert "AHVzZXIxAHB3MQ==" not in rig.mta.log()


def test_a_directory_that_is_away(own: Own, tmp_path: Path) -> None:
    """Right and wrong, known and unknown: 454, and events until it is back."""
    with Slapd(tmp_path) as ldap:
        rig = own("ldap", ldap)
        assert rig.login("user1", "pw1")[:3] == "235"
        ldap.stop()
        for name, secret in (("user1", "pw1"), ("user1", "wrong"), ("nobody", "wrong"), ("*)(uid=*", "x")):
            assert rig.login(name, secret).startswith(LATER)
        assert rig.login("user1\u200b", "pw1") == WRONG, "for this nobody has to be asked"
        assert len(rig.logged("login_unavailable", 4)) == 4
        assert rig.events("directory_trouble")
        ldap.start()
        wait_until(lambda: rig.login("user1", "pw1")[:3] == "235", 10, "it is back")
        looks_whole(rig)


def test_a_file_that_can_not_be_read_any_more(own: Own, slapd: Slapd) -> None:
    rig = own("file", slapd)
    rig.users.unlink()
    rig.users.symlink_to(rig.users.name)

    def told() -> list[dict[str, Any]]:
        assert rig.login("user1", "pw1")[:3] == "235"
        return rig.events("users_file_broken")

    (event,) = wait_until(told, 10, "it is told of")
    assert event["level"] == "error"
    looks_whole(rig)


@pytest.mark.parametrize("backend", ["file", "ldap"])
def test_the_end_of_the_server_is_the_end_of_a_login(own: Own, slapd: Slapd, backend: str) -> None:
    """A login that is being checked when SIGTERM comes is answered, or told that the server goes."""
    rig = own(backend, slapd)
    crowd = [rig.connect() for _ in range(20)]
    for client in crowd:
        client.send(plain("user1", "pw1").encode() + b"\r\n")
    rig.mta.process.signal(signal.SIGTERM)
    for client in crowd:
        with contextlib.suppress(Disconnected, ConnectionResetError):
            assert client.reply().code in (235, 421, 454)
        client.close()
    assert rig.mta.ended_well()
    assert rig.mta.complaints() == []
