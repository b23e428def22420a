"""Guessing passwords of a real directory: what locks, whom it spares, and that slapd is not asked meanwhile."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rigs.faketime import FakeClock
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import wait_until
from rigs.slapd import Slapd, user_dn

MakeMta = Callable[..., Mta]

ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
GOOD = (235, b"2.7.0 Authentication succeeded")
BAD = (535, b"5.7.8 Authentication credentials invalid")


class Login(NamedTuple):
    user: str
    secret: str
    source: str = ONE


@pytest.fixture
def ldap(tmp_path: Path) -> Iterator[Slapd]:
    with Slapd(tmp_path) as it:
        yield it


def with_users(ldap: Slapd, **lockout: Any) -> Config:
    return relaying_to(
        9,
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "none"}],
        auth={"backend": "ldap", "require_tls": False},
        **{"auth.ldap": ldap.settings(), "auth.lockout": lockout},
    )


def log_in(mta: Mta, login: Login) -> tuple[int, bytes]:
    """The reply to a login in a session of its own."""
    host, port = mta.address("submission")
    with smtplib.SMTP(host, port, source_address=(login.source, 0), timeout=60) as client:
        client.ehlo()
        client.user, client.password = login.user, login.secret
        try:
            return client.auth("PLAIN", client.auth_plain)
        except smtplib.SMTPAuthenticationError as error:
            assert isinstance(error.smtp_error, bytes)
            return error.smtp_code, error.smtp_error


def at_once(mta: Mta, *logins: Login) -> list[tuple[int, bytes]]:
    """The replies to logins that are under way at the same time: their delays need not be waited for one by one."""
    with ThreadPoolExecutor(len(logins)) as pool:
        return list(pool.map(lambda login: log_in(mta, login), logins))


def guesses(user: str, number: int, sources: Sequence[str] = (ONE, TWO)) -> list[Login]:
    return [Login(user, f"guess {each}", sources[each % len(sources)]) for each in range(number)]


def asked_about(ldap: Slapd, user: str) -> int:
    """How often slapd was asked to find this user, or for the password."""
    return len(ldap.binds(user_dn(user))) + sum(f"uid={user})" in each.filter for each in ldap.searches())


def events(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == name]


def test_five_guesses_lock_the_account_and_the_directory_is_left_alone(make_mta: MakeMta, ldap: Slapd) -> None:
    with make_mta(with_users(ldap)) as mta:
        assert at_once(mta, *guesses("user1", 4)) == [BAD] * 4
        # It has not been locked yet; and where this comes from is known from now on.
        assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD
        assert events(mta, "login_locked") == []
        assert log_in(mta, Login("user1", "guess 4", TWO)) == BAD
        before = asked_about(ldap, "user1"), ldap.operations()
        locked = [Login("user1", "pw1", ONE), Login("user1", "pw1", TWO), Login("User1", "pw1", "127.0.0.4")]
        assert at_once(mta, *locked) == [BAD] * 3
        assert (asked_about(ldap, "user1"), ldap.operations()) == before
        assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD
        assert log_in(mta, Login("user2", "pw2", ONE)) == GOOD
        (event,) = wait_until(lambda: events(mta, "login_locked"), 10, "the lock is logged")
        assert (event["kind"], event["user"], event["seconds"]) == ("account", "user1", 1800)


def test_a_hundred_guesses_at_the_same_time_are_five(make_mta: MakeMta, ldap: Slapd) -> None:
    with make_mta(with_users(ldap, address_threshold=1000)) as mta:
        before = len(ldap.binds())
        assert set(at_once(mta, *guesses("user1", 100, [f"127.0.0.{each}" for each in range(1, 21)]))) == {BAD}
        assert len([dn for dn in ldap.binds()[before:] if dn.startswith("uid=user1,")]) == 5


def test_the_same_wrong_password_twenty_times_is_one(make_mta: MakeMta, ldap: Slapd) -> None:
    with make_mta(with_users(ldap)) as mta:
        assert set(at_once(mta, *[Login("user1", "the old one")] * 20)) == {BAD}
        assert at_once(mta, *guesses("user1", 3)) == [BAD] * 3
        assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD
        assert events(mta, "login_locked") == []


def test_names_that_nobody_has_are_locked_and_answered_alike(make_mta: MakeMta, ldap: Slapd) -> None:
    with make_mta(with_users(ldap)) as mta:
        assert at_once(mta, *guesses("nobody", 5)) == [BAD] * 5
        before = asked_about(ldap, "nobody")
        assert log_in(mta, Login("nobody", "guess 5", THREE)) == BAD
        assert asked_about(ldap, "nobody") == before > 0


def test_a_lock_survives_sigkill_and_ends_when_its_time_is_over(make_mta: MakeMta, ldap: Slapd, tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    mta = make_mta(with_users(ldap), environment=clock.environment).start()
    assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD
    assert at_once(mta, *guesses("user1", 5)) == [BAD] * 5
    # What has been answered is on the disk.
    mta.kill()
    clock.set("+29m")
    mta.start()
    before = asked_about(ldap, "user1")
    assert log_in(mta, Login("user1", "pw1")) == BAD
    assert asked_about(ldap, "user1") == before > 0
    assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD
    mta.stop()
    clock.set("+31m")
    mta.start()
    assert log_in(mta, Login("user1", "pw1")) == GOOD


def test_a_lock_ends_when_the_clock_moves_on(make_mta: MakeMta, ldap: Slapd, tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    # All clocks: as when time passes.
    with make_mta(with_users(ldap), environment={**clock.environment, "DONT_FAKE_MONOTONIC": "0"}) as mta:
        assert at_once(mta, *guesses("user1", 5)) == [BAD] * 5
        clock.set("+29m")
        assert log_in(mta, Login("user1", "pw1", THREE)) == BAD
        clock.set("+31m")
        assert log_in(mta, Login("user1", "pw1", THREE)) == GOOD


def test_a_directory_that_is_away_locks_nobody(make_mta: MakeMta, ldap: Slapd) -> None:
    with make_mta(with_users(ldap)) as mta:
        assert log_in(mta, Login("user1", "pw1")) == GOOD
        ldap.stop()
        codes = {code for code, _ in at_once(mta, *guesses("user1", 12))}
        assert codes == {454}
        ldap.start()
        assert events(mta, "login_locked") == []
