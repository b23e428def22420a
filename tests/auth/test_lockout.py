"""The policy beside a slow and simple one; and what does not fit into its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mtatwist.auth import tally
from mtatwist.auth.client import FINGERPRINT_BYTES, NOWHERE, Client, client, counted_name, fingerprint
from mtatwist.auth.known import KNOWN_SECONDS, KnownNetworks
from mtatwist.auth.lockout import Kind, Lockout
from mtatwist.auth.names import Names
from mtatwist.auth.pace import LONGEST, LONGEST_DELAY, Pace
from mtatwist.spool import schema
from mtatwist.store import lockouts

THRESHOLD, ADDRESS_THRESHOLD, WINDOW, DURATION = 3, 6, 100.0, 150.0
KEY = bytes(32)
CLIENTS = [Client(name, network) for name in ("alice", "bob") for network in ("192.0.2.1", "192.0.2.2", NOWHERE)]


@dataclass
class Naive:
    """Keeps every failure for ever, and goes through all of them each time."""

    duration: float
    failures: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    locks: dict[tuple[str, str], float] = field(default_factory=dict)
    seen: dict[tuple[Client, str], float] = field(default_factory=dict)
    known: dict[Client, float] = field(default_factory=dict)
    forgiven: dict[Client, list[float]] = field(default_factory=dict)

    def locked(self, subject: tuple[str, str], now: float) -> bool:
        return self.locks.get(subject, 0) > now

    def is_known(self, who: Client, now: float) -> bool:
        return who.network != NOWHERE and who in self.known and self.known[who] > now - KNOWN_SECONDS

    def closed(self, who: Client, now: float) -> bool:
        return (
            (self.locked((who.account, ""), now) and not self.is_known(who, now))
            or self.locked((who.account, who.network), now)
            or self.locked(("", who.network), now)
        )

    def count(self, subject: tuple[str, str], threshold: int, now: float) -> None:
        if self.locked(subject, now):
            return
        failures = self.failures.setdefault(subject, [])
        failures.append(now)
        live = len([at for at in failures if at > now - WINDOW])
        forgiven = [at for at in self.forgiven.get(Client(*subject), []) if at > now - WINDOW]
        if live >= threshold or live + len(forgiven) >= 3 * threshold:
            failures.clear()
            self.forgiven.pop(Client(*subject), None)
            self.locks[subject] = now + self.duration

    def failed(self, who: Client, secret: str, now: float) -> None:
        last = self.seen.get((who, secret))
        self.seen[who, secret] = now
        if last is not None and last > now - WINDOW:
            return
        self.count((who.account, ""), THRESHOLD, now)
        if self.locked((who.account, ""), now) and not self.is_known(who, now):
            self.failures.pop((who.account, who.network), None)
            self.forgiven.pop(who, None)
        else:
            self.count((who.account, who.network), THRESHOLD, now)
        if who.network != NOWHERE:
            self.count(("", who.network), ADDRESS_THRESHOLD, now)

    def succeeded(self, who: Client, now: float) -> None:
        if who.network != NOWHERE:
            self.forgiven.setdefault(who, []).extend(self.failures.pop((who.account, who.network), []))
            self.known[who] = now

    def unlock(self, user: str, address: str) -> None:
        for each in list(
            self.failures.keys()
            | self.locks.keys()
            | {tuple(who) for who in self.forgiven}
            | {tuple(who) for who, _ in self.seen}
        ):
            if user in ("", each[0]) and address in ("", each[1]):
                self.failures.pop(each, None)
                self.forgiven.pop(Client(*each), None)
                self.locks.pop(each, None)
                self.seen = {pair: at for pair, at in self.seen.items() if tuple(pair[0]) != each}


def new_lockout(**other: Any) -> Lockout:
    return Lockout(
        **{
            "threshold": THRESHOLD,
            "window": WINDOW,
            "duration": DURATION,
            "address_threshold": ADDRESS_THRESHOLD,
            **other,
        }
    )


class LikeTheNaive(RuleBasedStateMachine):
    """Logins, time and restarts, on a real database: who may have a password looked at is the same for both."""

    duration = DURATION

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.connection = apsw.Connection(":memory:")
        schema.migrate(self.connection)
        self.connection.execute("INSERT INTO lockout_key VALUES (?)", (KEY,))
        self.naive = Naive(self.duration)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.lockout = new_lockout(duration=self.duration)
        (saved,) = lockouts.load(self.connection, [self.lockout.oldest(self.now)])
        self.lockout.restore(saved, self.now)

    @rule(who=st.sampled_from(CLIENTS), secret=st.sampled_from(["right", "a", "b", "c", "d", "e", "f", "g"]))
    def log_in(self, who: Client, secret: str) -> None:
        if self.naive.closed(who, self.now):
            return
        if secret == "right":
            self.lockout.succeeded(who, self.now)
            self.naive.succeeded(who, self.now)
        else:
            self.lockout.failed(who, secret, self.now)
            # Some passwords have the same, and are the same.
            self.naive.failed(who, fingerprint(KEY, who.account, secret), self.now)
        lockouts.save(self.connection, [self.lockout.take_changes()])

    @rule(who=st.sampled_from(CLIENTS), start=st.integers(0, 100))
    def guess(self, who: Client, start: int) -> None:
        for number in range(start, start + 3):
            self.log_in(who, f"guess {number}")

    @rule(user=st.sampled_from(["", "alice"]), address=st.sampled_from(["", "192.0.2.1"]))
    def unlock(self, user: str, address: str) -> None:
        if user or address:
            self.lockout.unlock(user, address, self.now)
            self.naive.unlock(user, address)
            lockouts.save(self.connection, [self.lockout.take_changes()])

    @rule(seconds=st.sampled_from([0.5, 10.0, 49.0, 100.0, 150.0, 151.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(sweep=st.booleans())
    @precondition(lambda self: self.now > 1000)
    def sweep(self, sweep: bool) -> None:
        self.lockout.sweep(self.now)
        if sweep:
            lockouts.save(self.connection, [self.lockout.take_changes()])

    @invariant()
    def they_agree(self) -> None:
        for who in CLIENTS:
            assert (self.lockout.closed(who, self.now) is not None) == self.naive.closed(who, self.now)
        active = {subject for subject, until in self.naive.locks.items() if until > self.now}
        assert {(lock.user, lock.address) for lock in self.lockout.locks(self.now)} == active


class LikeTheNaiveWithShortLocks(LikeTheNaive):
    """Locks that end before their failures leave the window."""

    duration = 40.0


LikeTheNaive.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
LikeTheNaiveWithShortLocks.TestCase.settings = LikeTheNaive.TestCase.settings
TestLikeTheNaive = LikeTheNaive.TestCase
TestLikeTheNaiveWithShortLocks = LikeTheNaiveWithShortLocks.TestCase


# Names and addresses.


@pytest.mark.parametrize("user", ["ALICE", "alice ", " alice", "al\u200bice", "\uff21lice", "a\u00adlice", "alice\0"])
def test_spellings_of_one_name(user: str) -> None:
    assert counted_name(user) == "alice"


@pytest.mark.parametrize("user", ["alicia", "al ice", "älice", "alice@example.org"])
def test_other_names(user: str) -> None:
    assert counted_name(user) != "alice"


@given(st.text(min_size=1))
def test_a_name_is_counted_the_same_in_any_case_and_as_it_was_counted(user: str) -> None:
    counted = counted_name(user)
    assert counted
    assert counted_name(counted) == counted
    assert counted_name(user.lower()) == counted or user.lower().casefold() != user.casefold()
    counted.encode()


def test_a_name_that_is_too_long_to_be_one_is_counted_in_bounded_space() -> None:
    one, other = counted_name("a" * 64_000), counted_name("a" * 64_001)
    assert one != other
    assert len(one) < 100


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", NOWHERE),
        ("/run/mta.sock", NOWHERE),
    ],
)
def test_networks(peer: str, network: str) -> None:
    assert client("a", peer).network == network


def test_a_fingerprint_tells_passwords_apart_and_little_more() -> None:
    key = bytes(32)
    assert fingerprint(key, "alice", "a") == fingerprint(key, "alice", "a")
    distinct = {fingerprint(key, "alice", str(number)) for number in range(100)}
    assert len(distinct) > 95
    assert fingerprint(key, "alice", "a") != fingerprint(key, "bob", "a")
    assert fingerprint(key, "alice", "a") != fingerprint(bytes(31) + b"1", "alice", "a")
    assert FINGERPRINT_BYTES == 2, "so many passwords have the same that nobody can say which it was"


# Bounds.


def small(**other: Any) -> Lockout:
    lockout = new_lockout(subjects=10, **other)
    lockout.restore(lockouts.Saved(bytes(32), [], []), 0.0)
    return lockout


def made_up(number: int) -> Client:
    return Client(f"nobody{number}", f"198.51.{number // 250}.{number % 250}")


def lock(lockout: Lockout, who: Client, now: float) -> None:
    for guess in range(THRESHOLD):
        lockout.failed(who, f"guess {guess}", now)


def test_made_up_names_don_t_unlock_anybody() -> None:
    lockout = small()
    alice = Client("alice", "192.0.2.1")
    lock(lockout, alice, 0.0)
    for number in range(1000):
        if lockout.closed(made_up(number), 1.0) is None:
            lock(lockout, made_up(number), 1.0)
    assert lockout.closed(alice, DURATION - 1) is Kind.ACCOUNT
    assert lockout.closed(alice, DURATION) is None


def test_made_up_names_don_t_make_a_count_begin_anew_cheaply() -> None:
    lockout = small()
    alice = Client("alice", "192.0.2.1")
    for guess in range(THRESHOLD - 1):
        lockout.failed(alice, f"guess {guess}", 0.0)
    for number in range(1000):
        lockout.failed(made_up(number), "guess", 1.0)
    lockout.failed(alice, "the last", 2.0)
    assert lockout.closed(alice, 2.0) is Kind.ACCOUNT


def test_where_no_lock_has_room_only_known_addresses_get_in() -> None:
    lockout = small()
    home, elsewhere = Client("alice", "192.0.2.1"), Client("alice", "192.0.2.2")
    lockout.succeeded(home, 0.0)
    for number in range(10):
        lock(lockout, made_up(number), 1.0)
    assert lockout.closed(home, 2.0) is None
    assert lockout.closed(elsewhere, 2.0) is Kind.ACCOUNT
    assert lockout.closed(elsewhere, DURATION + 1.0) is None
    lock(lockout, home, 2.0)
    assert lockout.closed(home, 2.0) is Kind.PAIR


def test_where_no_lock_of_a_pair_has_room_nobody_guesses_on() -> None:
    lockout = small()
    for number in range(11):
        lockout.succeeded(Client(f"user{number}", "192.0.2.1"), 0.0)
    for number in range(10):
        lock(lockout, Client(f"user{number}", "192.0.2.1"), 1.0)
    assert lockout.closed(Client("user10", "192.0.2.1"), 1.0) is Kind.PAIR
    assert lockout.closed(Client("user10", "192.0.2.1"), 1.0 + DURATION) is None


def test_what_was_asked_before_there_was_no_room_makes_no_room() -> None:
    lockout = small(address_threshold=THRESHOLD)
    for number in range(50):
        lock(lockout, made_up(number), 1.0)
    assert len(lockout.locks(1.0)) <= 3 * 10


def test_memory_and_disk_are_bounded() -> None:
    connection = apsw.Connection(":memory:")
    schema.migrate(connection)
    lockout = small()
    for number in range(2000):
        now = float(number) / 10
        lockout.failed(made_up(number), "guess", now)
        if number % 2:
            lockout.sweep(now)
        lockouts.save(connection, [lockout.take_changes()])
        assert connection.execute("SELECT count(*) FROM lockout").fetchall()[0][0] <= 6 * 10


def test_changes_that_cannot_be_saved_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.auth.lockout.CHANGED", 100)
    lockout = small()
    for number in range(1000):
        lockout.failed(made_up(number), "guess", 0.0)
        lockout.give_back(lockout.take_changes())
    changes = lockout.take_changes()
    assert len(changes.kept) + len(changes.gone) <= 100


def test_the_wrong_passwords_of_a_pair_are_bounded() -> None:
    lockout = small(threshold=1000, address_threshold=1000)
    for guess in range(500):
        lockout.failed(CLIENTS[0], f"guess {guess}", 0.0)
    pair = next(row for row in lockout.take_changes().kept if row.account and row.network)
    assert len(pair.wrong) == tally.WRONG_PASSWORDS


def test_a_threshold_that_was_made_smaller_counts_from_the_next_failure() -> None:
    lockout = small(threshold=5)
    for guess in range(4):
        lockout.failed(CLIENTS[0], f"guess {guess}", 0.0)
    later = small(threshold=2)
    later.restore(lockouts.Saved(bytes(32), lockout.take_changes().kept, []), 1.0)
    assert later.closed(CLIENTS[0], 1.0) is None
    assert {most for _, most in later.leeway(CLIENTS[0], 1.0)} == {1, 2}
    later.failed(CLIENTS[0], "one more", 1.0)
    assert later.closed(CLIENTS[0], 1.0) is Kind.ACCOUNT


# Known addresses.


def test_one_account_does_not_drive_out_what_is_known_of_others() -> None:
    networks = KnownNetworks(limit=100, per_account=10)
    networks.add(Client("bob", "192.0.2.1"), 0.0)
    for number in range(1000):
        networks.add(Client("alice", f"2001:db8:0:{number:x}::/64"), 1.0 + number)
    assert networks.has(Client("bob", "192.0.2.1"), 1001.0)
    assert [networks.has(Client("alice", f"2001:db8:0:{number:x}::/64"), 1001.0) for number in range(989, 1000)] == [
        False,
        *[True] * 10,
    ]


def test_the_longest_unused_are_forgotten_first() -> None:
    networks = KnownNetworks(limit=3, per_account=10)
    for number, account in enumerate(["alice", "bob", "carol", "alice", "dave"]):
        networks.add(Client(account, "192.0.2.1"), float(number))
    assert [networks.has(Client(name, "192.0.2.1"), 5.0) for name in ("alice", "bob", "carol", "dave")] == [
        True,
        False,
        True,
        True,
    ]
    assert set(networks.take_changes()[1]) == {Client("bob", "192.0.2.1")}


def test_a_busy_client_is_saved_once_an_hour() -> None:
    networks = KnownNetworks()
    saved = 0
    for second in range(0, 7200, 10):
        networks.add(CLIENTS[0], float(second))
        saved += len(networks.take_changes()[0])
    assert saved == 2


def test_what_is_too_old_is_forgotten() -> None:
    networks = KnownNetworks()
    networks.add(CLIENTS[0], 0.0)
    assert networks.has(CLIENTS[0], KNOWN_SECONDS - 1)
    assert not networks.has(CLIENTS[0], KNOWN_SECONDS)
    networks.take_changes()
    networks.sweep(KNOWN_SECONDS)
    assert networks.take_changes() == ([], [CLIENTS[0]])


# Names of accounts.


def test_names_are_bounded_and_those_in_use_stay() -> None:
    names = Names(limit=3)
    for number in range(10):
        names.learn(f"{number}@example.org", f"user{number}")
        assert names.account("0@example.org") == "user0"
    assert [names.account(f"{number}@example.org")[:4] for number in (0, 1, 8, 9)] == ["user", "1@ex", "user", "user"]


def test_a_name_that_becomes_an_account_of_its_own_is_itself_again() -> None:
    names = Names()
    names.learn("sales", "alice")
    names.learn("sales", "sales")
    assert names.account("sales") == "sales"


# The pace.


@given(st.lists(st.floats(0, 100)), st.integers(0, 2000))
def test_delays_are_bounded(taken: list[float], times: int) -> None:
    pace = Pace(900.0)
    for seconds in taken:
        pace.took(seconds, 0.0)
    delay = 0.0
    for _ in range(times):
        delay = pace.refused(CLIENTS[0], 0.0)
    assert delay <= LONGEST
    if not taken:
        assert delay <= LONGEST_DELAY


def test_a_delay_is_forgotten_after_a_while() -> None:
    pace = Pace(900.0)
    for _ in range(5):
        pace.refused(CLIENTS[0], 0.0)
    assert pace.refused(CLIENTS[0], 900.0) == pace.refused(CLIENTS[1], 900.0)


def test_what_a_slow_directory_took_is_forgotten_after_a_while() -> None:
    pace = Pace(900.0)
    pace.took(7.0, 0.0)
    pace.took(2.0, 10.0)
    assert [pace.refused(made_up(round(at)), at) for at in (899.0, 900.0, 910.0)] == [7.0, 2.0, 0.5]


def test_the_clients_whose_delays_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtatwist.auth.pace.CLIENTS", 10)
    pace = Pace(900.0)
    for number in range(100):
        pace.refused(made_up(number), 0.0)
    assert len(pace._refused) == 10
