"""Logins that end oddly, what the log says of them, and challengers of others; tests/dialogues has the conversation."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from dialogue import Settings
from dialogue_servers import OurServer
from receive.whole import ALICE, SUBMISSION, Whole
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import LoginDenied, LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs
from twisted.mail import smtp
from twisted.mail.imap4 import PLAINCredentials
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.auth.credentials import ILogin
from mtatwist.receive.attempt import LOGIN_SECONDS
from mtatwist.receive.connection import INPUT_LIMIT
from mtatwist.transaction import Account

WRONG = "AUTH PLAIN " + base64.b64encode(b"\0alice\0hunter2hunter2").decode()


class Portals:
    """A portal whose logins end when the test says so."""

    def __init__(self) -> None:
        self.pending: list[Deferred[Any]] = []
        self.minds: list[Any] = []
        self.logged_out = 0
        self.cancelled = 0
        self.stubborn = False

    def login(self, credentials: Any, mind: Any, *interfaces: Any) -> Deferred[Any]:
        """See Portal."""
        self.minds.append(mind)
        return Deferred.fromCoroutine(self._login())

    async def _login(self) -> Any:
        self.pending.append(Deferred())
        try:
            return await self.pending[-1]
        except CancelledError:
            self.cancelled += 1
            if self.stubborn:
                return await self._login()
            raise

    def succeed(self) -> None:
        """The login that waits was right."""
        self.minds[-1].account = Account("alice")
        self.pending[-1].callback((smtp.IMessageDelivery, _Delivery(), self._log_out))

    def _log_out(self) -> None:
        self.logged_out += 1


@implementer(smtp.IMessageDelivery)
class _Delivery:
    pass


class Client:
    """A session on a submission listener, in TLS."""

    def __init__(self, portal: Any = None, **settings: Any) -> None:
        self.server = OurServer(Settings(role="submission", tls="implicit", **settings))
        self.wire = self.server.connect()
        self.protocol: Any = self.wire.protocol
        if portal is not None:
            self.protocol.portal = portal
        self.say("EHLO client.test")

    def say(self, *lines: str) -> str:
        """Lines in one write, and the answer."""
        self.heard()
        self.protocol.dataReceived("".join(line + "\r\n" for line in lines).encode())
        return self.heard()

    def heard(self) -> str:
        """What has come since the last look."""
        heard, self.wire.written = self.wire.written.decode(), b""
        return heard

    def hang_up(self) -> None:
        """The client goes."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.server.clock.advance(seconds)


# --- The end of a login -------------------------------------------------------------------------------------------


def test_the_session_is_nobodys_until_the_reply() -> None:
    portals = Portals()
    client = Client(portals)
    assert client.say(ALICE) == ""
    portals.minds[-1].account = Account("alice")
    assert client.protocol.session.user == ""
    portals.succeed()
    assert client.heard()[:9] == "235 2.7.0"
    assert client.protocol.session.user == "alice"


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_login_that_comes_too_late_is_sent_away(stubborn: bool) -> None:
    """The peer was told 454: it must not be logged in behind its back."""
    portals = Portals()
    portals.stubborn = stubborn
    client = Client(portals)
    client.say(ALICE)
    client.pass_time(LOGIN_SECONDS)
    assert client.heard()[:9] == "454 4.7.0"
    assert portals.cancelled == 1
    if stubborn:
        portals.succeed()
        assert portals.logged_out == 1
    assert client.protocol.session.user == ""
    assert client.say("MAIL FROM:<alice@example.org>")[:3] != "250"


def test_a_client_that_goes_meanwhile() -> None:
    portals = Portals()
    portals.stubborn = True
    client = Client(portals)
    client.say(ALICE)
    client.hang_up()
    assert portals.cancelled == 1
    portals.succeed()
    assert portals.logged_out == 1
    assert not client.server.clock.getDelayedCalls()


def test_a_login_that_is_right_as_the_session_is_cut() -> None:
    """The server stops, the login ends, the connection ends: in this order."""
    portals = Portals()
    client = Client(portals)
    client.say(ALICE)
    client.protocol.shut_down(now=True)
    assert client.heard()[:3] == "421"
    portals.succeed()
    assert client.heard() == ""
    client.hang_up()
    assert portals.logged_out == 1


def test_a_server_that_stops_lets_a_login_end_first() -> None:
    """And then it needs no grace: nothing has begun."""
    portals = Portals()
    client = Client(portals)
    client.say(ALICE)
    client.protocol.shut_down(now=False)
    assert client.heard() == ""
    portals.succeed()
    assert [line[:9] for line in client.heard().splitlines()] == ["235 2.7.0", "421 4.3.2"]


@pytest.mark.parametrize("lines", [["AUTH LOGIN"], ["AUTH PLAIN"], ["AUTH LOGIN YWxpY2U="], [ALICE]])
def test_a_client_that_goes_in_the_middle_has_aborted(lines: list[str]) -> None:
    client = Client(checker="never answers")
    client.say(*lines)
    client.hang_up()
    assert client.protocol._metrics.auth_aborted.value == 1


def test_logging_out_with_the_session() -> None:
    portals = Portals()
    client = Client(portals)
    client.say(ALICE)
    portals.succeed()
    assert portals.logged_out == 0
    client.hang_up()
    assert portals.logged_out == 1


def test_a_logout_that_crashes_is_nobody_elses_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The session is counted out all the same."""
    server = Whole(monkeypatch, tmp_path, SUBMISSION)
    session = server.connect()
    session.say("EHLO client.test", ALICE)
    session.protocol._onLogout = lambda: 1 / 0
    with capturedLogs() as events:
        session.protocol.connectionLost(Failure(ConnectionDone()))
    assert [event["log_format"] for event in events] == ["logout_crashed", "session_ended"]
    assert server.metrics.sessions_open.value == 0


def test_who_was_anonymous_before_is_logged_out_first() -> None:
    """MAIL before AUTH makes an anonymous avatar."""
    logged_out: list[str] = []
    client = Client()
    assert client.say("MAIL FROM:<alice@example.org>")[:3] == "530"
    client.protocol._onLogout = lambda: logged_out.append("nobody")
    assert client.say(ALICE)[:3] == "235"
    assert logged_out == ["nobody"]
    assert client.say("MAIL FROM:<alice@example.org>")[:3] == "250"


def test_nobody_waits_for_anothers_login() -> None:
    """A directory that is dead for a minute costs other sessions nothing."""
    slow, quick = Client(checker="never answers"), Client()
    assert slow.say(ALICE) == ""
    other = slow.server.connect()
    other.protocol.dataReceived(b"EHLO other.test\r\nNOOP\r\n")
    assert other.written.endswith(b"250 2.0.0 Ok\r\n")
    assert quick.say(ALICE)[:3] == "235"


def test_what_comes_during_a_login_is_bounded() -> None:
    client = Client(checker="never answers")
    client.protocol.dataReceived(ALICE.encode() + b"\r\n" + b"NOOP\r\n" * (INPUT_LIMIT // 6 + 1))
    assert client.wire.paused


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (UnauthorizedLogin(), "535 5.7.8"),
        (LoginDenied(), "535 5.7.8"),
        (LoginFailed("what a backend may say"), "454 4.7.0"),
        (CancelledError(), "454 4.7.0"),
        (RuntimeError("a secret"), "454 4.7.0"),
    ],
)
def test_ways_to_fail(error: Exception, reply: str) -> None:
    portals = Portals()
    client = Client(portals)
    client.say(ALICE)
    portals.pending[-1].errback(error)
    heard = client.heard()
    assert heard[:9] == reply
    assert "secret" not in heard


def test_temporary_failures_do_not_go_on_for_ever() -> None:
    """Each counts as a refused command."""
    client = Client(checker="unavailable", errors=3)
    assert client.say(ALICE)[:3] == client.say(ALICE)[:3] == "454"
    assert client.say(ALICE).splitlines()[1][:9] == "421 4.7.0"


# --- The log ------------------------------------------------------------------------------------------------------


def events_of(*lines: str, **settings: Any) -> list[dict[str, Any]]:
    client = Client(**settings)
    with capturedLogs() as events:
        for line in lines:
            client.say(line)
        client.hang_up()
    return [event for event in events if event["log_format"] != "session_ended"]


def test_a_login_is_logged() -> None:
    (event,) = events_of(ALICE)
    assert event["log_format"] == "login"
    assert {key: event[key] for key in ("user", "peer", "mechanism", "tls")} == {
        "user": "alice",
        "peer": "192.0.2.7",
        "mechanism": "PLAIN",
        "tls": "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384",
    }
    assert event["session"]


def test_a_wrong_login_is_logged() -> None:
    (event,) = events_of(WRONG)
    assert event["log_format"] == "login_refused"
    assert (event["user"], event["peer"], event["mechanism"]) == ("alice", "192.0.2.7", "PLAIN")


@pytest.mark.parametrize(("checker", "name"), [("unavailable", "login_unavailable"), ("crashes", "checker_crashed")])
def test_trouble_is_logged(checker: str, name: str) -> None:
    (event,) = events_of(ALICE, checker=checker)
    assert event["log_format"] == name


PASSWORD = "Sup3rSecret"
ENCODED = base64.b64encode(PASSWORD.encode()).decode()
NAME = base64.b64encode(b"alice").decode()
MESSAGE = base64.b64encode(b"\0alice\0" + PASSWORD.encode()).decode()


@pytest.mark.parametrize("checker", ["works", "unavailable", "crashes"])
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize("role", ["submission", "mx"])
@pytest.mark.parametrize(
    "lines",
    [
        (f"AUTH PLAIN {MESSAGE}",),
        (f"AUTH\tPLAIN\t{MESSAGE}",),
        (f"auth plain {MESSAGE} x",),
        (f"AUTH {MESSAGE}",),
        (f"AUTH X-{MESSAGE}",),
        ("AUTH PLAIN", MESSAGE),
        ("AUTH PLAIN", MESSAGE + "x", MESSAGE),
        ("AUTH LOGIN", NAME, ENCODED),
        ("AUTH LOGIN", "*", NAME, ENCODED, PASSWORD),
        ("AUTH LOGIN", "?", NAME, ENCODED, PASSWORD),
        ("AUTH CRAM-MD5", MESSAGE, ENCODED, f"{PASSWORD} {PASSWORD}"),
        (f"AUTH LOGIN {NAME}", f"{ENCODED}=", ENCODED),
        (f"AUTH PLAIN {MESSAGE}\r\nNOOP {PASSWORD}",),
        (f"AUTH LOGIN\r\n{NAME}\r\n{ENCODED}",),
        (f"AUTH LOGIN\r\n{ENCODED * 1000}",),
    ],
)
def test_no_password_is_ever_logged(lines: tuple[str, ...], role: str, tls: str, checker: str) -> None:
    """Not even where the client sends it at the wrong time, or in the wrong place."""
    client = Client(checker=checker, errors=100)
    client.server = OurServer(Settings(role=role, tls=tls, checker=checker, errors=100))
    client.wire = client.server.connect()
    client.protocol = client.wire.protocol
    with capturedLogs() as events:
        client.say("EHLO client.test")
        for line in lines:
            client.say(line)
        client.hang_up()
    said = " ".join(f"{event} {event.get('log_failure') and event['log_failure'].getTraceback()}" for event in events)
    for secret in (PASSWORD, ENCODED, MESSAGE):
        assert secret not in said


# --- Other people's parts -----------------------------------------------------------------------------------------


def test_a_challenger_and_a_checker_of_twisteds() -> None:
    """Any IChallengeResponse works, and any checker that knows its credentials."""
    client = Client()
    portal = client.protocol.portal
    portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(bob=b"builder"))
    client.protocol.challengers = {b"PLAIN": PLAINCredentials}
    assert client.say("AUTH PLAIN " + base64.b64encode(b"\0bob\0builder").decode())[:3] == "235"
    assert client.protocol.session.user == "bob"
    # A name that is no address is nothing to send as.
    assert client.say("MAIL FROM:<bob@example.org>")[:3] == "553"
    assert client.say("MAIL FROM:<>")[:3] == "250"


def test_a_checker_that_knows_only_names_and_passwords() -> None:
    """Our credentials are IUsernamePassword, too."""
    client = Client()
    client.protocol.portal = Portal(
        client.protocol.portal.realm, [InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")]
    )
    assert client.say(ALICE)[:3] == "235"


def test_a_realm_that_knows_nothing_of_accounts() -> None:
    """Then the account is the name that was given, and may send as nothing."""

    @implementer(IRealm)
    class Realm:
        def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
            return smtp.IMessageDelivery, _Delivery(), lambda: None

    @implementer(ICredentialsChecker)
    class Checker:
        credentialInterfaces = (ILogin,)

        def requestAvatarId(self, credentials: Any) -> Any:
            return succeed(b"somebody")

    client = Client(Portal(Realm(), [Checker()]))
    assert client.say(ALICE)[:3] == "235"
    assert client.protocol.session.account == Account("alice")
