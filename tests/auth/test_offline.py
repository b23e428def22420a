"""Logins that are remembered for when the directory is away: only right ones, and for a while."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from auth.test_ldap import FakeDirectory, checker, entry
from rigs.pump import Pump
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from mtatwist.auth import hashes, offline
from mtatwist.auth.credentials import AuthUnavailable, Login, WrongPassword
from mtatwist.auth.offline import (
    GUESSES,
    HASH_AGAIN_SECONDS,
    NAMES,
    NETWORKS,
    REPLY_STEP,
    STRANGERS_GUESSES,
    OfflineCache,
)
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.metrics.instruments import Instruments
from mtatwist.transaction import Account

ALICE = Account("alice", frozenset({"alice@example.org"}))
RIGHT = Login("alice", "secret")
HOUR = 3600.0
HOME, AFAR = "192.0.2.7", "203.0.113.200"


async def _outcome(login: Deferred[Account]) -> Account | type[Exception]:
    try:
        return await login
    except Exception as error:
        return type(error)


HASH_LATER = """
import sys
from mtatwist.auth import hashes
from mtatwist.auth.offline import OfflineCache
OfflineCache(seconds=1, reactor=None, metrics=None)
before = set(sys.modules)
assert hashes.verify("secret", hashes.make("secret"))
print(*set(sys.modules) - before)
"""


class Rig:
    def __init__(self) -> None:
        self.pump = Pump()
        self.pump.now = 1000.0
        self.metrics = Instruments()
        self.cache = OfflineCache(seconds=HOUR, reactor=self.pump, metrics=self.metrics)

    def remember(self, login: Login = RIGHT, account: Account = ALICE) -> None:
        self.cache.remember(login, account)
        self.pump.until(lambda: not self.cache._hashing)

    def begin(self, secret: str = "secret", user: str = "alice", peer: str = "") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.cache.judge(Login(user, secret, peer)))

    def judge(self, secret: str = "secret", user: str = "alice", peer: str = "") -> Any:
        return self.end(self.begin(secret, user, peer))

    def end(self, judged: Deferred[Any]) -> Any:
        """What it gives, after as long as that takes."""
        while not judged.called:
            self.pump.until(lambda: not self.cache._waiting)
            if not judged.called:
                self.pump.advance(REPLY_STEP)
        outcome = self.pump.outcome(judged)
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome

    def refuse(self, secret: str, user: str = "alice") -> None:
        """The directory says that it is wrong."""
        self.cache.refused(Login(user, secret), user)
        self.pump.until(lambda: not self.cache._waiting)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time."""
    monkeypatch.setattr(hashes, "_ARGON2", hashes._ARGON2.using(memory_cost=8, time_cost=1))


@pytest.fixture
def rig() -> Iterator[Rig]:
    it = Rig()
    yield it
    it.cache.stop()


def test_a_login_is_remembered(rig: Rig) -> None:
    assert rig.judge() is None
    rig.remember()
    assert rig.judge() == ALICE
    assert rig.judge("wrong") is None
    assert rig.judge(user="bob") is None
    assert rig.metrics.auth_offline.value == 1


def test_for_a_while(rig: Rig) -> None:
    rig.remember()
    rig.pump.now += HOUR - 1
    assert rig.judge() == ALICE
    rig.pump.now += 1
    assert rig.judge() is None
    assert len(rig.cache) == 0


def test_a_login_makes_it_last_again(rig: Rig) -> None:
    rig.remember()
    rig.pump.now += HOUR - 1
    rig.remember()
    rig.pump.now += HOUR - 1
    assert rig.judge() == ALICE


def test_a_closed_account_is_forgotten(rig: Rig) -> None:
    rig.remember()
    rig.cache.forget("alice")
    assert rig.judge() is None
    rig.cache.forget("nobody")


def test_a_password_that_was_changed_is_forgotten(rig: Rig) -> None:
    rig.remember()
    rig.refuse("secret")
    assert rig.judge() is None
    assert len(rig.cache) == 0


def test_nobody_makes_it_forget_by_guessing(rig: Rig) -> None:
    rig.remember()
    for guess in range(20):
        rig.refuse(f"wrong{guess}")
    rig.refuse("wrong", user="nobody")
    assert rig.judge() == ALICE


@pytest.mark.parametrize(
    "fail",
    [
        lambda cache: cache.forget("alice"),
        lambda cache: cache.forget("alice@example.org"),
        lambda cache: cache.refused(RIGHT, "alice"),
    ],
)
def test_a_failure_in_between_counts_too(rig: Rig, fail: Any) -> None:
    """The hash was not ready yet."""
    rig.cache.remember(Login("alice@example.org", "secret"), ALICE)
    fail(rig.cache)
    rig.remember(Login("bob", "other"), Account("bob"))
    assert rig.judge() is None
    assert len(rig.cache) == 1


def test_a_guess_in_between_changes_nothing(rig: Rig) -> None:
    rig.cache.remember(RIGHT, ALICE)
    rig.cache.refused(Login("alice", "wrong"), "alice")
    rig.pump.until(lambda: not rig.cache._waiting)
    assert rig.judge() == ALICE


def test_the_last_password_counts(rig: Rig) -> None:
    rig.remember()
    rig.pump.now += HASH_AGAIN_SECONDS
    rig.remember(Login("alice", "new"))
    assert rig.judge() is None
    assert len(rig.cache) == 1
    assert rig.judge("new") == ALICE


def test_who_logs_in_all_the_time_is_hashed_now_and_then(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.remember()
    known = rig.cache._known["alice"]
    rig.pump.now += HASH_AGAIN_SECONDS - 1
    more = Account("alice", frozenset({"new@example.org"}))
    rig.cache.remember(RIGHT, more)
    assert rig.cache._known["alice"] is known
    # What may be sent as is the latest in any case.
    assert rig.judge() == more


def test_guessing_ends_where_it_comes_from(rig: Rig) -> None:
    rig.remember(Login("alice", "secret", HOME))
    for _ in range(5):
        assert rig.judge(peer=AFAR) == ALICE
    for guess in range(GUESSES):
        assert rig.judge(f"wrong{guess}", peer=AFAR) is None
    assert rig.judge(peer=AFAR) is None
    assert rig.judge(peer="198.51.100.9") == ALICE
    assert rig.judge(peer=HOME) == ALICE


def test_guesses_at_the_same_time_end_too(rig: Rig) -> None:
    rig.remember()
    guesses = [rig.begin(f"wrong{n}") for n in range(20)]
    last = rig.begin()
    assert {rig.end(guess) for guess in guesses} == {None}
    assert rig.end(last) is None


def test_guessing_from_everywhere_spares_where_the_user_comes_from(rig: Rig) -> None:
    rig.remember(Login("alice", "secret", HOME))
    for guess in range(STRANGERS_GUESSES):
        assert rig.judge("wrong", peer=f"203.0.113.{guess}") is None
    assert rig.judge(peer="198.51.100.9") is None
    assert rig.judge(peer=HOME) == ALICE
    for guess in range(GUESSES):
        assert rig.judge(f"wrong{guess}", peer=HOME) is None
    assert rig.judge(peer=HOME) is None
    # So the directory is back.
    rig.remember(Login("alice", "secret", HOME))
    assert rig.judge(peer="198.51.100.9") == ALICE


def test_an_old_password_in_a_phone_is_one_guess(rig: Rig) -> None:
    rig.remember(Login("alice", "secret", HOME))
    for _ in range(3 * GUESSES):
        assert rig.judge("old", peer=HOME) is None
    assert rig.judge(peer=HOME) == ALICE


@pytest.mark.parametrize("spent", [False, True])
def test_nobody_hears_who_is_remembered(rig: Rig, spent: bool) -> None:
    """Not by how long it takes, at least."""
    rig.remember()
    for guess in range(GUESSES if spent else 0):
        rig.judge(f"wrong{guess}")
    began = rig.pump.now
    for user in ("alice", "nobody"):
        judged = rig.begin("wrong", user)
        rig.pump.until(lambda: not rig.cache._waiting)
        rig.pump.advance(REPLY_STEP - 0.01)
        rig.pump.drain()
        assert not judged.called
        rig.pump.advance(0.01)
        assert judged.called
    assert rig.pump.now == pytest.approx(began + 2 * REPLY_STEP)


def test_a_hash_that_took_longer_makes_it_longer_for_all(rig: Rig) -> None:
    rig.remember()
    judged = rig.begin("wrong")
    rig.pump.now += REPLY_STEP + 0.1
    rig.pump.until(lambda: not rig.cache._waiting)
    rig.pump.advance(REPLY_STEP - 0.2)
    assert not judged.called
    rig.pump.advance(0.11)
    assert judged.called


def test_an_account_is_one_whichever_name_was_given(rig: Rig) -> None:
    rig.remember(Login("alice@example.org", "secret"))
    rig.remember(Login("a.smith", "secret"))
    assert len(rig.cache) == 1
    for name in ("alice", "alice@example.org", "a.smith"):
        assert rig.judge(user=name) == ALICE
    # That it is a name of hers has not been seen.
    assert rig.judge(user="smith") is None
    rig.refuse("secret")
    for name in ("alice", "alice@example.org", "a.smith"):
        assert rig.judge(user=name) is None
    assert rig.cache._accounts == {}


def test_names_and_networks_are_bounded(rig: Rig) -> None:
    for number in range(50):
        rig.remember(Login(f"alice{number}", "secret", f"203.0.113.{number}"))
    assert len(rig.cache._accounts) == NAMES
    assert len(rig.cache._known["alice"].networks) == NETWORKS
    assert rig.judge(user="alice0") is None
    assert rig.judge(user="alice49") == ALICE


def test_a_name_that_is_somebody_elses_now(rig: Rig) -> None:
    rig.remember(Login("info", "secret"), ALICE)
    rig.remember(Login("info", "other"), Account("bob"))
    rig.cache.forget("alice")
    assert rig.judge("other", user="info") == Account("bob")


def test_it_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "ENTRIES", 3)
    for name in ("a", "b", "c", "d"):
        rig.remember(Login(name, "secret"), Account(name))
    assert len(rig.cache) == 3
    assert rig.judge(user="a") is None
    assert rig.judge(user="d") == Account("d")


def test_more_than_can_be_hashed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "WAITING", 0)
    for number in range(10):
        rig.cache.remember(Login(f"u{number}", "secret"), Account(f"u{number}"))
    rig.pump.until(lambda: rig.cache._waiting == 0)
    assert len(rig.cache) == 2
    assert rig.cache._hashing == {}
    assert rig.judge(user="u0") == Account("u0")


def test_hashes_are_salted_and_hard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rig.remember()
    rig.remember(Login("bob", "secret"), Account("bob"))
    one, other = (known.hash for known in rig.cache._known.values())
    assert one != other
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_libraries_are_loaded_while_the_server_may_read_them() -> None:
    run = subprocess.run([sys.executable, "-c", HASH_LATER], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_hash_that_fails_is_nobodys_trouble(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(password: str) -> str:
        raise MemoryError

    with monkeypatch.context() as patch, capturedLogs() as events:
        patch.setattr(hashes, "make", broken)
        rig.remember()
    assert [event["log_format"] for event in events] == ["offline_cache_failed"]
    assert rig.judge() is None
    rig.remember()
    assert rig.judge() == ALICE


def test_stopped(rig: Rig) -> None:
    rig.remember()
    rig.cache.stop()
    assert rig.judge() is None
    rig.cache.remember(RIGHT, ALICE)
    assert len(rig.cache) == 0


def test_the_checker_asks_it_in_trouble_only(rig: Rig) -> None:
    trouble = DirectoryTrouble("away")
    directory = FakeDirectory([entry()], trouble, trouble, [entry()], [entry()], trouble)
    it = checker(directory, offline=rig.cache)

    def login(secret: str = "secret") -> Any:
        outcome = Deferred.fromCoroutine(_outcome(it.requestAvatarId(Login("alice", secret))))
        return rig.end(outcome)

    assert login() == ALICE
    rig.pump.until(lambda: len(rig.cache) == 1)
    assert login() == ALICE
    # Nobody can tell, so it is not wrong.
    assert login("other") is AuthUnavailable
    directory.right = False
    assert login("another") is WrongPassword
    rig.pump.until(lambda: not rig.cache._waiting)
    assert len(rig.cache) == 1
    assert login() is WrongPassword
    rig.pump.until(lambda: not rig.cache._waiting)
    assert login() is AuthUnavailable


@pytest.mark.parametrize("found", [[], [entry(nsaccountlock=("TRUE",))]])
def test_who_is_gone_or_closed_is_forgotten(rig: Rig, found: list[Any]) -> None:
    rig.remember()
    failures: list[Failure] = []
    login = checker(FakeDirectory(found), offline=rig.cache).requestAvatarId(Login("alice", "whatever"))
    login.addErrback(failures.append)
    assert [failure.type for failure in failures] == [UnauthorizedLogin]
    assert len(rig.cache) == 0


def test_who_is_locked_out_is_not_forgotten(rig: Rig) -> None:
    """Anybody can lock somebody out, in a way, and the password is as right as before."""

    def locked(name: str) -> Deferred[None]:
        raise UnauthorizedLogin

    rig.remember()
    failures: list[Failure] = []
    checker(FakeDirectory([entry()]), offline=rig.cache).check(RIGHT, locked).addErrback(failures.append)
    assert len(failures) == len(rig.cache) == 1
