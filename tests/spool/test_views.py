"""What those see who look after the queue: a message, its history, and the queue in figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from rigs.messages import AT, body
from rigs.pump import Pump

from mtatwist.envelope import Envelope, Message, Recipient, Settled, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.reply import Reply
from mtatwist.spool import bounded, history, totals, views
from mtatwist.spool.bounded import TooLong
from mtatwist.spool.changes import Request
from mtatwist.spool.selection import Selection
from mtatwist.spool.sqlite import SqliteSpool

PAGE = 60_000

LATER = Reply(450, "4.7.1", "Greylisted\nTry again")


class Queue:
    """A spool with mail, and what is asked of it."""

    def __init__(self, directory: Path) -> None:
        self.pump = Pump()
        self.spool = SqliteSpool(directory, reactor=self.pump, metrics=Instruments())  # type: ignore[arg-type]
        self.spool.start()

    def store(self, *paths: str, size: int = 10, age: float = 0.0, **facts: Any) -> Message:
        recipients = [Recipient(n, path, path.rpartition("@")[2]) for n, path in enumerate(paths)]
        writer = self.spool.create(Envelope("me@here.test", recipients, received_at=AT - age, **facts))
        writer.write(body(size))
        return self.pump.wait(writer.commit())

    def settle(
        self, message: Message, index: int = 0, state: State = State.DEFERRED, at: float = 1.0, **more: Any
    ) -> None:
        reply = more.pop("reply", LATER)
        result = Settled(message.number, index, state, reply, "mx.test", AT + at, AT + at + 60, **more)
        self.pump.wait(self.spool.settle([result], []))

    def claim(self) -> None:
        self.pump.wait(self.spool.claim_due(AT + 1e6, [("there.test", 100)]))

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.pump.wait(self.spool.look(function, *arguments))


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path / "data")
    yield made
    made.spool.stop()


def test_a_message_is_told_with_all_that_is_known(queue: Queue) -> None:
    message = queue.store(
        "a@there.test",
        "b@there.test",
        peer="192.0.2.1",
        helo="h",
        protocol="ESMTPSA",
        tls="TLSv1.3",
        user="anna",
        ret="HDRS",
    )
    queue.settle(message, 0, tls="TLSv1.2 X")
    facts, page = queue.ask(views.message, message.id, None, PAGE)
    assert facts == {
        "id": message.id,
        "received_at": AT,
        "size": 10,
        "sender": "me@here.test",
        "user": "anna",
        "peer": "192.0.2.1",
        "helo": "h",
        "protocol": "ESMTPSA",
        "tls": "TLSv1.3",
        "session": "",
        "body_type": "",
        "smtputf8": False,
        "envid": "",
        "ret": "HDRS",
        "recipients": 2,
    }
    first, second = page.rows
    assert (first["state"], first["active"], first["attempts"], first["tls"]) == ("deferred", False, 1, "TLSv1.2 X")
    assert (first["reply"], first["at"], first["next_attempt"]) == ("450 4.7.1 Greylisted / Try again", AT + 1, AT + 61)
    assert (second["state"], second["active"], second["reply"], second["at"]) == ("pending", True, "", None)
    assert page.cursor is None


def test_the_recipients_of_a_message_come_in_pages_that_fit(queue: Queue) -> None:
    message = queue.store(*(f"{number}@there.test" for number in range(450)))
    seen: list[int] = []
    cursor: str | None = None
    pages = 0
    while not pages or cursor is not None:
        _, page = queue.ask(views.message, message.id.lower(), cursor, 5000)
        assert len(orjson.dumps(page.rows)) <= 5000
        seen += [row["index"] for row in page.rows]
        cursor = page.cursor
        pages += 1
    assert seen == list(range(450))
    assert pages > 10


@pytest.mark.parametrize("view", [views.message, history.story])
def test_a_message_that_is_gone_is_said_to_be(queue: Queue, view: Any) -> None:
    with pytest.raises(LookupError, match="no message 000000000000FF in the queue"):
        queue.ask(view, "ff", None, PAGE)
    for id, after in (("xyz", None), ("ff" * 20, None)):
        with pytest.raises(ValueError, match="no queue id"):
            queue.ask(view, id, after, PAGE)
    message = queue.store("a@there.test")
    with pytest.raises(ValueError, match="after"):
        queue.ask(view, message.id, "-1", PAGE)


def test_what_left_a_recipient_waiting_is_remembered(queue: Queue) -> None:
    message = queue.store("a@there.test", "b@there.test")
    for attempt in range(3):
        queue.settle(message, 0, at=attempt, tls="TLSv1.2 X")
        queue.claim()
    queue.settle(message, 0, State.DELIVERED, 9, reply=Reply(250, "2.0.0", "Ok"))
    _, page = queue.ask(history.story, message.id, None, PAGE)
    first, second = page.rows
    assert [(attempt["at"], attempt["code"], attempt["host"]) for attempt in first["history"]] == [
        (AT, 450, "mx.test"),
        (AT + 1, 450, "mx.test"),
        (AT + 2, 450, "mx.test"),
    ]
    assert {attempt["reply"] for attempt in first["history"]} == {"450 4.7.1 Greylisted / Try again"}
    assert {attempt["tls"] for attempt in first["history"]} == {"TLSv1.2 X"}
    assert (first["state"], first["reply"], first["attempts"]) == ("delivered", "250 2.0.0 Ok", 4)
    assert second["history"] == []


def test_only_the_last_attempts_are_remembered(queue: Queue) -> None:
    message = queue.store("a@there.test")
    for attempt in range(history.KEPT + 7):
        queue.settle(message, 0, at=attempt)
        queue.claim()
    _, page = queue.ask(history.story, message.id, None, PAGE)
    assert [attempt["at"] for attempt in page.rows[0]["history"]] == [AT + 7 + n for n in range(history.KEPT)]


def test_an_outcome_that_is_no_longer_ours_to_record_is_not_remembered(queue: Queue) -> None:
    """Nor is one twice, that is written again as nobody knew whether it was written."""
    message = queue.store("a@there.test")
    queue.settle(message, 0, at=1)
    queue.settle(message, 0, at=1)
    queue.settle(message, 0, at=2)
    _, page = queue.ask(history.story, message.id, None, PAGE)
    assert [attempt["at"] for attempt in page.rows[0]["history"]] == [AT + 1]


def test_the_history_goes_with_its_message(queue: Queue) -> None:
    first, second = queue.store("a@there.test"), queue.store("b@there.test")
    for message in (first, second):
        queue.settle(message)
    queue.claim()
    queue.settle(first, state=State.FAILED)
    assert queue.ask(_numbers) == [second.number]


def _numbers(connection: apsw.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT DISTINCT number FROM attempt")]


def test_of_a_long_history_the_last_attempts_fit(queue: Queue) -> None:
    message = queue.store("a@there.test", "b@there.test")
    for index in range(2):
        for attempt in range(20):
            queue.settle(message, index, at=attempt, reply=Reply(450, "", "\x01" * 1500))
            queue.claim()
    _, page = queue.ask(history.story, message.id, None, PAGE)
    assert len(orjson.dumps(page.rows)) <= PAGE
    (row,) = page.rows
    assert 0 < len(row["history"]) < 20
    assert row["history"][-1]["at"] == AT + 19
    _, rest = queue.ask(history.story, message.id, page.cursor, PAGE)
    assert [row["index"] for row in rest.rows] == [1]
    assert rest.cursor is None


def test_the_queue_in_figures(queue: Queue) -> None:
    assert queue.ask(totals.stats, AT, str) == {
        "messages": 0,
        "octets": 0,
        "oldest": None,
        "recipients": {"pending": 0, "deferred": 0, "held": 0, "active": 0, "due": 0},
        "replies": {},
        "domains": [],
        "next_hops": [],
    }
    first = queue.store("a@there.test", "b@there.test", "c@other.test", age=1000, size=300_000)
    second = queue.store("d@there.test")
    queue.settle(first, 0)
    queue.settle(first, 2, State.FAILED, reply=Reply(550, "", "No"))
    queue.settle(second)
    request = Request("hold", Selection(id=second.id), [(second.number, 0)], frozenset(), AT)
    queue.pump.wait(queue.spool.change(request))
    assert queue.ask(totals.stats, AT + 1000, lambda domain: f"smart.{domain}") == {
        "messages": 2,
        "octets": 300_010,
        "oldest": AT - 1000,
        "recipients": {"pending": 1, "deferred": 1, "held": 1, "active": 1, "due": 1},
        "replies": {"4": 2},
        "domains": [{"name": "there.test", "recipients": 3}],
        "next_hops": [{"name": "smart.there.test", "recipients": 3}],
    }


def test_the_queue_by_domain_and_age(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in (0, 299, 300, 4000, 90_000):
        queue.store("a@there.test", age=age)
    queue.store("a@b.test", "a@c.test", age=10_000)
    expected = [
        {"domain": "there.test", "counts": [2, 1, 1, 0, 1], "recipients": 5},
        {"domain": "b.test", "counts": [0, 0, 1, 0, 0], "recipients": 1},
        {"domain": "c.test", "counts": [0, 0, 1, 0, 0], "recipients": 1},
    ]
    assert queue.ask(totals.shape, Selection(), AT, str) == {"ages": list(totals.AGES), "rows": expected}
    assert queue.ask(totals.shape, Selection(next_hop="[b]*"), AT, lambda domain: f"[{domain}]")["rows"] == []
    assert (
        queue.ask(totals.shape, Selection(next_hop="[b.*"), AT, lambda domain: f"[{domain}]")["rows"] == expected[1:2]
    )
    monkeypatch.setattr(totals, "DOMAINS", 1)
    others = {"domain": "", "counts": [0, 0, 2, 0, 0], "recipients": 2, "domains": 2}
    assert queue.ask(totals.shape, Selection(), AT, str)["rows"] == [expected[0], others]


def test_a_look_that_takes_too_long_is_broken_off(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "LONGEST", -1.0)
    monkeypatch.setattr(bounded, "_STEPS", 10)
    with pytest.raises(TooLong, match="select less"):
        queue.ask(totals.stats, AT, str)
    monkeypatch.undo()
    assert queue.ask(totals.stats, AT, str)["messages"] == 0


def test_a_look_can_write_nothing(queue: Queue) -> None:
    with pytest.raises(apsw.ReadOnlyError):
        queue.ask(lambda connection: connection.execute("DELETE FROM recipient"))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"id": "nothing"}, "queue id"),
        ({"id": ""}, "queue id"),
        ({"sender": ""}, "<>"),
        ({"recipient": ""}, "recipient: "),
        ({"recipient": "a\nb"}, "control characters"),
        ({"domain": "a" * 513}, "512"),
        ({"older": -1.0}, "older: "),
        ({"older": float("nan")}, "older: "),
        ({"state": "delivered"}, "pending, deferred, held"),
        ({"code": "1"}, "code: "),
        ({"code": "4500"}, "code: "),
        ({"code": "4."}, "code: "),
        ({"code": "4.7.1.1"}, "code: "),
    ],
)
def test_what_can_not_be_meant_is_said(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Selection(**given)


def test_nothing_given_is_everything() -> None:
    assert Selection().everything
    assert not Selection(user="").everything
    assert json.dumps(Selection(older=3.0, state="held").given()) == '{"older": 3.0, "state": "held"}'
