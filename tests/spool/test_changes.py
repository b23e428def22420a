"""What is selected and changed: the database agrees with a spool that looks at each recipient by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from rigs.messages import AT, claim_due
from rigs.pump import Pump

from mtatwist.envelope import Envelope, Message, Recipient, Settled, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.reply import Reply
from mtatwist.spool import views
from mtatwist.spool.changes import FIRST, STATES, Answer, Found, Key, Request
from mtatwist.spool.memory import MemorySpool
from mtatwist.spool.selection import Selection
from mtatwist.spool.sqlite import SqliteSpool

REPLIES = [Reply(450, "4.7.1", "Greylisted"), Reply(451, "", "Later"), Reply(452, "4.7.10", "Full"), None]

SENDERS = ["me@here.test", "Me@HERE.test", "", "[x]?*@here.test", "jürgen@straße.test"]
PATHS = ["you@there.test", "YOU@There.Test", "a*b@[192.0.2.1]", "%_@there.test", "ünï@xn--strae-oqa.test"]
USERS = ["", "anna", "Anna", "b*"]


def next_hop(domain: str) -> str:
    """As routes would have it."""
    return "smart.test:25" if domain.startswith("t") else domain


class Both:
    """The same mail in both; ``numbers``: what the database calls a message of the other."""

    def __init__(self, directory: Path) -> None:
        self.pump = Pump()
        self.sqlite = SqliteSpool(directory, reactor=self.pump, metrics=Instruments())  # type: ignore[arg-type]
        self.sqlite.start()
        self.memory = MemorySpool()
        self.numbers: dict[int, int] = {}

    def store(self, envelope: Envelope) -> None:
        messages: list[Message] = []
        for spool in (self.sqlite, self.memory):
            recipients = [Recipient(r.index, r.address, r.domain) for r in envelope.recipients]
            made = Envelope(envelope.reverse_path, recipients, received_at=envelope.received_at, user=envelope.user)
            writer: Any = spool.create(made)
            writer.write(b"x")
            messages.append(self.pump.wait(writer.commit()))
        self.numbers[messages[1].number] = messages[0].number

    def both(self, ask: Any) -> list[Any]:
        return [self.pump.wait(ask(spool)) for spool in (self.sqlite, self.memory)]

    def settle(self, number: int, index: int, reply: Reply) -> None:
        def ask(spool: Any) -> Any:
            known = self.numbers[number] if spool is self.sqlite else number
            return spool.settle([Settled(known, index, State.DEFERRED, reply, "mx.test", AT + 9, AT + 10)], [])

        self.both(ask)

    def find(self, action: str, selection: Selection, limit: int = 1000, after: Key = FIRST) -> Found:
        sqlite, memory = self.both(lambda spool: spool.find(action, selection, AT + 100, after, limit, next_hop))
        named = {known: number for number, known in self.numbers.items()}
        keys = [(named[number], index) for number, index in sqlite.keys]
        assert keys == memory.keys
        assert sqlite.domains == memory.domains
        assert {(named[number], index) for number, index in sqlite.claimed} == memory.claimed
        return memory  # type: ignore[no-any-return]

    def change(self, action: str, selection: Selection, keys: list[Key], withdrawn: frozenset[Key]) -> Answer:
        def ask(spool: Any) -> Any:
            if spool is self.memory:
                return spool.change(Request(action, selection, keys, withdrawn, AT + 200))
            named = [(self.numbers[number], index) for number, index in keys]
            ours = frozenset((self.numbers[number], index) for number, index in withdrawn)
            return spool.change(Request(action, selection, named, ours, AT + 200))

        sqlite, memory = self.both(ask)
        named = {known: number for number, known in self.numbers.items()}
        for mine, theirs in ((sqlite.done, memory.done), (sqlite.busy, memory.busy)):
            assert sorted((named[number], index) for number, index in mine) == sorted(theirs)
        told = [
            sorted(
                (named.get(m.number, m.number), r.index, r.address, r.state, r.attempts, r.last_reply)
                for m in messages
                for r in m.envelope.recipients
            )
            for messages in (sqlite.messages, memory.messages)
        ]
        assert told[0] == told[1]
        return memory  # type: ignore[no-any-return]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    spools = Both(tmp_path / "data")
    yield spools
    spools.sqlite.stop()


ENVELOPES = st.builds(
    lambda sender, paths, user, age: Envelope(
        sender,
        [Recipient(n, path, path.rpartition("@")[2].lower()) for n, path in enumerate(paths)],
        received_at=AT - age,
        user=user,
    ),
    st.sampled_from(SENDERS),
    st.lists(st.sampled_from(PATHS), min_size=1, max_size=4),
    st.sampled_from(USERS),
    st.sampled_from([0.0, 50.0, 5000.0]),
)

SELECTIONS = st.builds(
    Selection,
    sender=st.sampled_from([None, None, "<>", "*", "me@*", "*@here.test", "[x]?*@here.test", "jürgen@straße.test"]),
    recipient=st.sampled_from([None, None, "you@*", "a*b@[*", "%_@*", "*ï*", "y?u@there.test"]),
    domain=st.sampled_from([None, None, "there.test", "THERE.*", "*.test", "straße.test"]),
    user=st.sampled_from([None, None, None, "anna", "*", "", "b*"]),
    older=st.sampled_from([None, None, 0.0, 150.0, 1e6]),
    state=st.sampled_from([None, None, "pending", "deferred", "held"]),
    code=st.sampled_from([None, None, "4", "45", "450", "5", "4.7", "4.7.1", "4.7.10"]),
    next_hop=st.sampled_from([None, None, "smart*", "xn--*", "smart.test:25", "none"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_both_spools_find_and_change_the_same(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    both = Both(tmp_path_factory.mktemp("spool") / "data")
    try:
        for envelope in data.draw(st.lists(ENVELOPES, min_size=1, max_size=6)):
            both.store(envelope)
        recipients = [(n, r.index) for n, m in both.memory.messages.items() for r in m.envelope.recipients]
        for number, index in data.draw(st.lists(st.sampled_from(recipients), unique=True)):
            reply = data.draw(st.sampled_from(REPLIES))
            if reply is not None:
                both.settle(number, index, reply)
        for _ in range(4):
            action, selection = data.draw(st.sampled_from(sorted(STATES))), data.draw(SELECTIONS)
            found = both.find(action, selection)
            withdrawn = frozenset(key for key in found.keys if key in found.claimed and data.draw(st.booleans()))
            # Not all of them may still be what was found.
            asked = [*found.keys, *data.draw(st.lists(st.sampled_from(recipients), unique=True, max_size=2))]
            both.change(action, selection, sorted(set(asked)), withdrawn)
            everybody = both.find("drop", Selection())
            assert everybody == both.find("drop", Selection(older=0))
    finally:
        both.sqlite.stop()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_pages_of_a_list_have_what_each_recipient_says_for_itself(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    both = Both(tmp_path_factory.mktemp("spool") / "data")
    try:
        for envelope in data.draw(st.lists(ENVELOPES, min_size=1, max_size=8)):
            both.store(envelope)
        for number, message in both.memory.messages.items():
            reply = data.draw(st.sampled_from(REPLIES))
            if reply is not None:
                both.settle(number, message.envelope.recipients[0].index, reply)
        selection = data.draw(SELECTIONS)
        octets = data.draw(st.sampled_from([10, 800, 60_000]))
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        for page in range(100):
            if page and cursor is None:
                break
            found, cursor = both.pump.wait(
                both.sqlite.look(views.messages, selection, AT + 100, cursor, octets, next_hop)
            )
            rows += found
        meant = {
            both.numbers[number]: sum(
                selection.matches(message, recipient, AT + 100, next_hop) for recipient in message.envelope.recipients
            )
            for number, message in both.memory.messages.items()
        }
        assert [int(row["id"], 16) for row in rows] == [number for number, count in sorted(meant.items()) if count]
        assert [row["pending"] + row["deferred"] + row["held"] for row in rows] == [
            count for _, count in sorted(meant.items()) if count
        ]
    finally:
        both.sqlite.stop()


def test_a_part_is_found_at_a_time(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of recipients that are given, and by that of those looked at; also in the middle of a message."""
    monkeypatch.setattr(views, "WINDOW", views.WINDOW.replace(f"{views.SCANNED - 1}", "2"))
    for _ in range(4):
        both.store(Envelope("me@here.test", [Recipient(n, f"{n}@there.test", "there.test") for n in range(3)]))
    for selection, count in ((Selection(), 12), (Selection(recipient="2@*"), 4), (Selection(recipient="none"), 0)):
        after: Key | None = FIRST
        keys: list[Key] = []
        rounds = 0
        while after is not None:
            found: Found = both.pump.wait(both.sqlite.find("hold", selection, AT, after, 2, next_hop))
            assert len(found.keys) <= 2
            keys += found.keys
            after = found.following
            rounds += 1
            assert rounds < 20
        assert len(keys) == len(set(keys)) == count


def test_what_is_claimed_by_nobody_who_was_asked_is_left_alone(both: Both) -> None:
    both.store(Envelope("me@here.test", [Recipient(0, "you@there.test", "there.test")], received_at=AT))
    answer = both.change("hold", Selection(), [(1, 0)], frozenset())
    assert (answer.done, answer.busy) == ([], [(1, 0)])


def test_what_was_held_is_kept_over_a_restart_and_never_due(tmp_path: Path) -> None:
    both = Both(tmp_path / "data")
    both.store(Envelope("me@here.test", [Recipient(0, "you@there.test", "there.test")], received_at=AT))
    both.change("hold", Selection(), [(1, 0)], frozenset([(1, 0)]))
    both.sqlite.stop()
    again = SqliteSpool(tmp_path / "data", reactor=both.pump, metrics=Instruments())  # type: ignore[arg-type]
    again.start()
    wait = both.pump.wait
    assert claim_due(again, wait, AT + 1e9) == []
    assert wait(again.claim_late(AT + 1e9, 0, False, 10)) == [], "it does not get too old"
    (row,) = wait(again.look(views.messages, Selection(), AT, None, 60_000, next_hop)).rows
    assert (row["held"], row["next_attempt"]) == (1, None)
    again.stop()


@pytest.mark.parametrize("state", [State.PENDING, State.DEFERRED])
def test_what_is_released_is_as_it_was_before_and_due(both: Both, state: State) -> None:
    both.store(Envelope("me@here.test", [Recipient(0, "you@there.test", "there.test")], received_at=AT))
    if state is State.DEFERRED:
        both.settle(1, 0, Reply(450, "", "Later"))
    both.change("hold", Selection(), [(1, 0)], frozenset([(1, 0)]))
    both.change("release", Selection(), [(1, 0)], frozenset())
    ((message,), _) = both.both(lambda spool: _due(spool, both.pump))
    (recipient,) = message.envelope.recipients
    assert (recipient.state, recipient.next_attempt) == (state, AT + 200)


def _due(spool: Any, pump: Pump) -> Any:
    assert claim_due(spool, pump.wait, AT + 199) == []
    return spool.claim_due(AT + 200, [("there.test", 10)])
