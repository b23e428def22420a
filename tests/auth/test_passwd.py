"""The password file: who logs in with it, and what becomes of logins while it is changed or broken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from passlib import hash as passlib
from rigs.pump import Pump
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.passwd import WAITING, PasswordFile
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
