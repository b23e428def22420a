"""The chain, and the policies in it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from metrics.reading import crashes
from twisted.internet.defer import Deferred, fail, succeed

from mtatwist.envelope import Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import Address, DomainSet
from mtatwist.smtp.reply import AUTH_FIRST, NO_RELAY, NO_ROOM, OUR_TROUBLE, TOO_BIG, TOO_MANY_HOPS, Reply
from mtatwist.transaction import Account, Session, Transaction
from mtatwist.validators import REGISTRY, build
from mtatwist.validators.chain import Chain
from mtatwist.validators.loop import Loop
from mtatwist.validators.parameters import Parameters
from mtatwist.validators.relay import Relay
from mtatwist.validators.size import Size

NO = Reply(550, "5.7.1", "no")
LATER = Reply(450, "4.7.1", "later")


def transaction(role: str = "mx", user: str = "", trusted: bool = False, **parameters: str) -> Transaction:
    session = Session("0", role, "192.0.2.7", trusted, account=Account(user) if user else None)
    return Transaction(session, Address("me", "away.test"), parameters)


class Asked:
    """Gives the answers it is made with, in the way it is told, and notes that it was asked."""

    def __init__(self, name: str, answer: Any, way: str, log: list[str]) -> None:
        self.name, self._answer, self._way, self._log = name, answer, way, log

    def mail(self, transaction: Transaction) -> Any:
        self._log.append(self.name)
        if self._way == "now":
            if isinstance(self._answer, Exception):
                raise self._answer
            return self._answer
        failed = isinstance(self._answer, Exception)
        if self._way == "deferred":
            return fail(self._answer) if failed else succeed(self._answer)
        return self._later()

    async def _later(self) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def result(verdict: Any) -> Any:
    """The verdict, when it is there."""
    if not isinstance(verdict, Deferred):
        return verdict
    results: list[Any] = []
    verdict.addCallback(results.append)
    return results[0]


@pytest.mark.parametrize("ways", list(itertools.product(["now", "deferred", "coroutine"], repeat=3)))
@pytest.mark.parametrize(
    ("answers", "expected", "asked"),
    [
        ((None, None, None), None, "abc"),
        ((None, NO, LATER), NO, "ab"),
        ((LATER, NO, None), LATER, "a"),
        ((None, RuntimeError("a secret"), NO), OUR_TROUBLE, "ab"),
        ((None, None, NO), NO, "abc"),
    ],
)
def test_the_first_refusal_wins_in_every_way(
    ways: tuple[str, ...], answers: tuple[Any, ...], expected: Reply | None, asked: str
) -> None:
    log: list[str] = []
    metrics = Instruments()
    validators: list[Any] = [Asked(*each, log) for each in zip("abc", answers, ways, strict=True)]
    assert result(Chain(validators, metrics).mail(transaction())) == expected
    assert "".join(log) == asked
    assert crashes(metrics) == (expected is OUR_TROUBLE)


def test_no_deferred_where_everybody_answers_at_once() -> None:
    validators: list[Any] = [Asked("a", None, "now", []), Asked("b", NO, "now", [])]
    assert Chain(validators, Instruments()).mail(transaction()) is NO


def test_the_next_is_asked_only_when_the_one_before_has_answered() -> None:
    log: list[str] = []
    later: Deferred[Any] = Deferred()
    slow = Asked("a", None, "now", log)
    slow.mail = lambda transaction: later  # type: ignore[method-assign]
    verdict = Chain([slow, Asked("b", NO, "now", log)], Instruments()).mail(transaction())  # type: ignore[list-item]
    assert log == []
    later.callback(None)
    assert result(verdict) is NO
    assert log == ["b"]


@pytest.mark.parametrize("nonsense", [True, 550, "no"])
def test_an_answer_that_is_none_is_our_trouble(nonsense: Any) -> None:
    metrics = Instruments()
    assert result(Chain([Asked("a", nonsense, "now", [])], metrics).mail(transaction())) is OUR_TROUBLE  # type: ignore[list-item]
    assert crashes(metrics) == 1


def test_stages_nobody_has_pass() -> None:
    chain = Chain([Loop(1)], Instruments())
    assert chain.mail(transaction()) is None
    assert chain.rcpt(transaction(), Recipient(0, "a@b", "b")) is None


def test_who_has_nothing_to_judge_by_is_not_asked() -> None:
    asked: list[str] = []
    validators: list[Any] = [Asked(name, None, "now", asked) for name in "abc"]
    validators[1].idle = True
    validators[2].idle = False
    assert Chain(validators, Instruments()).mail(transaction()) is None
    assert asked == ["a", "c"]


@pytest.mark.parametrize("accounts", [True, False])
def test_accounts_are_judged_only_where_one_can_log_in(accounts: bool) -> None:
    metrics = Instruments()
    settings: dict[str, Any] = {"recipient_delimiter": "+", "from_mismatch": "log", "metrics": metrics}
    settings |= {"usage": object(), "devices": [], "networks": [], "accounts": accounts}
    idle = {validator.name: validator.idle for validator in build(["send_as", "rate", "device"], **settings)}
    assert idle == {"send_as": not accounts, "rate": not accounts, "device": True}


def test_build_keeps_the_order_and_hands_out_what_is_wanted() -> None:
    settings = {"message_size": 1, "has_room": lambda size: True, "domains": DomainSet([]), "hops": 1, "more": 1}
    settings |= {"recipient_delimiter": "+", "from_mismatch": "log", "usage": None}
    settings |= {"devices": [], "networks": [], "metrics": Instruments()}
    order = list(reversed(REGISTRY))
    assert [validator.name for validator in build(order, **settings)] == order
    with pytest.raises(KeyError):
        build(["unknown"], **settings)


@pytest.mark.parametrize(
    ("role", "user", "trusted", "domain", "expected"),
    [
        ("mx", "", False, "here.test", None),
        ("mx", "", False, "there.test", NO_RELAY),
        ("mx", "", True, "there.test", None),
        ("submission", "me", False, "there.test", None),
    ],
)
def test_relay(role: str, user: str, trusted: bool, domain: str, expected: Reply | None) -> None:
    validator = Relay(DomainSet(["here.test"]))
    assert validator.rcpt(transaction(role, user, trusted), Recipient(0, f"you@{domain}", domain)) == expected


def test_who_could_not_get_it_is_refused_at_once() -> None:
    """Of those who may be sent to: others learn nothing."""
    refusal = Reply(550, "5.1.3", "This address can't be a mailbox here")
    validator = Relay(DomainSet(["here.test"]), lambda recipient: refusal if recipient.address[0] == "." else None)
    stranger = transaction("mx")
    assert validator.rcpt(stranger, Recipient(0, ".you@here.test", "here.test")) is refusal
    assert validator.rcpt(stranger, Recipient(0, "you@here.test", "here.test")) is None
    assert validator.rcpt(stranger, Recipient(0, ".you@there.test", "there.test")) is NO_RELAY


def test_submission_needs_a_user_whatever_the_network() -> None:
    validator = Relay(DomainSet(["here.test"]))
    assert validator.mail(transaction("submission", trusted=True)) is AUTH_FIRST
    assert validator.mail(transaction("submission", "me")) is None
    assert validator.mail(transaction("mx")) is None


@pytest.mark.parametrize(
    ("declared", "room", "expected"),
    [("", 1000, None), ("1000", 1000, None), ("1001", 9999, TOO_BIG), ("10", 9, NO_ROOM), ("", 999, NO_ROOM)],
)
def test_size(declared: str, room: int, expected: Reply | None) -> None:
    validator = Size(1000, lambda size: size <= room)
    assert validator.mail(transaction(SIZE=declared) if declared else transaction()) is expected


@pytest.mark.parametrize(("fields", "expected"), [(2, None), (3, TOO_MANY_HOPS)])
def test_loop(fields: int, expected: Reply | None) -> None:
    header = b"received: x\r\n\tReceived: no field\r\n" * fields + b"X-Received: no\r\n\r\n"
    assert Loop(2).header(transaction(), header) is expected


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"SIZE": "10", "BODY": "8bitmime"}, None),
        ({"BODY": "7BIT"}, None),
        ({"SIZE": ""}, 501),
        ({"SIZE": "-1"}, 501),
        ({"SIZE": "\u0661"}, 501),
        ({"SIZE": "9" * 21}, 501),
        ({"BODY": "BINARYMIME"}, None),
        ({"SMTPUTF8": ""}, None),
        ({"SMTPUTF8": "x"}, 501),
        ({"RET": "FULL", "ENVID": "x"}, None),
        ({"RET": "some"}, 501),
        ({"AUTH": "<>"}, 555),
    ],
)
def test_parameters(parameters: dict[str, str], code: int | None) -> None:
    refusal = Parameters().mail(transaction(**parameters))
    assert (refusal.code if refusal else None) == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"NOTIFY": "NEVER", "ORCPT": "rfc822;a@b"}, None),
        ({"NOTIFY": "NEVER,DELAY"}, 501),
        ({"ORCPT": "a@b"}, 501),
        ({"RET": "FULL"}, 555),
    ],
)
def test_recipient_parameters(parameters: dict[str, str], code: int | None) -> None:
    refusal = Parameters().rcpt(transaction(), Recipient(0, "a@b", "b", parameters=parameters))
    assert (refusal.code if refusal else None) == code
