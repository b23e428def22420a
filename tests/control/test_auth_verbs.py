"""What can be asked about logins, and changed of their locks, over the control socket."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from auth.gates import ELSEWHERE, HOME, RIGHT, Rig, guesses
from control.visitor import ROOT, Site
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.lockout import Kind, Lock
from mtatwist.auth.pace import LONGEST
from mtatwist.control.auth import LISTED, NAMED, REFUSED_SECONDS, AuthVerbs
from mtatwist.control.callers import Callers, Token
from mtatwist.control.commands import (
    AuthLocks,
    AuthTest,
    AuthUnlock,
    BadArgument,
    ControlCommand,
    NotAllowed,
    NotFound,
    Unavailable,
)
from mtatwist.store.trouble import StoreBroken
from mtatwist.transaction import Account

AHEAD = 3600.0
"""The machine's clock is ahead of the queue's time."""


class Asking:
    """An administrator before a gate with a clock of its own."""

    def __init__(self, *, nobody: bool = False, callers: Callers | None = None, token: str | None = None) -> None:
        self.rig = Rig()
        clock = self.rig.clock
        verbs = AuthVerbs(
            lambda: None if nobody else self.rig.gate,
            clock=clock,
            queue_time=clock.seconds,
            shown=lambda at: at + AHEAD,
        )
        self.site = Site(verbs.responders(), callers)
        self.visitor = self.site.visitor(ROOT)
        self.visitor.hello(token)

    def ask(self, command: type[ControlCommand], **arguments: Any) -> Any:
        return self.visitor.ask(command, **arguments)

    def lock(self, user: str, peer: str = HOME) -> None:
        self.rig.guess(*guesses(5), user=user, peer=peer)

    def test(self, user: str = "alice", password: str = RIGHT) -> Any:
        """Once the time of a refusal has passed."""
        asked = self.visitor.send(AuthTest, user=user, password=password)
        self.rig.clock.advance(REFUSED_SECONDS)
        return self.visitor.answer(AuthTest, asked)


def test_locks() -> None:
    asking = Asking()
    assert asking.ask(AuthLocks, after=None) == {"rows": [], "cursor": None}
    asking.lock("alice")
    ((lock,),) = [asking.ask(AuthLocks, after=None)["rows"]]
    until = lock.pop("until")
    assert lock == {"kind": "account", "user": "alice", "address": None, "left": lock["left"]}
    assert 0 < lock["left"] <= 1800
    assert until == pytest.approx(asking.rig.clock.seconds() + lock["left"] + AHEAD, abs=0.1)


def test_very_many_locks_come_in_pages() -> None:
    asking = Asking()

    class Many:
        """A gate with many locks."""

        every: ClassVar = [
            Lock(kind, f"user{number}", "", 2e6 + number) for number in range(3 * LISTED // 2) for kind in Kind
        ]

        async def locks(self, *, user: str = "", limit: int | None = None, after: Lock | None = None) -> list[Lock]:
            start = 0 if after is None else self.every.index(after) + 1
            return self.every[start:][:limit]

    many: Any = Many()
    asking.rig.gate = many
    rows: list[Any] = []
    after, pages = None, 0
    while True:
        answer = asking.ask(AuthLocks, after=after)
        rows, after, pages = rows + answer["rows"], answer["cursor"], pages + 1
        if after is None:
            break
    assert [row["user"] for row in rows] == [lock.user for lock in Many.every]
    assert pages > 2


@pytest.mark.parametrize("cursor", ["", "x", "5", "[]", '["account","a","",null]', '["no","a","",1.0]', "[1,2,3,4]"])
def test_what_is_no_cursor(cursor: str) -> None:
    assert Asking().ask(AuthLocks, after=cursor)[0] is BadArgument


def test_a_user_is_unlocked() -> None:
    asking = Asking()
    asking.lock("alice")
    asking.lock("bob")
    answer = asking.ask(AuthUnlock, user="Alice", address=None)
    assert answer["count"] == 1
    assert [(lock["kind"], lock["user"]) for lock in answer["unlocked"]] == [("account", "alice")]
    assert asking.rig.log_in(user="alice") == "alice"
    assert [row["user"] for row in asking.ask(AuthLocks, after=None)["rows"]] == ["bob"]
    assert asking.ask(AuthUnlock, user="alice", address=None) == {"count": 0, "unlocked": []}


def test_an_address_and_a_pair_are_unlocked() -> None:
    asking = Asking()
    asking.rig.log_in(peer=ELSEWHERE)
    asking.lock("alice", ELSEWHERE)
    assert asking.ask(AuthUnlock, user="alice", address="203.0.113.9")["count"] == 0
    (pair,) = asking.ask(AuthUnlock, user="alice", address=ELSEWHERE)["unlocked"]
    assert (pair["kind"], pair["user"], pair["address"]) == ("pair", "alice", ELSEWHERE)
    for address in ("2001:db8::1", "2001:db8::/64", "local"):
        assert asking.ask(AuthUnlock, user=None, address=address)["count"] == 0


@pytest.mark.parametrize("address", ["x", "192.0.2.300", "mail.example.org", "/24"])
def test_what_is_no_address(address: str) -> None:
    kind, words = Asking().ask(AuthUnlock, user=None, address=address)
    assert (kind, "no IP address" in words) == (BadArgument, True)


def test_nobody_is_unlocked_by_mistake() -> None:
    assert Asking().ask(AuthUnlock, user=None, address=None)[0] is BadArgument
    assert Asking().ask(AuthUnlock, user="", address="")[0] is BadArgument


def test_who_would_be_let_in() -> None:
    asking = Asking()
    asking.rig.checker.answer = lambda login: Account("alice", frozenset({"b@here.test", "a@here.test"}))
    # At once.
    assert asking.ask(AuthTest, user="Alice", password=RIGHT) == {
        "outcome": "let in",
        "account": {
            "user": "alice",
            "account": "alice",
            "addresses": ["a@here.test", "b@here.test"],
            "more_addresses": 0,
            "reason": None,
            "locks": [],
        },
    }


def test_many_addresses_are_not_all_told() -> None:
    asking = Asking()
    asking.rig.checker.answer = lambda login: Account("a", frozenset(f"{n}{'x' * 200}@here.test" for n in range(5000)))
    account = asking.ask(AuthTest, user="alice", password=RIGHT)["account"]
    assert (len(account["addresses"]), account["more_addresses"]) == (NAMED, 5000 - NAMED)


def test_a_checker_of_somebody_elses_knows_a_name_only() -> None:
    assert Asking().ask(AuthTest, user="alice", password=RIGHT)["account"]["account"] == "alice"


def test_a_refusal_takes_its_time() -> None:
    asking = Asking()
    asked = asking.visitor.send(AuthTest, user="alice", password="wrong")
    asking.rig.clock.advance(REFUSED_SECONDS - 0.01)
    assert asking.visitor.answer(AuthTest, asked) is None
    asking.rig.clock.advance(0.01)
    answer = asking.visitor.answer(AuthTest, asked)
    assert answer["outcome"] == "refused"
    assert answer["account"]["reason"] == "wrong name or password"
    assert answer["account"]["account"] is None


@pytest.mark.parametrize("user", ["", " alice", "al\x00ice"])
def test_a_name_that_can_be_nobodys_is_refused(user: str) -> None:
    asking = Asking()
    answer = asking.test(user)
    assert answer["outcome"] == "refused"
    assert "the name" in answer["account"]["reason"]
    assert asking.rig.checker.asked == []


def test_one_at_a_time() -> None:
    asking = Asking()
    first = asking.visitor.send(AuthTest, user="alice", password="wrong")
    assert asking.ask(AuthTest, user="bob", password=RIGHT)[0] is Unavailable
    assert asking.rig.checker.asked == ["alice"]
    asking.rig.clock.advance(REFUSED_SECONDS)
    assert asking.visitor.answer(AuthTest, first)["outcome"] == "refused"
    assert asking.test("bob")["outcome"] == "let in"


def test_a_checker_that_hangs_is_not_waited_for() -> None:
    asking = Asking()
    asking.rig.checker.answer = lambda login: Deferred()
    asked = asking.visitor.send(AuthTest, user="alice", password=RIGHT)
    asking.rig.clock.advance(LONGEST)
    answer = asking.visitor.answer(AuthTest, asked)
    assert (answer["outcome"], answer["account"]["reason"]) == ("unavailable", "the answer took too long")
    asking.rig.checker.answer = lambda login: login.user
    assert asking.test()["outcome"] == "let in"


def test_a_lock_does_not_stand_in_the_way_and_is_named() -> None:
    asking = Asking()
    asking.lock("alice")
    asking.lock("bob")
    for password, outcome in ((RIGHT, "let in"), ("wrong", "refused")):
        answer = asking.test("alice", password)
        assert answer["outcome"] == outcome
        assert [(lock["kind"], lock["user"]) for lock in answer["account"]["locks"]] == [("account", "alice")]
    before = asking.rig.store.rows("lockout")
    for number in range(20):
        asking.test("carol", f"wrong{number}")
    assert asking.rig.store.rows("lockout") == before, "it is no guess"
    assert asking.rig.log_in(user="carol") == "carol"


def test_nobody_can_tell() -> None:
    asking = Asking()

    def away(login: Login) -> Any:
        raise AuthUnavailable("ldap://a: connection refused")

    asking.rig.checker.answer = away
    answer = asking.test()
    assert (answer["outcome"], answer["account"]["reason"]) == ("unavailable", "ldap://a: connection refused")


def test_the_lockout_can_not_be_read() -> None:
    asking = Asking()
    asking.rig.store.trouble = StoreBroken("no disk")
    assert asking.ask(AuthLocks, after=None) == (Unavailable, "the lockout can't be read")
    assert asking.ask(AuthUnlock, user="alice", address=None)[0] is Unavailable
    answer = asking.test()
    assert (answer["outcome"], answer["account"]["reason"]) == ("let in", "the lockout can't be read")


def test_where_nobody_can_log_in() -> None:
    asking = Asking(nobody=True)
    for command, arguments in (
        (AuthLocks, {"after": None}),
        (AuthUnlock, {"user": "a", "address": None}),
        (AuthTest, {"user": "a", "password": "b"}),
    ):
        kind, words = asking.ask(command, **arguments)
        assert (kind, "nobody can log in here" in words) == (NotFound, True)


def test_the_password_is_written_down_nowhere() -> None:
    asking = Asking()

    def refuse(login: Login) -> Any:
        raise ValueError("a bug") if login.user == "bug" else UnauthorizedLogin

    asking.rig.checker.answer = refuse
    with capturedLogs() as events:
        for user in ("alice", "bug"):
            asking.test(user, "pa55word")
    assert [event["answer"] for event in events if event["log_format"] == "control"] == [
        {"outcome": "refused"},
        {"outcome": "unavailable"},
    ]
    assert "pa55word" not in json.dumps(events, default=repr)


def test_a_role_that_may_look_may_not_try_nor_unlock() -> None:
    sha256 = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
    asking = Asking(callers=Callers([Token("eye", sha256, admin=False)]), token="0")
    assert asking.ask(AuthLocks, after=None)["rows"] == []
    for command, arguments in (
        (AuthUnlock, {"user": "a", "address": None}),
        (AuthTest, {"user": "a", "password": "b"}),
    ):
        assert asking.ask(command, **arguments)[0] is NotAllowed
    assert asking.rig.checker.asked == []
