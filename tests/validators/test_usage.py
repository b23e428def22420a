"""What accounts may send, over several sessions and restarts."""

from __future__ import annotations

from typing import Any

import apsw
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mtatwist.envelope import Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import Address
from mtatwist.smtp.reply import Reply
from mtatwist.spool import schema
from mtatwist.transaction import Account, Session, Transaction
from mtatwist.validators.rate import Rate
from mtatwist.validators.usage import SAVE_SECONDS, Sending, Usage
from mtatwist.validators.window import Limit

LIMITS = (Limit("messages", 5, 3600.0, "5/h"), Limit("recipients", 10, 86400.0, "10/d"))


class Server:
    """Runs, one after the other, over the same database."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.database = apsw.Connection(":memory:")
        schema.migrate(self.database)
        self.trouble: Exception | None = None
        self.metrics = Instruments()

    def submit(self, job: Any, payload: Any) -> Deferred[Any]:
        """Done by the next turn of the clock."""
        done: Deferred[Any] = Deferred()
        if self.trouble is not None:
            return fail(self.trouble)
        with self.database:
            (result,) = job(self.database, [payload])
        self.clock.callLater(0, done.callback, result)
        return done

    def run(self, limits: tuple[Limit, ...] = LIMITS, **settings: Any) -> Usage:
        usage = Usage(
            limits, now=self.clock.seconds, clock=self.clock, submit=self.submit, metrics=self.metrics, **settings
        )
        usage.start()
        self.clock.advance(0)
        return usage

    def rows(self) -> set[str]:
        return {str(account) for (account,) in self.database.execute("SELECT account FROM submission_usage")}


def session_of(account: str) -> Session:
    return Session("5e55", "submission", "192.0.2.7", account=Account(account))


def send(usage: Usage, account: str = "alice", recipients: int = 1) -> Reply | None:
    """A message that is accepted, or why not."""
    sending = usage.begin(session_of(account), recipients)
    if isinstance(sending, Reply):
        return sending
    sending.accepted()
    return None


def test_messages_and_recipients_are_counted_apart() -> None:
    server = Server()
    usage = server.run()
    assert [send(usage) for _ in range(5)] == [None] * 5
    refusal = send(usage)
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == (450, "4.7.1")
    assert "5/h" in refusal.text and "messages" in refusal.text
    assert server.metrics.submission_limited.value == 1
    assert send(usage, "bob", 10) is None
    refusal = send(usage, "bob")
    assert refusal is not None and "10/d" in refusal.text
    server.clock.advance(3700)
    assert send(usage) is None
    assert send(usage, "bob") is not None
    server.clock.advance(86400 * 1.1)
    assert send(usage, "bob", 10) is None


def test_the_log_tells_who_and_from_where() -> None:
    usage = Server().run()
    with capturedLogs() as events:
        for _ in range(6):
            send(usage)
    said = [(event["log_format"], event["session"], event["peer"], event["user"]) for event in events]
    assert said == [(f"submission_limit{what}", "5e55", "192.0.2.7", "alice") for what in ("_near", "ed")]


def test_a_session_that_ended_meanwhile_still_counts_for_its_account() -> None:
    usage = Server().run()
    for _ in range(5):
        session = session_of("alice")
        sending = usage.begin(session, 1)
        assert isinstance(sending, Sending)
        session.account = None
        sending.accepted()
    assert send(usage) is not None


def test_what_is_not_accepted_does_not_count() -> None:
    usage = Server().run()
    for _ in range(20):
        sending = usage.begin(session_of("alice"), 10)
        assert isinstance(sending, Sending)
        sending.dropped()
        sending.dropped()
    assert send(usage, recipients=10) is None


def test_messages_on_their_way_at_the_same_time_count() -> None:
    usage = Server().run()
    begun = [usage.begin(session_of("alice"), 1) for _ in range(20)]
    going = [sending for sending in begun if isinstance(sending, Sending)]
    assert len(going) == 5
    going[0].dropped()
    assert isinstance(usage.begin(session_of("alice"), 1), Sending)
    # The session had ended, but the message was stored.
    going[0].accepted()
    assert send(usage) is not None


def test_recipients_of_messages_on_their_way_count() -> None:
    usage = Server().run()
    first = usage.begin(session_of("alice"), 6)
    assert isinstance(first, Sending)
    assert isinstance(usage.begin(session_of("alice"), 5), Reply)
    assert isinstance(usage.begin(session_of("alice"), 4), Sending)
    first.dropped()
    assert isinstance(usage.begin(session_of("alice"), 6), Sending)


def test_a_restart_forgets_nothing() -> None:
    server = Server()
    first = server.run()
    for _ in range(3):
        send(first)
    first.stop()
    second = server.run()
    assert [send(second) for _ in range(3)][:2] == [None, None]
    assert send(second) is not None


def test_a_crash_forgets_a_few_seconds() -> None:
    server = Server()
    first = server.run()
    for _ in range(5):
        send(first)
    server.clock.advance(SAVE_SECONDS)
    assert send(server.run()) is not None


def test_what_is_sent_before_the_database_has_answered_is_added() -> None:
    server = Server()
    first = server.run()
    send(first, recipients=4)
    first.stop()
    second = Usage(LIMITS, now=server.clock.seconds, clock=server.clock, submit=server.submit, metrics=server.metrics)
    second.start()
    assert send(second, recipients=4) is None
    server.clock.advance(0)
    assert send(second, recipients=3) is not None
    assert send(second, recipients=2) is None


def test_limits_may_change() -> None:
    server = Server()
    first = server.run()
    send(first, recipients=10)
    first.stop()
    more = server.run((Limit("messages", 2, 3600.0, "2/h"), Limit("recipients", 20, 604800.0, "20/w")))
    assert send(more, recipients=20) is None
    assert send(more) is not None


def test_a_database_in_trouble_is_told_later() -> None:
    server = Server()
    usage = server.run()
    server.trouble = OSError("the disk is broken")
    for _ in range(4):
        send(usage)
    server.clock.advance(SAVE_SECONDS)
    server.clock.advance(SAVE_SECONDS)
    assert server.rows() == set()
    server.trouble = None
    server.clock.advance(SAVE_SECONDS)
    assert server.rows() == {"alice"}
    server.trouble = OSError("the disk is broken")
    send(usage)
    usage.stop()
    assert server.clock.getDelayedCalls() == []


def test_a_database_that_can_not_be_read_lets_everybody_send() -> None:
    server = Server()
    server.trouble = OSError("the disk is broken")
    assert send(server.run()) is None


def test_only_so_many_accounts_are_kept() -> None:
    server = Server()
    usage = server.run(most=3)
    for name in "abcd":
        send(usage, name, 10)
    assert send(usage, "d") is not None
    assert send(usage, "a") is None
    server.clock.advance(SAVE_SECONDS)
    assert server.rows() == {"c", "d", "a"}


def test_who_sends_nothing_any_more_is_forgotten() -> None:
    server = Server()
    usage = server.run()
    send(usage, "old")
    server.clock.advance(86400 * 1.1)
    send(usage, "new")
    server.clock.advance(SAVE_SECONDS)
    assert server.rows() == {"new"}
    usage.stop()
    server.clock.advance(86400 * 1.1)
    server.run()
    server.clock.advance(SAVE_SECONDS)
    assert server.rows() == set()


def test_four_fifths_of_a_limit_are_told_of_once() -> None:
    server = Server()
    usage = server.run()
    for _ in range(3):
        send(usage)
    assert server.metrics.submission_limits_near.value == 0
    send(usage)
    send(usage)
    assert server.metrics.submission_limits_near.value == 1


def transaction(account: str) -> Transaction:
    session = Session("0", "submission", "192.0.2.7", account=Account(account) if account else None)
    return Transaction(session, Address("me", "away.test"))


def test_the_validator_says_it_early() -> None:
    usage = Server().run()
    validator = Rate(usage)
    alice = transaction("alice")
    assert validator.mail(alice) is None
    for index in range(10):
        recipient = Recipient(index, f"{index}@b.test", "b.test")
        assert validator.rcpt(alice, recipient) is None
        alice.named.append(recipient.address)
    refusal = validator.rcpt(alice, Recipient(10, "10@b.test", "b.test"))
    assert refusal is not None and refusal.code == 450
    for _ in range(5):
        send(usage)
    refusal = validator.mail(transaction("alice"))
    assert refusal is not None and refusal.code == 450


@pytest.mark.parametrize("account", ["", "alice"])
def test_without_limits_or_an_account_all_is_well(account: str) -> None:
    for validator in (Rate(None), Rate(Server().run(()))):
        assert validator.mail(transaction(account)) is None
        assert validator.rcpt(transaction(account), Recipient(0, "a@b.test", "b.test")) is None
