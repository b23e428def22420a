"""Logins at a real slapd: people, traps of the protocol, and all kinds of bad days of its servers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rigs.certificates import Authority
from rigs.live_pump import LivePump
from rigs.mta import Mta, relaying_to, toml
from rigs.processes import free_port, wait_until
from rigs.slapd import GROUPS, ODD, PASSWORD, PEOPLE, SERVICE_DN, SUFFIX, Slapd, user_dn
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.ldap import LdapChecker
from mtatwist.config import load
from mtatwist.directory.connection import Connection
from mtatwist.directory.directory import Directory
from mtatwist.metrics.instruments import Instruments
from mtatwist.transaction import Account
from mtatwist.wiring.directory import WAITING, make_directory, make_ldap_checker

WITHIN = 25.0
"""Seconds in which a login is answered, whatever the directory does. Its limit is nine, and this machine may have other
things to do."""


class Desk:
    """A directory and its checker as the configuration makes them, turned by the test."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        file = directory / "desk.toml"
        file.write_text(toml({**relaying_to(1), "auth": {"backend": "ldap"}, "auth.ldap": settings}))
        config = load(file)
        self.pump = LivePump()
        self.metrics = Instruments()
        made = make_directory(config, self.pump, self.metrics)
        assert made is not None
        self.directory: Directory = made
        self.checker: LdapChecker = make_ldap_checker(config, self.directory, self.pump, self.metrics)
        self.directory.start()

    def login(self, user: str, secret: str = PASSWORD) -> Deferred[Account]:
        return self.checker.requestAvatarId(Login(user, secret, "192.0.2.7", "s1"))

    def answer(self, user: str, secret: str = PASSWORD) -> Account | type[BaseException]:
        """The account, or as what the login fails."""
        return kind(self.pump.outcome(self.login(user, secret)))

    def well(self) -> bool:
        return self.metrics.directory_servers_down.value == 0

    def stop(self) -> None:
        self.checker.stop()
        self.pump.wait(self.directory.stop())


def kind(outcome: Any) -> Any:
    """What it is, or which kind of failure: whatever is wrong with a login, it is one."""
    if not isinstance(outcome, Failure):
        return outcome
    return outcome.check(UnauthorizedLogin) or outcome.type


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    made: list[Desk] = []

    def make(settings: dict[str, Any]) -> Desk:
        made.append(Desk(tmp_path, settings))
        return made[-1]

    yield make
    for desk in made:
        desk.stop()


@pytest.fixture
def ldap(tmp_path: Path) -> Iterator[Slapd]:
    with Slapd(tmp_path) as it:
        yield it


def account(number: int) -> Account:
    """That of one of the rig's users."""
    return Account(f"user{number}", frozenset({f"user{number}@example.org", f"alias{number}@example.org"}))


def test_right_and_wrong(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer("user1", "pw1") == account(1)
    assert desk.answer("user1", "pw2") is UnauthorizedLogin
    assert desk.answer("nobody", "pw1") is UnauthorizedLogin
    assert desk.answer("user2", "pw2") == account(2)
    # The user itself was bound, and nobody for whom there is none.
    assert ldap.binds(user_dn("user1")) == [user_dn("user1")] * 2
    assert set(ldap.binds()) == {SERVICE_DN, user_dn("user1"), user_dn("user2")}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("secure", [False, True])
def test_over_tls_by_name_and_address(make_desk: MakeDesk, ldap: Slapd, secure: bool, host: str) -> None:
    settings = ldap.settings(secure=secure)
    settings["uris"] = [uri.replace("localhost", host) for uri in settings["uris"]]
    assert make_desk(settings).answer("user1", "pw1") == account(1)


def test_an_account_has_one_name(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(user_filter="(|(uid={user})(mail={user}))"))
    for name in ("user1", "USER1", "user1@example.org", "alias1@example.org"):
        assert desk.answer(name, "pw1") == account(1)


def test_people(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer("argon") == Account("argon", frozenset({"argon@example.org"}))
    assert desk.answer("nomail") == Account("nomail")
    for name in ("locked", "off", "twin"):
        assert desk.answer(name) is UnauthorizedLogin, name
    # The directory would have let this one in, and the other two are nobody's business.
    assert not {user_dn(name) for name in ("off", "twin", "locked")} & set(ldap.binds())


def test_the_directory_locks_somebody_itself(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    assert kind(desk.pump.outcome(desk.directory.bind(user_dn("locked"), PASSWORD))) is False
    assert kind(desk.pump.outcome(desk.directory.bind(user_dn("argon"), PASSWORD))) is True


@pytest.mark.parametrize("name", ODD)
def test_odd_names(make_desk: MakeDesk, ldap: Slapd, name: str) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer(name) == Account(name.lower(), frozenset({f"odd{ODD.index(name)}@example.org"}))
    assert desk.answer(name, "wrong") is UnauthorizedLogin


@pytest.mark.parametrize(
    "name", ["*)(uid=*", "admin)(|(password=*", "*", "user1)(mail=*", "user*", "\\2a", "(", "user1))(&(uid=user1", "\\"]
)
def test_no_name_is_a_filter(make_desk: MakeDesk, ldap: Slapd, name: str) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer(name, "pw1") is UnauthorizedLogin
    (search,) = ldap.searches()
    # It reaches the directory as one value.
    assert search.filter.count("(") == 3
    assert ldap.binds() in ([SERVICE_DN], [SERVICE_DN] * 2)


@pytest.mark.parametrize("name", ["user1\0", "\0", "", "u" * 65536, "\ud800"])
def test_what_can_be_no_name_is_not_asked_about(make_desk: MakeDesk, ldap: Slapd, name: str) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer(name, "pw1") is UnauthorizedLogin
    assert ldap.searches() == []


def test_a_long_password_is_not_asked_about(make_desk: MakeDesk, ldap: Slapd) -> None:
    assert make_desk(ldap.settings()).answer("user1", "p" * 65536) is UnauthorizedLogin
    assert ldap.searches() == []


@pytest.mark.parametrize("secret", ["", "\0", "pw1\0", "\ud800"])
def test_what_can_be_no_password_is_not_asked_about(make_desk: MakeDesk, ldap: Slapd, secret: str) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer("user1", secret) is UnauthorizedLogin
    assert desk.pump.wait(desk.directory.bind(user_dn("user1"), secret)) is False
    assert desk.pump.wait(desk.directory.bind("", "pw1")) is False
    assert user_dn("user1") not in ldap.binds()


@pytest.mark.parametrize("name", ["zoe\u0308", "e\u0301" * 100, "\u202euser1", "user1\u200b", "\uff55ser1", "ⓤser1"])
def test_names_in_other_forms_end_well(make_desk: MakeDesk, ldap: Slapd, name: str) -> None:
    """Whether the directory takes them for somebody is its own matter."""
    answer = make_desk(ldap.settings()).answer(name)
    assert answer is UnauthorizedLogin or answer == Account("zoë", frozenset({"odd3@example.org"}))


def test_referrals_are_not_followed(make_desk: MakeDesk, ldap: Slapd) -> None:
    """ldap3 would tell the account and its password to whoever is named, in clear."""
    desk = make_desk(ldap.settings())
    assert desk.answer("away") is UnauthorizedLogin
    assert make_desk(ldap.settings(base_dn="dc=elsewhere")).answer("user1", "pw1") is AuthUnavailable
    assert (ldap.lure.visits, ldap.lure.received) == (0, b"")
    assert desk.well()


def test_groups_and_shared_mailboxes(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(group_filter="(&(objectClass=groupOfNames)(member={dn}))"))
    shared = {"sales@example.org", "info@example.org", "contact@example.org"}
    assert desk.answer("user2", "pw2") == Account("user2", account(2).addresses | shared)
    assert desk.answer("user1", "pw1") == Account("user1", account(1).addresses | {"sales@example.org"})
    assert desk.answer("user3", "pw3") == account(3)
    assert desk.answer("we*ird(x)\\") == Account("we*ird(x)\\", frozenset({"odd0@example.org"}))


def test_other_attributes_hold_the_addresses(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Names of other things, too: what is no address is left out."""
    desk = make_desk(ldap.settings(address_attributes=["cn", "proxyAddresses", "Mail"]))
    assert desk.answer("user1", "pw1") == account(1)
    assert make_desk(ldap.settings(address_attributes=["cn"])).answer("user1", "pw1") == Account("user1")


def test_groups_by_name(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(group_filter=f"(&(cn=sales)(member=uid={{user}},{PEOPLE}))"))
    assert desk.answer("user1", "pw1") == Account("user1", account(1).addresses | {"sales@example.org"})


def test_whoever_logs_in_never_searches(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Only the service account may read here, and only so do searches find anybody."""
    desk = make_desk(ldap.settings(connections=2))
    for round_ in range(5):
        logins = [desk.login(f"user{number}", f"pw{number}") for number in range(10)]
        assert [kind(desk.pump.outcome(login)) for login in logins] == [account(number) for number in range(10)], round_


def test_connections_are_used_again(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(connections=4))
    before = ldap.accepted()
    for _ in range(5):
        for login in [desk.login("user1", "pw1") for _ in range(20)]:
            assert kind(desk.pump.outcome(login)) == account(1)
    # For each thread one that searches and one that binds, and the one that looked whether all is well.
    assert ldap.accepted() - before <= 9
    assert ldap.binds(SERVICE_DN) == [SERVICE_DN] * len(ldap.binds(SERVICE_DN))
    assert len(ldap.binds(SERVICE_DN)) <= 5


def test_small_packets_are_sent_at_once(make_desk: MakeDesk, ldap: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Connection] = []

    def noted(self: Connection, *arguments: Any) -> None:
        begin(self, *arguments)
        opened.append(self)

    begin = Connection.__init__
    monkeypatch.setattr(Connection, "__init__", noted)
    for secure in (False, True):
        assert make_desk(ldap.settings(secure=secure)).answer("user1", "pw1") == account(1)
    assert opened
    options = [one._ldap.socket.wrapped.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in opened]
    assert all(options)


# Nobody is told a password who is not the directory.


def test_certificates_that_are_refused(make_desk: MakeDesk, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority.pem")
    cases = (
        ("mismatch", {"host": "other.test", "addresses": ()}),
        ("mismatch", {"host": "other.test", "addresses": ("192.0.2.1",)}),
        ("expired", {"days": -1}),
        ("self-signed", {"authority": Authority(tmp_path / "others.pem")}),
    )
    for reason, certificate in cases:
        for secure in (False, True):
            with Slapd(tmp_path, **{"authority": authority, **certificate}) as ldap, capturedLogs() as events:
                settings = ldap.settings(secure=secure)
                settings["ca_file"] = str(authority.file)
                desk = make_desk(settings)
                assert desk.answer("user1", "pw1") is AuthUnavailable
                (event,) = [event for event in events if event["log_format"] == "directory_trouble"]
                assert "its certificate is refused" in event["reason"]
                assert reason in event["reason"].lower()
                assert desk.metrics.directory_untrusted.value > 0
                assert ldap.binds() == []


def test_no_authority_of_ours(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Those of the system have not signed it."""
    settings = ldap.settings()
    del settings["ca_file"]
    assert make_desk(settings).answer("user1", "pw1") is AuthUnavailable
    assert ldap.binds() == []


def test_no_tls_is_no_way_in(make_desk: MakeDesk, tmp_path: Path) -> None:
    with Slapd(tmp_path, tls=False) as ldap:
        desk = make_desk(ldap.settings())
        assert desk.answer("user1", "pw1") is AuthUnavailable
        assert desk.metrics.directory_untrusted.value > 0
        assert ldap.binds() == []


def test_in_clear_where_that_is_wanted(make_desk: MakeDesk, tmp_path: Path) -> None:
    with Slapd(tmp_path, tls=False) as ldap:
        assert make_desk(ldap.settings(start_tls=False)).answer("user1", "pw1") == account(1)


# Bad days.


def trouble(events: Any, name: str = "directory_trouble") -> list[str]:
    return [event["server"] for event in events if event["log_format"] == name]


def test_stopped_and_started_again(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer("user1", "pw1") == account(1)
    with capturedLogs() as events:
        ldap.stop()
        for _ in range(20):
            assert desk.answer("user1", "pw1") is AuthUnavailable
        ldap.start()
        desk.pump.until(desk.well)
        assert desk.answer("user1", "pw1") == account(1)
    # Told once, however many logins failed.
    assert trouble(events) == [ldap.uri]
    assert trouble(events, "directory_recovered") == [ldap.uri]


def test_restarted(make_desk: MakeDesk, ldap: Slapd) -> None:
    """The connections that were idle meanwhile are of no use, and nobody notices."""
    desk = make_desk(ldap.settings())
    for login in [desk.login("user1", "pw1") for _ in range(20)]:
        assert kind(desk.pump.outcome(login)) == account(1)
    ldap.restart()
    for login in [desk.login("user1", "pw1") for _ in range(20)]:
        assert kind(desk.pump.outcome(login)) == account(1)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_hung(make_desk: MakeDesk, ldap: Slapd, warm: bool, secure: bool) -> None:
    if warm:
        desk = make_desk(ldap.settings(secure=secure))
        assert desk.answer("user1", "pw1") == account(1)
        ldap.hang()
    else:
        ldap.hang()
        desk = make_desk(ldap.settings(secure=secure))
    started = time.monotonic()
    assert desk.answer("user1", "pw1") is AuthUnavailable
    assert time.monotonic() - started < WITHIN
    # Now that it is known, nobody waits.
    for login in [desk.login("user1", "pw1") for _ in range(50)]:
        assert login.called or kind(desk.pump.outcome(login)) is AuthUnavailable
    ldap.go_on()
    desk.pump.until(desk.well)
    assert desk.answer("user1", "pw1") == account(1)


def test_hung_between_search_and_bind(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    started = time.monotonic()
    login = desk.login("user1", "pw1")
    desk.pump.until(lambda: bool(ldap.searches()))
    ldap.hang()
    assert kind(desk.pump.outcome(login)) in (AuthUnavailable, account(1))
    assert time.monotonic() - started < WITHIN
    assert desk.answer("user1", "pw1") is AuthUnavailable


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("fault", ["stopped", "hung", "hung later", "untrusted", "no TLS"])
def test_one_of_two(make_desk: MakeDesk, tmp_path: Path, fault: str, secure: bool) -> None:
    authority = Authority(tmp_path / "authority.pem")
    days = -1 if fault == "untrusted" else 1
    with ExitStack() as stack:
        bad = stack.enter_context(Slapd(tmp_path, authority=authority, days=days, tls=fault != "no TLS"))
        good = stack.enter_context(Slapd(tmp_path, authority=authority))
        if fault == "stopped":
            bad.stop()
        elif fault == "hung":
            bad.hang()
        desk = make_desk(bad.settings(good, secure=secure))
        if fault == "hung later":
            assert desk.answer("user1", "pw1") == account(1)
            bad.hang()
        started = time.monotonic()
        for login in [desk.login("user1", "pw1") for _ in range(30)]:
            assert kind(desk.pump.outcome(login)) == account(1)
        assert time.monotonic() - started < WITHIN
        assert desk.metrics.directory_servers_down.value == 1
        if fault in ("hung", "hung later", "stopped"):
            asked = len(bad.searches())
            (bad.start if fault == "stopped" else bad.go_on)()
            desk.pump.until(desk.well)
            # The first one is the first again.
            assert desk.answer("user1", "pw1") == account(1)
            assert len(bad.searches()) > asked


def test_both_of_two(make_desk: MakeDesk, tmp_path: Path) -> None:
    with Slapd(tmp_path) as one, Slapd(tmp_path, authority=one.authority) as other:
        desk = make_desk(one.settings(other))
        assert desk.answer("user1", "pw1") == account(1)
        one.hang()
        other.hang()
        started = time.monotonic()
        logins = [desk.login("user1", "pw1") for _ in range(30)]
        assert {kind(desk.pump.outcome(login)) for login in logins} == {AuthUnavailable}
        assert time.monotonic() - started < WITHIN
        other.go_on()
        desk.pump.until(lambda: desk.metrics.directory_servers_down.value == 1)
        assert desk.answer("user1", "pw1") == account(1)


def test_an_account_that_may_not_search(make_desk: MakeDesk, ldap: Slapd) -> None:
    with capturedLogs() as events:
        desk = make_desk(ldap.settings(bind_password="not this"))
        assert desk.answer("user1", "pw1") is AuthUnavailable
    (reason,) = [event["reason"] for event in events if event["log_format"] == "directory_trouble"]
    assert "refuses the account that searches" in reason
    assert "not this" not in reason


def test_a_base_that_is_not_there(make_desk: MakeDesk, ldap: Slapd) -> None:
    """The server is well, and told of once."""
    with capturedLogs() as events:
        desk = make_desk(ldap.settings(base_dn=f"ou=nowhere,{SUFFIX}"))
        for _ in range(5):
            assert desk.answer("user1", "pw1") is AuthUnavailable
    assert trouble(events, "directory_refused") == [ldap.uri]
    assert desk.metrics.directory_refused.value == 5
    assert desk.well()


def test_searching_as_nobody(make_desk: MakeDesk, ldap: Slapd) -> None:
    """This directory shows nobody anything, not even that it is the right one."""
    settings = ldap.settings()
    del settings["bind_dn"], settings["bind_password"]
    assert make_desk(settings).answer("user1", "pw1") is AuthUnavailable
    assert set(ldap.binds()) == {""}
    assert len(ldap.searches()) == 1


def test_a_host_that_is_not_there(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Nobody answers its packets: those behind a full backlog are dropped."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        # A third of the time for a login would be the limit otherwise: longer than anybody here waits.
        settings = ldap.settings(connect_timeout="200ms", timeout="5m")
        settings["uris"].insert(0, f"ldap://127.0.0.1:{deaf.getsockname()[1]}")
        with capturedLogs() as events:
            assert make_desk(settings).answer("user1", "pw1") == account(1)
        (reason,) = [event["reason"] for event in events if event["log_format"] == "directory_trouble"]
        assert reason == "it does not answer in time"


def test_the_time_for_a_login(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(timeout="500ms", connect_timeout="500ms"))
    assert desk.answer("user1", "pw1") == account(1)
    ldap.hang()
    started = time.monotonic()
    assert desk.answer("user1", "pw1") is AuthUnavailable
    # It would be nine seconds otherwise.
    assert time.monotonic() - started < 8


def test_what_is_bounded(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Threads and connections, however many want to log in at a directory that says nothing."""
    desk = make_desk(ldap.settings(connections=4))
    for login in [desk.login("user1", "pw1") for _ in range(200)]:
        assert kind(desk.pump.outcome(login)) == account(1)
    threads = [one.name for one in threading.enumerate() if one.name.startswith("mtatwist-directory")]
    # Four that ask, and one that looks whether all is well.
    assert len(threads) <= 5
    assert ldap.connections() <= 9
    ldap.hang()
    logins = [desk.login("user1", "pw1") for _ in range(WAITING + 100)]
    # Who is too many is told so at once.
    assert sum(login.called for login in logins) == 96
    started = time.monotonic()
    assert {kind(desk.pump.outcome(login)) for login in logins} == {AuthUnavailable}
    assert time.monotonic() - started < WITHIN
    assert desk.metrics.directory_busy.value == 96
    assert len([one for one in threading.enumerate() if one.name.startswith("mtatwist-directory")]) <= 5
    ldap.go_on()
    desk.pump.until(desk.well)
    assert desk.answer("user1", "pw1") == account(1)
    assert ldap.connections() <= 9


def test_stopping_while_it_hangs(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings())
    assert desk.answer("user1", "pw1") == account(1)
    ldap.hang()
    logins = [desk.login("user1", "pw1") for _ in range(20)]
    stopped = desk.directory.stop()
    assert {kind(desk.pump.outcome(login)) for login in logins} == {AuthUnavailable}
    assert desk.pump.outcome(stopped) is None
    assert not [one for one in threading.enumerate() if one.name.startswith("mtatwist-directory")]
    assert desk.answer("user1", "pw1") is AuthUnavailable


def test_lookups_of_recipients_keep_no_login_waiting(make_desk: MakeDesk, ldap: Slapd) -> None:
    """Their places are all taken, and a login has one."""
    desk = make_desk(ldap.settings(connections=1, recipient_filter="(mail={address})"))
    asked = [desk.directory.for_recipients.search(f"(mail=u{number}@x.test)", ["1.1"]) for number in range(WAITING + 9)]
    assert [lookup.called for lookup in asked] == [False] * (WAITING + 1) + [True] * 8
    assert desk.answer("user1", "pw1") == account(1)
    outcomes = [desk.pump.outcome(lookup) for lookup in asked]
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False] * (WAITING + 1) + [True] * 8


def test_remembered_for_bad_days(make_desk: MakeDesk, ldap: Slapd) -> None:
    desk = make_desk(ldap.settings(offline_cache="1h"))
    cache = desk.checker._offline
    assert cache is not None
    for number in (1, 2, 3):
        assert desk.answer(f"user{number}", f"pw{number}") == account(number)
    desk.pump.until(lambda: len(cache) == 3)
    # Anybody can send a wrong password.
    assert desk.answer("user2", "wrong") is UnauthorizedLogin
    ldap.stop()
    assert desk.answer("user1", "pw1") == account(1)
    assert desk.answer("user2", "pw2") == account(2)
    assert desk.answer("user4", "pw4") is AuthUnavailable
    # Guessing leads nowhere.
    for guess in range(5):
        assert desk.answer("user3", f"wrong{guess}") is AuthUnavailable
    assert desk.answer("user3", "pw3") is AuthUnavailable
    assert desk.metrics.auth_offline.value == 2


# The server as a whole.


def test_the_server_starts_without_its_directory(make_mta: Callable[..., Mta], ldap: Slapd) -> None:
    ldap.stop()
    config = relaying_to(1, **{"auth": {"backend": "ldap"}, "auth.ldap": ldap.settings()})
    with make_mta(config) as mta:

        def events(name: str) -> list[dict[str, Any]]:
            return [event for event in mta.events() if event["event"] == name]

        wait_until(lambda: events("directory_trouble"), 10, lambda: mta.log())
        ldap.start()
        wait_until(lambda: events("directory_recovered"), 10, lambda: mta.log())
        mta.process.signal(15)
        assert mta.ended_well()


def test_a_ca_file_that_can_not_be_used(make_mta: Callable[..., Mta], tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    settings = {"uris": [f"ldap://127.0.0.1:{free_port()}"], "base_dn": GROUPS, "ca_file": str(file)}
    for why in ("has no certificates in PEM form", "No such file or directory"):
        mta = make_mta(relaying_to(1, **{"auth": {"backend": "ldap"}, "auth.ldap": settings}))
        child = mta.spawn()
        assert child.wait(30) == 78
        assert f"mta.toml: auth.ldap.ca_file: {file}: {why}" in child.output()
        file.unlink(missing_ok=True)
