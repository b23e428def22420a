"""The password file: who logs in with it, and what becomes of logins while it is changed or broken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from passlib import hash as passlib
from rigs.pump import Pump
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from mtatwist.auth import hashes
from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.passwd import THREADS, WAITING, PasswordFile
from mtatwist.auth.user_file import MAX_PROBLEMS, MAX_SIZE, UserFileError
from mtatwist.transaction import Account

RIGHT = "correct horse"
QUICK: str = passlib.ldap_salted_sha1.hash(RIGHT)


class Rig:
    """A checker over a file that the test writes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "users"
        self.pump: Any = Pump()
        self.events: list[LogEvent] = []
        self.checker = PasswordFile(str(self.path), domains=["example.org", "*.example.net"], reactor=self.pump)

    def write(self, text: str, mode: int = 0o600) -> None:
        """As an editor does, and time goes by."""
        new = self.path.with_suffix(".new")
        new.write_bytes(text.encode())
        new.chmod(mode)
        new.replace(self.path)
        self.pump.advance(2)

    def start(self, text: str | None = None, mode: int = 0o600) -> None:
        if text is not None:
            self.write(text, mode)
        self.checker.load()
        self.checker.start()

    def begin(self, user: str, secret: str = RIGHT) -> Deferred[Account]:
        return self.checker.requestAvatarId(Login(user, secret))

    def login(self, user: str, secret: str = RIGHT) -> Account:
        return self.pump.wait(self.begin(user, secret))

    def refused(self, user: str, secret: str = RIGHT) -> bool:
        return bool(self.pump.outcome(self.begin(user, secret)).check(UnauthorizedLogin))

    def logged(self, name: str) -> list[LogEvent]:
        return [event for event in self.events if event.get("log_format") == name]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    globalLogPublisher.addObserver(made.events.append)
    yield made
    globalLogPublisher.removeObserver(made.events.append)
    made.checker.stop()
    assert not [event for event in made.events if "log_failure" in event]


def test_it_is_a_checker(rig: Rig) -> None:
    assert verifyObject(ICredentialsChecker, rig.checker)


def test_users_log_in_and_nobody_else(rig: Rig) -> None:
    rig.start(f"# ours\n\nalice:{QUICK}\r\nbob : {QUICK} : Bob@Bücher.example, team@example.org \n")
    assert rig.login("alice") == Account("alice", frozenset({"alice@example.org"}))
    assert rig.login("bob").addresses == {"Bob@xn--bcher-kva.example", "team@example.org"}
    assert rig.refused("alice", "wrong")
    assert rig.refused("carol")
    assert rig.refused("# ours")
    assert rig.refused("")


def test_names_are_compared_as_they_are_prepared_for_a_login(rig: Rig) -> None:
    rig.start(f"Ame\u0301lie:{QUICK}\nmarta@Bücher.example:{QUICK}\nDora Maar:{QUICK}\n")
    assert rig.login("am\u00e9lie") == Account("am\u00e9lie", frozenset({"am\u00e9lie@example.org"}))
    assert rig.login("marta@bücher.example").addresses == {"marta@xn--bcher-kva.example"}
    assert rig.login("dora maar").addresses == frozenset(), "that would be no address"


def test_what_looks_like_a_line_of_the_file_is_only_a_name(rig: Rig) -> None:
    rig.start(f"alice:{QUICK}\n")
    for name in (f"alice:{QUICK}", "alice\nalice", "*", "*)(uid=*", "a" * 65536, "ali\0ce"):
        assert rig.refused(name)
        assert rig.refused("alice", name)


def test_without_a_file_there_are_no_users_until_there_is_one(rig: Rig) -> None:
    rig.start()
    assert rig.refused("alice")
    rig.write(f"alice:{QUICK}\n")
    assert rig.login("alice")
    rig.path.unlink()
    rig.pump.advance(2)
    assert rig.refused("alice")
    assert [event["users"] for event in rig.logged("users_loaded")] == [0, 1, 0]


def test_a_change_counts_within_a_second_and_is_looked_for_no_oftener(rig: Rig) -> None:
    rig.start(f"alice:{QUICK}\n")
    assert rig.login("alice")
    rig.path.write_text(f"bob:{QUICK}\n")
    assert rig.login("alice"), "the file was looked at in this second"
    rig.pump.advance(1)
    assert rig.refused("alice")
    assert rig.login("bob")
    for _ in range(3):
        rig.pump.advance(1)
        assert rig.login("bob")
    assert len(rig.logged("users_loaded")) == 2, "and it is not read while it stays as it is"


BROKEN = {
    "alice": "write name:hash or name:hash:address,address",
    f"alice:{QUICK}:a@example.org:b": "write name:hash or name:hash:address,address",
    f":{QUICK}": "the name is missing before the first colon",
    "alice:": "the hash is missing behind the first colon: make one with mtactl users passwd",
    f"alice:{QUICK}:postmaster": "'postmaster' is not an address such as me@example.org",
    f"alice:{QUICK}:a@example.org,": "'' is not an address such as me@example.org",
    f"alice:{QUICK}:a@example.org b": "'a@example.org b' is not an address such as me@example.org",
    f"alice:{QUICK}:a@bü\u2028.example": "'a@bü\\u2028.example' is not an address such as me@example.org",
    f"ali\u0007ce:{QUICK}": "the name has a character that is not allowed",
    f"BOB:{QUICK}": "bob is on line 1 already: remove one of the two",
}


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: ascii(line.replace(QUICK, "HASH")))
def test_a_broken_line_is_named_at_the_start(rig: Rig, line: str) -> None:
    with pytest.raises(UserFileError) as refused:
        rig.start(f"bob:{QUICK}\n\n{line}\n")
    assert str(refused.value).startswith(f"{rig.path}:3: {BROKEN[line]}")
    assert QUICK not in str(refused.value)


def test_what_is_no_text_is_named(rig: Rig) -> None:
    rig.path.write_bytes(b"alice:\xff\n")
    with pytest.raises(UserFileError, match="users:1: is not UTF-8"):
        rig.start()


def test_all_broken_lines_are_named_but_no_more_than_one_can_read(rig: Rig) -> None:
    with pytest.raises(UserFileError) as refused:
        rig.start("alice\n" * (MAX_PROBLEMS + 5))
    lines = str(refused.value).splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == f"{rig.path}: and 5 more"


def test_a_file_that_breaks_later_leaves_all_as_it_was(rig: Rig) -> None:
    rig.start(f"alice:{QUICK}\n")
    rig.write("alice:\n")
    for _ in range(3):
        rig.pump.advance(1)
        assert rig.login("alice")
    (event,) = rig.logged("users_file_broken")
    assert event["reason"].startswith(f"{rig.path}:1: the hash is missing")
    assert event["users"] == 1
    rig.write(f"bob:{QUICK}\n")
    assert rig.login("bob")
    assert rig.refused("alice")


def test_what_is_no_file_is_not_read(rig: Rig) -> None:
    os.mkfifo(rig.path)
    with pytest.raises(UserFileError, match="is not a file"):
        rig.start()
    rig.path.unlink()
    rig.path.mkdir()
    with pytest.raises(UserFileError, match="Is a directory"):
        rig.start()
    rig.path.rmdir()
    rig.path.symlink_to(rig.path)
    with pytest.raises(UserFileError, match="make it readable for the user that the server runs as"):
        rig.start()


def test_a_file_that_can_not_be_reached_any_more_leaves_all_as_it_was(rig: Rig) -> None:
    rig.start(f"alice:{QUICK}\n")
    rig.path.unlink()
    rig.path.symlink_to(rig.path)
    for _ in range(3):
        rig.pump.advance(1)
        assert rig.login("alice")
    assert len(rig.logged("users_file_broken")) == 1


def test_the_file_has_a_bound(rig: Rig) -> None:
    with pytest.raises(UserFileError, match="is larger than"):
        rig.start("#" * (MAX_SIZE + 1))


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_file_that_everybody_may_read_is_warned_about(rig: Rig, mode: int, warned: bool) -> None:
    rig.start(f"alice:{QUICK}\n", mode)
    assert bool(rig.logged("users_file_exposed")) is warned
    assert rig.login("alice")


def test_users_without_a_usable_hash_are_refused_and_named(rig: Rig) -> None:
    rig.start(f"alice:{RIGHT}\nbob:$y$j9T$abc$def\ncarol:{QUICK}\n")
    assert rig.refused("alice")
    assert rig.refused("bob")
    assert rig.login("carol")
    (event,) = rig.logged("users_without_password")
    assert event["count"] == 2
    assert [line.partition(": ")[0] for line in event["lines"]] == [f"{rig.path}:1", f"{rig.path}:2"]
    assert "yescrypt is not known here" in event["lines"][1]
    assert RIGHT not in str(event)


def test_nobody_hears_from_the_time_it_takes_that_a_name_is_unknown(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work is done: a hash of the file's is checked, always the same one for the same name."""
    users = {f"user{number}": passlib.ldap_salted_sha1.hash(RIGHT) for number in range(8)}
    work: list[str] = []
    verify = hashes.verify

    def watched(password: str, text: str) -> bool:
        work.append(text)
        return verify(password, text)

    monkeypatch.setattr(hashes, "verify", watched)
    rig.start("".join(f"{name}:{text}\n" for name, text in users.items()) + "broken:x\n")
    assert rig.refused("user0", "wrong")
    assert work == [users["user0"]]
    seen = set()
    for name in ["broken", *(f"unknown{number}" for number in range(50))]:
        work.clear()
        assert rig.refused(name)
        assert rig.refused(name)
        assert len(work) == 2
        assert work[0] == work[1]
        seen.update(work)
    assert seen == set(users.values()), "so that no scheme of the file stands out"


def test_an_empty_file_takes_its_time_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(hashes, "make", made.append)
    rig.start("")
    assert rig.refused("alice")
    assert made == [RIGHT]


class Gate:
    """Hashes that take as long as the test says."""

    def __init__(self) -> None:
        self.open = Event()
        self.checked: list[str] = []

    def verify(self, password: str, text: str) -> bool:
        assert self.open.wait(30)
        self.checked.append(password)
        return True


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(hashes, "verify", made.verify)
    yield made
    made.open.set()


def test_too_many_logins_at_once_are_told_to_come_again(rig: Rig, gate: Gate) -> None:
    rig.start(f"alice:{QUICK}\n")
    waiting = [rig.begin("alice") for _ in range(WAITING)]
    assert rig.pump.outcome(rig.begin("alice")).check(AuthUnavailable)
    gate.open.set()
    assert {rig.pump.wait(each).name for each in waiting} == {"alice"}
    assert rig.login("alice")
    assert len(rig.logged("users_busy")) == 1


def test_who_gives_up_costs_nothing_and_leaves_its_place_at_once(rig: Rig, gate: Gate) -> None:
    rig.start(f"alice:{QUICK}\n")
    waiting = [rig.begin("alice", f"{number}") for number in range(WAITING)]
    for each in waiting[THREADS:]:
        each.cancel()
        assert rig.pump.outcome(each).check(CancelledError)
    assert rig.checker.waiting == THREADS
    late = rig.begin("alice", "late")
    gate.open.set()
    for each in [*waiting[:THREADS], late]:
        assert rig.pump.wait(each)
    assert rig.checker.waiting == 0
    assert sorted(gate.checked) == ["0", "1", "late"]
    assert rig.login("alice")


def test_the_end_does_not_wait_for_a_queue(rig: Rig, gate: Gate) -> None:
    rig.start(f"alice:{QUICK}\n")
    waiting = [rig.begin("alice") for _ in range(WAITING)]
    Timer(0.2, gate.open.set).start()
    rig.checker.stop()
    answers = [rig.pump.outcome(each) for each in waiting]
    assert len(gate.checked) <= THREADS
    assert sum(isinstance(each, Account) for each in answers) == len(gate.checked)
    assert all(isinstance(each, Account) or each.check(AuthUnavailable) for each in answers)
    assert rig.pump.outcome(rig.begin("alice")).check(AuthUnavailable)


def test_short_memory_is_not_the_users_fault(rig: Rig) -> None:
    impossible = "$argon2id$v=19$m=4294967295,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWJJzUK7F9wXaD4JKJqsZKVM"
    rig.start(f"alice:{impossible}\n")
    for name in ("alice", "nobody"):
        assert rig.pump.outcome(rig.begin(name)).check(AuthUnavailable), "and unknown names are told the same"
    (event,) = rig.logged("users_verify_failed")
    assert event["line"] == 1
    assert impossible not in str(event)
