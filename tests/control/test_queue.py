"""The verbs of the queue at the control socket: what is answered, in which time, and in which words it is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import apsw
import orjson
import pytest
from control.queue_lab import AHEAD, Lab
from control.visitor import Visitor
from twisted.internet.defer import fail

from mtatwist.control.callers import Callers, Token
from mtatwist.control.commands import (
    PAGE_BYTES,
    BadArgument,
    NotFound,
    QueueChange,
    QueueList,
    QueueRead,
    QueueShape,
    QueueShow,
    QueueStats,
    Unavailable,
    Why,
)
from mtatwist.envelope import State
from mtatwist.relay.administration import Changed
from mtatwist.spool.bounded import TooLong
from mtatwist.spool.selection import Selection
from mtatwist.store.trouble import StoreBroken

UNKNOWN = "000000000000FF"
GONE = f"{UNKNOWN} is not in the queue: it was delivered, bounced or dropped (see the log), or never was here"


@pytest.fixture
def visitor(lab: Lab) -> Visitor:
    came = lab.site.visitor()
    came.hello()
    return came


def change(lab: Lab, visitor: Visitor, **arguments: Any) -> Any:
    return lab.ask(visitor, QueueChange, **{"action": "hold", "everything": False, "dry_run": False, **arguments})


def test_moments_are_the_machine_s(lab: Lab, visitor: Visitor) -> None:
    message = lab.store("you@far.test", age=500)
    lab.tried(message, 0, State.DEFERRED, ago=100, due_in=900)
    now = lab.now() - AHEAD
    (row,) = lab.ask(visitor, QueueList)["rows"]
    assert row["received_at"] == pytest.approx(now - 500, abs=60)
    assert row["next_attempt"] == pytest.approx(now + 900, abs=60)
    for command in (QueueShow, Why):
        answer = lab.ask(visitor, command, id=message.id)
        assert answer["message"]["received_at"] == row["received_at"]
        assert answer["rows"][0]["at"] == pytest.approx(now - 100, abs=60)
    assert answer["rows"][0]["history"][0]["at"] == answer["rows"][0]["at"]
    assert lab.ask(visitor, QueueStats)["stats"]["oldest"] == row["received_at"]


def test_what_is_not_there(lab: Lab, visitor: Visitor) -> None:
    lab.store("you@far.test")
    assert lab.ask(visitor, QueueShow, id=UNKNOWN) == (NotFound, GONE)
    assert lab.ask(visitor, Why, id=UNKNOWN) == (NotFound, GONE)
    assert lab.ask(visitor, QueueRead, id=UNKNOWN, offset=0) == (NotFound, GONE)
    assert change(lab, visitor, id=UNKNOWN) == (NotFound, GONE)
    assert lab.ask(visitor, QueueList, id=UNKNOWN)["rows"] == []


def test_a_message_that_is_there_with_nobody_who_is_meant(lab: Lab, visitor: Visitor) -> None:
    message = lab.store("you@far.test")
    answer = change(lab, visitor, id=message.id, state="held")
    assert answer == {"messages": 0, "recipients": 0, "active": 0, "cursor": None}


def test_it_is_handed_on_who_wants_a_change(lab: Lab) -> None:
    with_none = lab.site.visitor()
    with_none.hello()
    change(lab, with_none, everything=True)
    lab.site.factory.callers = Callers([Token("desk", hashlib.sha256(b"secret").hexdigest(), admin=True)])
    with_one = lab.site.visitor()
    with_one.hello("secret")
    change(lab, with_one, everything=True)
    assert [asked["by"] for asked in lab.changes.asked] == ["root", "root (desk)"]


def test_a_message_that_is_gone_since_it_was_dropped(lab: Lab, visitor: Visitor) -> None:
    lab.changes.answers = [Changed(1, 300, 0, "there"), Changed(0, 0, 0, None)]
    cursor = change(lab, visitor, id=UNKNOWN, action="drop")["cursor"]
    assert change(lab, visitor, id=UNKNOWN, action="drop", after=cursor)["cursor"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"id": "xyz"}, '"xyz" is no queue id'),
        ({"state": "lost"}, 'there is no "lost"'),
        ({"sender": ""}, "sender: give some text"),
        ({"recipient": "a\nb"}, "control characters"),
        ({"code": "9"}, '"9" begins no reply'),
        ({"older": -1.0}, "is no time"),
        ({"after": "somewhere"}, "somewhere"),
    ],
)
def test_what_makes_no_sense(lab: Lab, visitor: Visitor, arguments: dict[str, Any], words: str) -> None:
    lab.store("you@far.test")
    refused, why = lab.ask(visitor, QueueList, **arguments)
    assert refused is BadArgument
    assert words in why


def test_ids_and_places_that_are_none(lab: Lab, visitor: Visitor) -> None:
    message = lab.store("you@far.test")
    for command, arguments in (
        (QueueShow, {"id": "x"}),
        (Why, {"id": "1" * 15}),
        (QueueRead, {"id": "", "offset": 0}),
        (QueueRead, {"id": message.id, "offset": -1}),
        (QueueRead, {"id": message.id, "offset": 2**70}),
        (QueueShow, {"id": message.id, "after": "-"}),
    ):
        assert lab.ask(visitor, command, **arguments)[0] is BadArgument, arguments


def test_a_change_wants_to_be_told_of_whom(lab: Lab, visitor: Visitor) -> None:
    refused, why = change(lab, visitor)
    assert (refused, "nothing selects" in why) == (BadArgument, True)
    assert lab.changes.asked == []
    lab.changes.answers = [Changed(3, 4, 1, "here")]
    answer = change(lab, visitor, everything=True, action="bounce", reason="enough", after="there")
    assert answer == {"messages": 3, "recipients": 4, "active": 1, "cursor": "here"}
    change(lab, visitor, domain="far.test", dry_run=True)
    assert lab.changes.asked == [
        {
            "action": "bounce",
            "selection": Selection(),
            "reason": "enough",
            "by": "root",
            "after": "there",
            "dry_run": False,
        },
        {
            "action": "hold",
            "selection": Selection(domain="far.test"),
            "reason": "",
            "by": "root",
            "after": None,
            "dry_run": True,
        },
    ]


def test_a_message_is_read_part_by_part(lab: Lab, visitor: Visitor) -> None:
    body = bytes(range(256)) * 600
    message = lab.store("you@far.test", body=body)
    read = b""
    while data := lab.ask(visitor, QueueRead, id=message.id, offset=len(read))["data"]:
        read += data
    assert read == body
    assert lab.ask(visitor, QueueRead, id=message.id, offset=10**9)["data"] == b""


def test_pages_follow_each_other_to_the_end(lab: Lab, visitor: Visitor) -> None:
    stored = [lab.store(f"{number}@far.test").id for number in range(250)]
    listed: list[str] = []
    after = None
    pages = 0
    while True:
        answer = lab.ask(visitor, QueueList, after=after)
        listed += [row["id"] for row in answer["rows"]]
        pages += 1
        after = answer["cursor"]
        if after is None:
            break
    assert listed == stored
    assert pages > 1


def test_every_page_fits_into_an_answer(lab: Lab, visitor: Visitor) -> None:
    """Names as long as they come, and as many as a message can have."""
    domains = [f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{number:03}.test" for number in range(300)]
    message = lab.store(
        *(f"{'u' * 64}@{domain}" for domain in domains), helo="h" * 255, reverse_path="s" * 300 + "@x.y"
    )
    seen: list[str] = []
    after = None
    while True:
        answer = lab.ask(visitor, Why, id=message.id, after=after)
        assert len(orjson.dumps(answer["ways"])) <= PAGE_BYTES
        assert set(answer["ways"]) == {row["domain"] for row in answer["rows"]}
        seen += [row["domain"] for row in answer["rows"]]
        after = answer["cursor"]
        if after is None:
            break
    assert seen == domains
    assert len(lab.ask(visitor, QueueShape)["rows"]) == 201


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TooLong("it took more than 20 seconds: select less"), "it took more than 20 seconds: select less"),
        (StoreBroken("full"), "the spool is in trouble: full; the log says more"),
        (apsw.IOError("disk I/O error"), "the spool is in trouble (io): disk I/O error; the log says more"),
        (OSError(28, "No space left on device"), "the spool is in trouble (full)"),
    ],
)
def test_trouble_of_the_spool_is_not_now(
    lab: Lab, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr(lab.spool, "look", lambda *arguments: fail(error))
    monkeypatch.setattr(lab.spool, "read", lambda *arguments: fail(error))
    lab.changes.answers = [error]
    for answer in (
        lab.ask(visitor, QueueList),
        lab.ask(visitor, QueueShow, id="1"),
        lab.ask(visitor, Why, id="1"),
        lab.ask(visitor, QueueStats),
        lab.ask(visitor, QueueShape),
        lab.ask(visitor, QueueRead, id="1", offset=0),
        change(lab, visitor, everything=True),
    ):
        assert answer[0] is Unavailable
        assert words in answer[1]
