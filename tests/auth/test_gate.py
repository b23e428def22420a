"""What somebody who logs in, or guesses, gets to see of the lockout, and what it asks the checker behind it."""

from __future__ import annotations

from typing import Any

import pytest
from auth.gates import ELSEWHERE, HOME, REFUSED, RIGHT, UNAVAILABLE, Rig, guesses, outcome
from twisted.cred.error import LoginDenied, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from mtatwist.auth import gate
from mtatwist.auth.credentials import AuthUnavailable, HopelessLogin, INamingChecker, Login, WrongPassword
from mtatwist.auth.lockout import Lock
from mtatwist.auth.pace import LONGEST_DELAY
from mtatwist.auth.repeats import REPEATED_SECONDS
from mtatwist.store.trouble import StoreBroken
from mtatwist.transaction import Account


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def events() -> Any:
    seen: list[Any] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def test_the_right_password_gets_in_at_once(rig: Rig) -> None:
    assert rig.begin() == ["alice"]


def test_the_right_password_gets_in_at_once_after_wrong_ones(rig: Rig) -> None:
    rig.guess(*guesses(4))
    assert rig.begin() == ["alice"]


# What locks, and for how long.


def test_the_fifth_wrong_password_locks_the_account(rig: Rig) -> None:
    rig.guess(*guesses(4))
    assert rig.asks(secret="guess 4")
    assert rig.log_in() == REFUSED
    assert not rig.asks()


def test_wrong_passwords_from_two_addresses_count_together(rig: Rig) -> None:
    rig.guess(*guesses(3))
    rig.guess(*guesses(2, 3), peer=ELSEWHERE)
    assert rig.log_in() == REFUSED
    assert rig.log_in(peer=ELSEWHERE) == REFUSED
    assert rig.log_in(peer="203.0.113.1") == REFUSED


def test_the_lock_ends_by_itself(rig: Rig) -> None:
    rig.guess(*guesses(5))
    rig.clock.advance(1790)
    assert rig.log_in() == REFUSED
    rig.clock.advance(10)
    assert rig.log_in() == "alice"


def test_trying_does_not_make_the_lock_longer(rig: Rig) -> None:
    rig.guess(*guesses(5))
    for _ in range(5):
        rig.clock.advance(360)
        rig.log_in("another guess")
    assert rig.log_in() == "alice"


def test_what_is_older_than_the_window_does_not_count(rig: Rig) -> None:
    rig.guess(*guesses(4))
    rig.clock.advance(900)
    rig.guess(*guesses(4, 4))
    assert rig.log_in() == "alice"


def test_another_account_is_not_locked(rig: Rig) -> None:
    rig.guess(*guesses(5))
    assert rig.log_in(user="bob") == "bob"


def test_one_name_in_several_spellings_is_one_account(rig: Rig) -> None:
    for number, user in enumerate(["alice", "Alice", "ALICE", "a\u00adlice", "\uff41lice"]):
        rig.guess(f"guess {number}", user=user)
    assert not rig.asks()


def test_a_name_that_nobody_has_is_locked_like_any_other(rig: Rig) -> None:
    rig.guess(*guesses(5), user="nobody")
    assert not rig.asks(user="nobody")


def test_the_same_wrong_password_again_and_again_counts_once(rig: Rig) -> None:
    rig.guess(*["old password"] * 20)
    rig.guess(*guesses(3))
    assert rig.log_in() == "alice"
    assert rig.metrics.lockout_failures.value == 4


def test_the_same_wrong_password_from_several_addresses_counts_for_each(rig: Rig) -> None:
    for number in range(5):
        rig.guess("password1", peer=f"198.51.100.{number}")
    assert not rig.asks()


def test_a_device_with_an_old_password_does_not_lock_its_owner_out(rig: Rig) -> None:
    for _ in range(100):
        rig.clock.advance(300)
        assert rig.log_in("old password") == REFUSED
        assert rig.log_in() == "alice"
    assert rig.metrics.lockout_failures.value == 1


def test_a_repeated_password_is_asked_about_again_soon(rig: Rig) -> None:
    rig.guess("tomorrow's")
    rig.checker.answer = lambda login: login.user
    rig.clock.advance(REPEATED_SECONDS)
    assert rig.log_in("tomorrow's") == "alice"


def test_a_repetition_costs_the_checker_nothing(rig: Rig) -> None:
    # Within their time.
    rig.guess(*["the same"] * 3)
    assert len(rig.checker.asked) == 1
    assert rig.asks(secret="the same", peer=ELSEWHERE), "the password may be right there"


def test_repetitions_make_nobody_wait_for_long(rig: Rig) -> None:
    rig.guess("tomorrow's")
    rig.checker.answer = lambda login: login.user
    begun = rig.clock.seconds()
    while rig.log_in("tomorrow's") == REFUSED:
        assert rig.clock.seconds() - begun < REPEATED_SECONDS + LONGEST_DELAY
    assert rig.log_in("tomorrow's") == "alice"


def test_repetitions_at_the_same_time_are_asked_about_once_they_have_their_turn(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.1
    results = [rig.begin("the same") for _ in range(50)]
    rig.clock.pump([0.1] * 200)
    assert [result[0].type for result in results] == [UnauthorizedLogin] * 50
    assert len(rig.checker.asked) == 5


def test_who_is_unlocked_is_asked_about_again(rig: Rig) -> None:
    rig.guess("tomorrow's")
    outcome(Deferred.fromCoroutine(rig.gate.unlock(user="alice")))
    assert rig.asks(secret="tomorrow's")


def test_fifty_wrong_passwords_lock_the_address_for_everybody(rig: Rig) -> None:
    for number in range(49):
        rig.guess("password1", user=f"user{number}")
    assert rig.log_in(user="bob") == "bob"
    rig.guess("password1", user="user49")
    assert rig.log_in(user="bob") == REFUSED
    assert rig.log_in(user="bob", peer=ELSEWHERE) == "bob"


def test_an_ipv6_network_is_one_address(rig: Rig) -> None:
    for number in range(50):
        rig.guess("password1", user=f"user{number}", peer=f"2001:db8:0:1::{number:x}")
    assert not rig.asks(user="bob", peer="2001:db8:0:1:ffff::1")
    assert rig.asks(user="bob", peer="2001:db8:0:2::1")


def test_peers_without_an_address_are_never_locked_all_together(rig: Rig) -> None:
    for number in range(60):
        rig.guess("password1", user=f"user{number}", peer="")
    assert rig.log_in(user="bob", peer="") == "bob"
    rig.guess(*guesses(5), user="carol", peer="")
    assert not rig.asks(user="carol", peer="")


# Whom a lock spares.


def test_a_known_address_is_spared_by_the_lock_of_the_account(rig: Rig) -> None:
    rig.log_in()
    rig.guess(*guesses(5), peer=ELSEWHERE)
    assert rig.log_in(peer=ELSEWHERE) == REFUSED
    assert rig.log_in() == "alice"


def test_a_known_address_is_counted_by_itself(rig: Rig) -> None:
    rig.log_in()
    rig.guess(*guesses(5), peer=ELSEWHERE)
    rig.guess(*guesses(5))
    assert not rig.asks()
    rig.clock.advance(1800)
    assert rig.log_in() == "alice"


def test_a_lock_at_a_known_address_leaves_another_known_one_alone(rig: Rig) -> None:
    rig.log_in()
    rig.log_in(peer=ELSEWHERE)
    rig.guess(*guesses(5))
    assert rig.log_in() == REFUSED
    assert rig.log_in(peer=ELSEWHERE) == "alice"
    assert (rig.metrics.lockout_accounts.value, rig.metrics.lockout_pairs.value) == (1, 1)


def test_success_makes_its_pair_count_anew(rig: Rig) -> None:
    rig.log_in()
    for round_ in range(3):
        rig.guess(*guesses(4, 4 * round_))
        assert rig.log_in() == "alice"


@pytest.mark.parametrize("restarts", [False, True])
def test_success_makes_it_count_anew_three_times_the_threshold_at_most(rig: Rig, restarts: bool) -> None:
    """Behind the address where the user logs in all the time somebody else may guess."""
    for number in range(15):
        assert rig.log_in() == "alice"
        if restarts:
            rig.wait(rig.begin("the same as ever"))
            rig.restart()
        rig.guess(f"guess {number}")
        if not rig.asks():
            break
    assert number == 14 - restarts
    assert rig.metrics.lockout_pairs.value == 1


def test_where_peers_have_no_address_a_login_forgives_nothing_and_makes_nothing_known(rig: Rig) -> None:
    for guess in guesses(5):
        assert rig.log_in(peer="") == "alice"
        rig.guess(guess, peer="")
    assert not rig.asks(peer="")
    assert not rig.asks()
    assert rig.log_in(user="bob", peer="") == "bob"


def test_a_known_address_is_spared_by_locks_from_where_peers_have_none(rig: Rig) -> None:
    rig.log_in()
    rig.guess(*guesses(5), peer="")
    assert rig.log_in() == "alice"


def test_success_does_not_forgive_what_others_did(rig: Rig) -> None:
    rig.guess(*guesses(4), peer=ELSEWHERE)
    rig.log_in()
    rig.guess("guess 4", peer=ELSEWHERE)
    assert not rig.asks(peer=ELSEWHERE)


def test_an_address_is_known_for_thirty_days(rig: Rig) -> None:
    rig.log_in()
    rig.clock.advance(30 * 86400 - 60)
    rig.guess(*guesses(5), peer=ELSEWHERE)
    assert rig.log_in() == "alice"
    rig.clock.advance(30 * 86400 + 1)
    rig.guess(*guesses(5), peer=ELSEWHERE)
    assert rig.log_in() == REFUSED


# Accounts with several names.


def alice_has_two_names(login: Login) -> Any:
    """As a directory that looks for users by name and by address."""
    if login.user not in ("alice", "alice@example.org"):
        raise UnauthorizedLogin
    if login.secret != RIGHT:
        raise WrongPassword("Alice")
    return Account("Alice")


ADDRESS = "alice@example.org"


@pytest.fixture
def two_names(rig: Rig) -> Rig:
    rig.checker.answer = alice_has_two_names
    return rig


def test_what_is_tried_under_all_names_of_an_account_counts_together(two_names: Rig) -> None:
    two_names.guess(*guesses(2))
    two_names.guess(*guesses(3, 2), user=ADDRESS)
    assert not two_names.asks()
    assert not two_names.asks(user=ADDRESS)


def test_a_name_that_was_not_known_to_be_a_locked_account_s_is_of_no_use(two_names: Rig) -> None:
    two_names.guess(*guesses(5))
    assert two_names.log_in(user=ADDRESS) == REFUSED
    assert not two_names.asks(user=ADDRESS)
    assert two_names.metrics.lockout_refused.value == 2
    assert two_names.metrics.lockout_failures.value == 5


def test_guessing_under_all_names_at_the_same_time_gains_nothing(two_names: Rig) -> None:
    two_names.checker.seconds = lambda login: 0.1
    results = [two_names.begin(f"guess {n}", user=("alice", ADDRESS)[n % 2]) for n in range(8)]
    late = [two_names.begin(RIGHT, user=user) for user in ("alice", ADDRESS)]
    two_names.clock.pump([0.01] * 1000)
    assert all(results)
    assert [result[0].type for result in late] == [UnauthorizedLogin] * 2


@implementer(INamingChecker)
class TwoSteps:
    """As a directory that is searched for the name before it is asked about the password; everybody is alice."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.proved: list[str] = []
        self.seconds = lambda login: 0.5

    def requestAvatarId(self, login: Login) -> Any:
        raise AssertionError

    def check(self, login: Login, named: Any) -> Any:
        return Deferred.fromCoroutine(self._check(login, named))

    async def _check(self, login: Login, named: Any) -> Any:
        await deferLater(self._rig.clock, 0.2)
        await named("alice")
        self.proved.append(login.secret)
        await deferLater(self._rig.clock, self.seconds(login))
        if login.secret != RIGHT:
            raise WrongPassword("alice")
        return Account("alice")


@pytest.fixture
def steps(rig: Rig) -> TwoSteps:
    steps = rig.checker = TwoSteps(rig)  # type: ignore[assignment]
    rig.restart()
    return steps


def test_guessing_in_parallel_under_new_names_from_everywhere_gains_nothing(rig: Rig, steps: TwoSteps) -> None:
    results = [
        rig.begin(f"guess {name} {each}", user=f"alias{name}", peer=f"198.51.100.{name}")
        for name in range(20)
        for each in range(5)
    ]
    rig.clock.pump([0.05] * 1000)
    assert all(results)
    assert len(steps.proved) == 5


def test_a_locked_account_does_not_tell_its_password_under_a_new_name(rig: Rig, steps: TwoSteps) -> None:
    steps.seconds = lambda login: 4.0 if login.secret == RIGHT else 0.5
    rig.guess(*guesses(5), user="alice")
    taken = [rig.taken(secret, user=f"alias {secret}", peer=ELSEWHERE) for secret in ("wrong", RIGHT)]
    assert taken[0] == pytest.approx(taken[1], abs=0.002)
    assert len(steps.proved) == 5


def test_waiting_for_the_account_ends_with_the_login(rig: Rig, steps: TwoSteps) -> None:
    steps.seconds = lambda login: 1e6
    results = [rig.begin(f"guess {name}", user=f"alias{name}") for name in range(8)]
    rig.clock.pump([0.1] * 103)
    assert [result[0].type for result in results] == [AuthUnavailable] * 8
    steps.seconds = lambda login: 0.1
    assert rig.log_in(user="alias1") == Account("alice")


def test_the_longest_check_of_late_hides_all_others_whoever_was_right(rig: Rig) -> None:
    rig.checker.seconds = lambda login: {"alice": 1.7, "bob": 0.9}.get(login.user, 0.1)
    rig.log_in()
    rig.log_in(user="bob")
    for number in range(100):
        rig.guess("wrong", user=f"nobody{number}", peer=f"198.51.{number}.1")
    assert rig.taken("wrong", user="one more") == pytest.approx(1.7, abs=0.02)
    assert rig.taken("wrong", user="bob") == pytest.approx(1.7, abs=0.02)


def test_an_address_is_known_for_all_names(two_names: Rig) -> None:
    two_names.log_in(user=ADDRESS)
    two_names.guess(*guesses(5), peer=ELSEWHERE)
    assert two_names.log_in(user="alice") == Account("Alice")


def test_the_delay_does_not_tell_which_names_an_account_has(two_names: Rig) -> None:
    two_names.guess(*guesses(3))
    assert two_names.taken("guess 3", user=ADDRESS) == two_names.taken("guess 3", user="nobody") == pytest.approx(0.5)


# Restarts, and the disk.


def test_a_lock_survives_a_restart(rig: Rig) -> None:
    rig.guess(*guesses(5))
    rig.restart()
    assert rig.log_in() == REFUSED
    assert len(rig.checker.asked) == 5
    rig.clock.advance(1800)
    rig.restart()
    assert rig.log_in() == "alice"


def test_counts_repetitions_and_known_addresses_survive_restarts(rig: Rig) -> None:
    rig.log_in(peer=ELSEWHERE)
    rig.restart()
    rig.guess(*guesses(4))
    rig.restart()
    rig.guess(*guesses(4))
    rig.restart()
    assert rig.asks(secret="guess 0"), "the same four count once"
    rig.restart()
    rig.guess("guess 4")
    assert not rig.asks()
    assert rig.log_in(peer=ELSEWHERE) == "alice"


def test_a_clock_that_was_set_back_does_not_lock_for_longer(rig: Rig) -> None:
    rig.clock.advance(100_000)
    rig.guess(*guesses(5))
    rig.clock.rightNow -= 90_000
    rig.restart()
    assert rig.log_in() == REFUSED
    rig.clock.advance(1800)
    assert rig.log_in() == "alice"


def test_a_failure_is_on_the_disk_before_it_is_told(rig: Rig) -> None:
    rig.log_in(user="bob")
    rig.store.held = True
    result = rig.begin("wrong")
    rig.clock.advance(60)
    assert result == []
    rig.store.release()
    assert rig.wait(result) == REFUSED
    assert any(row[0] == "alice" for row in rig.store.rows("lockout"))


@pytest.mark.parametrize("secret", ["wrong", "hunter2, or so"])
def test_no_password_is_on_the_disk(rig: Rig, secret: str) -> None:
    rig.guess(secret)
    assert secret not in repr(rig.store.rows("lockout"))
    assert secret not in repr(rig.store.rows("lockout_known"))


def test_when_it_cannot_be_kept_nobody_is_told_and_it_counts_all_the_same(rig: Rig) -> None:
    rig.guess(*guesses(1))
    rig.store.trouble = StoreBroken("the disk is gone")
    for guess in guesses(4, 1):
        assert rig.log_in(guess) == UNAVAILABLE
    assert rig.log_in() == UNAVAILABLE, "locked; but a wrong password is not told from that, either"
    assert not rig.asks()
    assert rig.log_in(user="bob") == "bob", "who is right gets in"
    rig.store.trouble = None
    assert rig.log_in() == REFUSED
    rig.restart()
    assert rig.log_in() == REFUSED, "what could not be kept then was kept later"


def test_when_the_lockout_cannot_be_read_nobody_gets_in_until_it_can(rig: Rig) -> None:
    rig.guess(*guesses(5))
    rig.restart()
    rig.store.trouble = StoreBroken("the disk is gone")
    assert rig.log_in() == UNAVAILABLE
    assert rig.log_in(user="bob") == UNAVAILABLE
    rig.store.trouble = None
    assert rig.log_in() == REFUSED
    assert rig.log_in(user="bob") == "bob"


def test_the_disk_forgets_what_is_over(rig: Rig) -> None:
    rig.log_in(user="bob")
    rig.guess(*guesses(5))
    rig.clock.pump([30] * 70)
    assert rig.store.rows("lockout") == []
    assert rig.metrics.lockout_active.value == 0
    assert rig.clock.getDelayedCalls() == []


def test_a_login_that_changes_nothing_costs_no_write(rig: Rig) -> None:
    rig.log_in()
    before = rig.store.jobs
    rig.log_in()
    assert rig.store.jobs == before


# Trouble is nobody's failure.


@pytest.mark.parametrize(
    "error",
    [AuthUnavailable("the directory is away"), RuntimeError("a bug"), UnhandledCredentials("?"), OSError("no")],
    ids=lambda error: type(error).__name__,
)
def test_trouble_is_never_a_counted_failure(rig: Rig, error: Exception) -> None:
    def fail(login: Login) -> Any:
        raise error

    answer, rig.checker.answer = rig.checker.answer, fail
    for guess in guesses(100):
        assert rig.wait(rig.begin(guess)) == UNAVAILABLE
    rig.checker.answer = answer
    assert rig.log_in() == "alice"
    assert rig.metrics.lockout_failures.value == 0


def test_a_checker_that_raises_at_once_is_trouble_too(rig: Rig) -> None:
    rig.checker.requestAvatarId = lambda login: 1 / 0  # type: ignore[method-assign]
    assert rig.begin()[0].type is AuthUnavailable


def test_a_login_that_is_denied_counts(rig: Rig) -> None:
    def deny(login: Login) -> Any:
        raise LoginDenied

    rig.checker.answer = deny
    rig.guess(*guesses(5))
    assert not rig.asks()


def test_a_checker_that_never_answers_is_given_ten_seconds(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 1e6
    result = rig.begin("wrong")
    rig.clock.advance(9.9)
    assert result == []
    rig.clock.advance(0.2)
    assert result[0].type is AuthUnavailable
    assert rig.metrics.lockout_failures.value == 0


def test_who_hangs_up_before_the_answer_has_guessed(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.3
    for guess in guesses(5):
        deferred: Deferred[Any] = rig.gate.requestAvatarId(Login("alice", guess, HOME, "s1"))
        result = outcome(deferred)
        rig.clock.advance(0.1)
        deferred.cancel()
        assert result
        rig.clock.pump([0.1] * 20)
    assert not rig.asks()


def test_a_guess_whose_client_hangs_up_is_in_the_log(rig: Rig, events: list[Any]) -> None:
    rig.checker.seconds = lambda login: 0.3
    deferred: Deferred[Any] = rig.gate.requestAvatarId(Login("alice", "wrong", HOME, "s9"))
    outcome(deferred)
    deferred.cancel()
    rig.clock.pump([0.1] * 20)
    # Nobody was asked about this one: the log must not grow as fast as they connect.
    rig.gate.requestAvatarId(Login("alice", "wrong", HOME, "s10")).addErrback(str).cancel()
    (event,) = [event for event in events if event["log_format"] == "login_refused"]
    assert (event["user"], event["peer"], event["session"]) == ("alice", HOME, "s9")
    assert event["reason"] == "wrong name or password; the client has hung up"


# At the same time.


def test_guessing_in_parallel_gains_nothing(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.1
    results = [rig.begin(guess) for guess in guesses(100)]
    rig.clock.pump([0.01] * 1000)
    assert all(results)
    assert len(rig.checker.asked) == 5


def test_guessing_in_parallel_from_many_addresses_gains_nothing(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.1
    results = [rig.begin(guess, peer=f"198.51.100.{place}") for place, guess in enumerate(guesses(100))]
    rig.clock.pump([0.01] * 1000)
    assert all(results)
    assert len(rig.checker.asked) == 5


def test_spraying_in_parallel_from_one_address_gains_nothing(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.1
    results = [rig.begin("password1", user=f"user{number}") for number in range(200)]
    rig.clock.pump([0.01] * 1000)
    assert all(results)
    assert len(rig.checker.asked) == 50


@pytest.mark.parametrize("peer", [HOME, ""])
def test_one_network_does_not_take_up_the_checker(rig: Rig, peer: str) -> None:
    rig.checker.seconds = lambda login: 0.5
    for number in range(12):
        for _ in range(4):
            rig.begin("the same", user=f"nobody{number}", peer=peer)
    assert rig.checker.under_way == 16
    assert rig.asks(user="bob", peer=ELSEWHERE)
    rig.clock.pump([0.5] * 20)
    assert rig.checker.under_way == 0


def test_who_hangs_up_while_waiting_for_its_turn_is_not_asked_about(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.5
    asked = [rig.begin("wrong", user=f"user{number}") for number in range(16)]
    waiting = [rig.gate.requestAvatarId(Login(f"late{number}", "wrong", HOME, "s1")) for number in range(20)]
    ends = [outcome(each) for each in waiting]
    for each in waiting[:19]:
        each.cancel()
    rig.clock.pump([0.5] * 20)
    assert all(ends)
    assert all(asked)
    assert [user for user in rig.checker.asked if user.startswith("late")] == ["late19"]


def test_the_right_password_many_times_at_once(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 0.1
    results = [rig.begin() for _ in range(50)]
    rig.clock.pump([0.01] * 200)
    assert results == [["alice"]] * 50
    assert rig.checker.most_under_way == 5


def test_whoever_waits_for_a_checker_that_hangs_waits_ten_seconds_at_most(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 1e6
    results = [rig.begin() for _ in range(20)]
    rig.clock.pump([0.1] * 102)
    assert [result[0].type for result in results] == [AuthUnavailable] * 20


def test_logins_under_way_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "UNDER_WAY", 100)
    rig.checker.seconds = lambda login: 5
    results = [rig.begin(user=f"user{number}", peer=f"192.0.2.{number}") for number in range(100)]
    assert rig.begin()[0].type is AuthUnavailable
    rig.clock.pump([1] * 6)
    assert all(results)
    rig.checker.seconds = lambda login: 0
    assert rig.log_in() == "alice"


# The time that a refusal takes.


def test_the_delay_grows_to_five_seconds(rig: Rig) -> None:
    assert [round(rig.taken(guess), 2) for guess in guesses(7)] == [0.5, 1, 2, 4, 5, 5, 5]


def test_the_delay_grows_for_one_name_at_one_address(rig: Rig) -> None:
    rig.guess(*guesses(4))
    assert rig.taken("wrong", user="bob") == pytest.approx(0.5)
    assert rig.taken("wrong", peer=ELSEWHERE) == pytest.approx(0.5)


def test_success_is_never_delayed_and_ends_the_delay(rig: Rig) -> None:
    rig.guess(*guesses(4))
    assert rig.taken() == 0
    assert rig.taken("wrong") == pytest.approx(0.5)


def test_repeating_a_password_makes_the_delay_grow_too(rig: Rig) -> None:
    assert [round(rig.taken("the same"), 2) for _ in range(5)] == [0.5, 1, 2, 4, 5]


def test_what_can_be_nobodys_login_takes_the_same_time_and_asks_nobody(rig: Rig) -> None:
    def hopeless() -> tuple[float, list[Any]]:
        begun = rig.clock.seconds()
        result = outcome(rig.gate.requestAvatarId(HopelessLogin("al\u0378ice", HOME, "s1", "the name is odd")))
        assert rig.wait(result) == REFUSED
        return round(rig.clock.seconds() - begun, 2), result

    rig.checker.seconds = lambda login: 0.7
    assert rig.taken("wrong") == pytest.approx(0.7, abs=0.011)
    taken, result = hopeless()
    assert taken == pytest.approx(0.7, abs=0.011)
    assert result[0].getErrorMessage() == "the name is odd"
    assert [hopeless()[0] for _ in range(4)] == [1, 2, 4, 5]
    assert len(rig.checker.asked) == 1
    assert rig.metrics.lockout_failures.value == 1


def slow_and_fast(login: Login) -> float:
    """A directory that takes longer to find a password wrong than a name unknown."""
    return 0.02 if login.user == "nobody" else 0.3


@pytest.mark.parametrize("seconds", [0.0, 1.2, 7.5])
def test_three_reasons_take_the_same_time(rig: Rig, seconds: float) -> None:
    rig.checker.seconds = lambda login: seconds * slow_and_fast(login)
    rig.guess(*guesses(5), user="locked", peer=ELSEWHERE)
    for round_ in range(3):
        taken = [rig.taken(f"guess {round_}", user=user) for user in ("alice", "nobody", "locked")]
        assert max(taken) - min(taken) < 0.002


def test_what_the_directory_usually_takes_hides_a_lock_when_it_is_slow(rig: Rig) -> None:
    rig.checker.seconds = lambda login: 1.7
    rig.guess(*guesses(5), user="locked", peer=ELSEWHERE)
    assert rig.taken("wrong") == pytest.approx(rig.taken("wrong", user="locked"), abs=0.002)


# What is told to those who run the server.


def test_a_lock_is_logged_once(rig: Rig, events: list[Any]) -> None:
    rig.guess(*guesses(8))
    (event,) = [event for event in events if event["log_format"] == "login_locked"]
    assert (event["kind"], event["user"], event["address"], event["seconds"]) == ("account", "alice", "", 1800)
    assert not any("log_failure" in event for event in events)
    assert "guess" not in repr([{**event, "log_logger": None} for event in events])


def test_the_reason_of_a_refusal_is_for_the_log(rig: Rig) -> None:
    def reason(secret: str) -> str:
        result = rig.begin(secret)
        rig.wait(result)
        return str(result[0].value)

    assert reason("one") == "wrong name or password"
    assert reason("one") == "wrong name or password, the same as before"
    rig.guess(*guesses(4))
    assert reason("right") == "locked out (account)"


def test_locks_are_listed_and_ended(rig: Rig) -> None:
    rig.log_in(peer=ELSEWHERE)
    rig.guess(*guesses(5), peer=ELSEWHERE)
    rig.guess(*guesses(5), user="bob")
    rig.restart()
    (locks,) = outcome(Deferred.fromCoroutine(rig.gate.locks()))
    assert [(lock.kind.value, lock.user, lock.address) for lock in locks] == [
        ("account", "alice", ""),
        ("pair", "alice", ELSEWHERE),
        ("account", "bob", ""),
    ]
    assert all(0 < lock.until - rig.clock.seconds() <= 1800 for lock in locks)
    (ended,) = outcome(Deferred.fromCoroutine(rig.gate.unlock(user="Alice")))
    assert [lock.kind.value for lock in ended] == ["account", "pair"]
    assert rig.log_in(peer=ELSEWHERE) == "alice"
    assert rig.log_in() == "alice"
    assert not rig.asks(user="bob")
    rig.restart()
    assert rig.log_in() == "alice"
    assert not rig.asks(user="bob")


def test_locks_are_listed_by_the_page_and_of_one_user(rig: Rig) -> None:
    for number in range(5):
        rig.guess(*guesses(5), user=f"user{number}")

    def listed(**settings: Any) -> list[Lock]:
        (locks,) = outcome(Deferred.fromCoroutine(rig.gate.locks(**settings)))
        return list(locks)

    every = listed()
    assert len(every) == 5
    assert listed(limit=2) == every[:2]
    assert listed(limit=2, after=every[1]) == every[2:4]
    assert listed(limit=2, after=every[3]) == every[4:]
    assert listed(after=every[4]) == []
    assert [lock.user for lock in listed(user="User3")] == ["user3"]
    rig.clock.advance(1800)
    assert listed(after=every[1]) == []


def test_a_login_can_be_tried_behind_every_lock_and_counts_for_nothing(rig: Rig) -> None:
    rig.guess(*guesses(5))
    rig.checker.asked.clear()

    def tried(secret: str) -> Any:
        return rig.wait(outcome(Deferred.fromCoroutine(rig.gate.try_out(Login("alice", secret)))))

    kept = rig.store.rows("lockout")
    for number in range(20):
        assert tried(f"wrong{number}") == "UnauthorizedLogin"
    assert tried(RIGHT) == "alice"
    assert len(rig.checker.asked) == 21
    assert rig.store.rows("lockout") == kept
    assert not rig.asks(), "the lock is still there"


@pytest.mark.parametrize("trouble", [AuthUnavailable("away"), ValueError("bug")])
def test_a_login_that_is_tried_in_trouble(rig: Rig, trouble: Exception) -> None:
    def answer(login: Login) -> Any:
        raise trouble

    rig.checker.answer = answer
    assert rig.wait(outcome(Deferred.fromCoroutine(rig.gate.try_out(Login("alice", RIGHT))))) == "AuthUnavailable"


def test_an_address_is_unlocked_by_any_of_its_forms(rig: Rig) -> None:
    for number in range(50):
        rig.guess("password1", user=f"user{number}", peer="2001:db8:0:1::9")
    (locks,) = outcome(Deferred.fromCoroutine(rig.gate.locks()))
    assert [lock.address for lock in locks] == ["2001:db8:0:1::/64"]
    (ended,) = outcome(Deferred.fromCoroutine(rig.gate.unlock(address=locks[0].address)))
    assert ended == locks
    assert rig.asks(user="bob", peer="2001:db8:0:1::9")
