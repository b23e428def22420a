"""Logins that are remembered for when the directory is away: only right ones, and for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from auth.test_ldap import FakeDirectory, checker, entry
from rigs.pump import Pump
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from mtatwist.auth import offline
from mtatwist.auth.credentials import AuthUnavailable, Login, WrongPassword
from mtatwist.auth.offline import GUESSES, HASH_AGAIN_SECONDS, OfflineCache
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.metrics.instruments import Instruments
from mtatwist.transaction import Account

ALICE = Account("alice", frozenset({"alice@example.org"}))
RIGHT = Login("alice", "secret")
HOUR = 3600.0


class Rig:
    def __init__(self) -> None:
        self.pump = Pump()
        self.pump.now = 1000.0
        self.metrics = Instruments()
        self.cache = OfflineCache(seconds=HOUR, reactor=self.pump, metrics=self.metrics)

    def remember(self, login: Login = RIGHT, account: Account = ALICE) -> None:
        self.cache.remember(login, account)
        self.pump.until(lambda: not self.cache._hashing)

    def judge(self, secret: str = "secret", user: str = "alice") -> Any:
        return self.pump.wait(Deferred.fromCoroutine(self.cache.judge(Login(user, secret))))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time."""
    monkeypatch.setattr(offline, "_SCHEME", offline._SCHEME.using(memory_cost=8, time_cost=1))


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


def test_a_failure_forgets(rig: Rig) -> None:
    rig.remember()
    rig.cache.forget("alice")
    assert rig.judge() is None
    rig.cache.forget("nobody")


def test_a_failure_in_between_forgets_too(rig: Rig) -> None:
    """The hash was not ready yet."""
    rig.cache.remember(RIGHT, ALICE)
    rig.cache.forget("alice")
    rig.remember(Login("bob", "other"), Account("bob"))
    assert rig.judge() is None
    assert len(rig.cache) == 1


def test_the_last_password_counts(rig: Rig) -> None:
    rig.remember()
    rig.pump.now += HASH_AGAIN_SECONDS
    rig.remember(Login("alice", "new"))
    assert rig.judge() is None
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


def test_guessing_ends(rig: Rig) -> None:
    rig.remember()
    for _ in range(5):
        assert rig.judge() == ALICE
    for guess in range(GUESSES):
        assert rig.judge(f"wrong{guess}") is None
    assert rig.judge() is None


def test_guesses_at_the_same_time_end_too(rig: Rig) -> None:
    rig.remember()
    guesses = [Deferred.fromCoroutine(rig.cache.judge(Login("alice", f"wrong{n}"))) for n in range(20)]
    last = Deferred.fromCoroutine(rig.cache.judge(RIGHT))
    assert {rig.pump.wait(guess) for guess in guesses} == {None}
    assert rig.pump.wait(last) is None


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


def test_hashes_are_salted_and_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    one, other = (offline._SCHEME.hash("secret") for _ in range(2))
    assert one != other
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_hash_that_fails_is_nobodys_trouble(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def hash(self, secret: str) -> str:
            raise MemoryError

    with monkeypatch.context() as patch, capturedLogs() as events:
        patch.setattr(offline, "_SCHEME", Broken())
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
    directory = FakeDirectory([entry()], trouble, trouble, [entry()], trouble)
    it = checker(directory, offline=rig.cache)

    def login(secret: str = "secret") -> Any:
        outcome = rig.pump.outcome(it.requestAvatarId(Login("alice", secret)))
        return getattr(outcome, "type", outcome)

    assert login() == ALICE
    rig.pump.until(lambda: len(rig.cache) == 1)
    assert login() == ALICE
    # Nobody can tell, so it is not wrong.
    assert login("other") is AuthUnavailable
    directory.right = False
    assert login() is WrongPassword
    assert login() is AuthUnavailable
