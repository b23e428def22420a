"""The recorder: which DSNs an attempt causes, and that they are stored with it, once."""

from __future__ import annotations

from collections.abc import Sequence
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from metrics.reading import tried
from relay.fakes import BODY, GONE, LATER, TAKEN
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from mtatwist.envelope import Delivered, Envelope, Handed, Message, Outcome, Recipient, State
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay import record
from mtatwist.relay.record import REPORTS_LIMIT, REWRITE_SECONDS, Recorder
from mtatwist.relay.report import Reporter
from mtatwist.relay.retry import Schedule
from mtatwist.relay.work import Work
from mtatwist.smtp.reply import Reply
from mtatwist.spool.memory import MemorySpool, MemoryWriter

FINE = Reply(250, "2.0.0", "fine")
IN_MAILBOX = Delivered(FINE, handed=Handed.MAILBOX)
RELAYED = Delivered(FINE, "next.test", Handed.RELAYED)
NOTIFYING = Delivered(FINE, "next.test", Handed.NOTIFYING)

WARN_AFTER, MAX_AGE = 400.0, 1000.0
AHEAD = 7200.0
"""Seconds by which the queue's time is ahead of what people read."""


class Spool(MemorySpool):
    """Fails, or keeps waiting, those calls that are named. ``lost``: settles, and says that it could not."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.lost = False
        self.held: list[Deferred[None]] | None = None
        self.room = True
        self.made: list[Writer] = []

    def has_room(self, size: int) -> bool:
        return self.room

    def create(self, envelope: Envelope) -> Writer:
        self.made.append(Writer(self, next(self._numbers), envelope))
        return self.made[-1]

    def settle(self, results: Any, reports: Any) -> Any:
        if "settle" in self.broken:
            return fail(OSError("the disk is broken"))
        if self.held is not None:
            self.held.append(Deferred())
            return self.held[-1].addCallback(lambda _: super(Spool, self).settle(results, reports))
        stored = super().settle(results, reports)
        return fail(OSError("nobody knows")) if self.lost else stored

    def read(self, *arguments: Any) -> Any:
        return fail(OSError("the disk is broken")) if "read" in self.broken else super().read(*arguments)


class Writer(MemoryWriter):
    """Can't be prepared while that is broken."""

    _spool: Spool

    async def prepare(self) -> None:
        if "prepare" in self._spool.broken:
            raise OSError("the disk is broken")
        await super().prepare()

    @property
    def aborted(self) -> bool:
        return self._aborted


class Rig:
    def __init__(self, *, warn_after: float = WARN_AFTER, return_size: int = 100_000) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.spool = Spool()
        self.metrics = Instruments()
        self.running = True
        self.recorder = Recorder(
            self.spool,
            schedule=Schedule([300.0], MAX_AGE, lambda: 0.5, warn_after=warn_after),
            reporter=Reporter(
                self.spool,
                hostname="mta.test",
                return_size=return_size,
                shown=lambda at: at - AHEAD,
                metrics=self.metrics,
            ),
            clock=self.clock,
            wall=self.clock.seconds,
            metrics=self.metrics,
            running=lambda: self.running,
        )

    def accept(
        self, *to: str, notify: Sequence[str] = (), reverse_path: str = "me@here.test", body: bytes = BODY, **more: Any
    ) -> Message:
        recipients = [Recipient(index, path, "there.test") for index, path in enumerate(to or ("you@there.test",))]
        for recipient, wish in zip(recipients, notify, strict=False):
            recipient.notify = wish
        envelope = Envelope(reverse_path, recipients, received_at=self.clock.seconds(), **more)
        writer = self.spool.create(envelope)
        writer.write(body)
        stored: list[Message] = []
        writer.commit().addCallback(stored.append)
        self.spool.made.clear()
        return stored[0]

    def begin(self, message: Message, *outcomes: Outcome) -> Deferred[Any]:
        """One attempt; its results are recorded sooner or later."""
        recipients = message.envelope.recipients
        for recipient in recipients:
            self.spool.claims.add((message.number, recipient.index))
        every = outcomes * len(recipients) if len(outcomes) == 1 else outcomes
        return Deferred.fromCoroutine(self.recorder.record(Work(message, recipients), every))

    def attempt(self, message: Message, *outcomes: Outcome) -> list[Dsn]:
        """One attempt; the DSNs that it causes."""
        results: list[Any] = []
        self.begin(message, *outcomes).addBoth(results.append)
        return [Dsn(report) for report in results[0][0]]

    def again(self, message: Message, *outcomes: Outcome, after: float) -> list[Dsn]:
        """Another attempt at what is left of it, some time after the last."""
        self.clock.advance(after)
        kept = self.spool.messages[message.number].envelope.recipients
        message.envelope.recipients = [one for one in kept if one.state in (State.PENDING, State.DEFERRED)]
        return self.attempt(message, *outcomes)

    def counted(self) -> tuple[int, int, int, int]:
        """The DSNs by kind, and in all."""
        metrics = self.metrics
        kinds = (metrics.reports_failed, metrics.reports_delayed, metrics.reports_succeeded)
        failed, delayed, succeeded = (one.value for one in kinds)
        return failed, delayed, succeeded, failed + delayed + succeeded


class Dsn:
    """One that was stored."""

    def __init__(self, report: Message) -> None:
        assert report.body is not None
        self.envelope = report.envelope
        parsed = BytesParser(policy=policy.default).parsebytes(report.body)
        assert isinstance(parsed, EmailMessage)
        self.words, self.status, self.third = parsed.iter_parts()
        groups: Any = self.status.get_payload()
        self.actions = {group["Final-Recipient"].split()[1]: group["Action"] for group in groups[1:]}
        self.until = groups[1]["Will-Retry-Until"]
        self.text = " ".join(str(self.words.get_content()).split())


# Which.


def test_a_failure_is_told() -> None:
    rig = Rig()
    (dsn,) = rig.attempt(rig.accept(), GONE)
    assert dsn.actions == {"you@there.test": "failed"}
    assert dsn.envelope.reverse_path == ""
    assert dsn.envelope.recipients[0].address == "me@here.test"
    assert rig.counted() == (1, 0, 0, 1)
    assert list(rig.spool.messages) == [2], "the message is gone, and the DSN is there"


def test_what_fails_together_is_told_together_and_each_kind_for_itself() -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test", "c@x.test", "d@x.test", notify=["", "SUCCESS", "", "SUCCESS,FAILURE"])
    failed, relayed = rig.attempt(message, GONE, RELAYED, LATER, GONE)
    assert failed.actions == {"a@x.test": "failed", "d@x.test": "failed"}
    assert relayed.actions == {"b@x.test": "relayed"}
    assert rig.counted() == (1, 0, 1, 2)


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY", "SUCCESS,DELAY"])
def test_a_failure_that_nobody_asked_for_is_told_nobody(notify: str) -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test", notify=[notify, notify])
    assert rig.attempt(message, GONE) == []
    assert rig.spool.messages == {}
    assert tried(rig.metrics, "failed") == 2
    assert rig.metrics.reports_dropped.value == 0


@pytest.mark.parametrize(
    ("notify", "outcome", "action"),
    [
        ("SUCCESS", IN_MAILBOX, "delivered"),
        ("FAILURE,SUCCESS", IN_MAILBOX, "delivered"),
        ("SUCCESS", RELAYED, "relayed"),
        ("SUCCESS", NOTIFYING, None),
        ("", IN_MAILBOX, None),
        ("", RELAYED, None),
        ("FAILURE,DELAY", RELAYED, None),
        ("NEVER", IN_MAILBOX, None),
    ],
)
def test_a_success_is_told_to_who_asked_for_it(notify: str, outcome: Outcome, action: str | None) -> None:
    rig = Rig()
    dsns = rig.attempt(rig.accept(notify=[notify]), outcome)
    assert [dsn.actions for dsn in dsns] == ([{"you@there.test": action}] if action else [])
    assert rig.counted()[2] == len(dsns)


def test_nobody_is_told_of_a_dsn() -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test", "c@x.test", reverse_path="", notify=["NEVER", "", "FAILURE,SUCCESS"])
    assert rig.attempt(message, GONE) == []
    assert rig.spool.messages == {}
    assert rig.metrics.reports_dropped.value == 3
    message = rig.accept("a@x.test", reverse_path="", notify=["SUCCESS,DELAY"])
    assert rig.attempt(message, LATER) == rig.again(message, LATER, after=WARN_AFTER) == []
    assert rig.again(message, IN_MAILBOX, after=1) == []
    assert rig.metrics.reports_dropped.value == 3
    assert rig.counted() == (0, 0, 0, 0)


def test_a_dsn_that_fails_makes_no_other() -> None:
    rig = Rig()
    rig.attempt(rig.accept(), GONE)
    (report,) = rig.spool.messages.values()
    assert rig.attempt(report, GONE) == []
    assert rig.spool.messages == {}
    assert rig.metrics.reports_dropped.value == 1


# Delays.


def test_a_delay_is_told_once() -> None:
    rig = Rig()
    message = rig.accept()
    assert rig.attempt(message, LATER) == []
    assert rig.again(message, LATER, after=WARN_AFTER - 1) == []
    (dsn,) = rig.again(message, LATER, after=1)
    assert dsn.actions == {"you@there.test": "delayed"}
    assert parsedate_to_datetime(dsn.until).timestamp() == 1_000_000 + MAX_AGE - AHEAD
    assert rig.again(message, LATER, after=300) == []
    assert rig.counted() == (0, 1, 0, 1)


def test_each_recipient_is_told_of_once() -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test", "c@x.test", notify=["", "FAILURE", "DELAY"])
    rig.attempt(message, LATER)
    (dsn,) = rig.again(message, LATER, LATER, LATER, after=WARN_AFTER)
    assert dsn.actions == {"a@x.test": "delayed", "c@x.test": "delayed"}
    assert [one.warned for one in rig.spool.messages[message.number].envelope.recipients] == [True] * 3


def test_what_is_delivered_in_time_or_just_then_is_not_late() -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test")
    rig.attempt(message, LATER, TAKEN)
    assert rig.again(message, TAKEN, after=WARN_AFTER) == []


def test_who_is_told_of_a_failure_is_not_told_of_a_delay() -> None:
    rig = Rig()
    for outcome in (GONE, LATER):
        message = rig.accept()
        (dsn,) = rig.again(message, outcome, after=MAX_AGE)
        assert dsn.actions == {"you@there.test": "failed"}
    assert "Delivery was tried until" in dsn.text
    assert rig.counted() == (2, 0, 0, 2)


def test_delays_can_be_kept_quiet() -> None:
    rig = Rig(warn_after=0)
    message = rig.accept()
    assert rig.attempt(message, LATER) == rig.again(message, LATER, after=MAX_AGE - 1) == []


# Together with the outcome, and once.


def test_a_dsn_is_stored_once_however_often_the_spool_says_no() -> None:
    rig = Rig()
    rig.spool.broken = {"settle"}
    done = rig.begin(rig.accept(), GONE)
    rig.clock.pump([1] * (3 * round(REWRITE_SECONDS)))
    assert rig.metrics.relay_errors.value >= 3
    assert not done.called
    rig.spool.broken = set()
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    assert done.called
    assert len(rig.spool.made) == 1
    assert list(rig.spool.messages) == [rig.spool.made[0].number]
    assert rig.counted() == (1, 0, 0, 1)


def test_a_dsn_is_stored_once_when_the_spool_said_no_and_had_done_it() -> None:
    rig = Rig()
    rig.spool.lost = True
    done = rig.begin(rig.accept(), GONE)
    stored = set(rig.spool.messages)
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    rig.spool.lost = False
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    assert done.called
    assert set(rig.spool.messages) == stored
    assert len(stored) == 1


def test_a_dsn_that_can_not_be_written_is_made_anew() -> None:
    rig = Rig()
    rig.spool.broken = {"prepare"}
    done = rig.begin(rig.accept("a@x.test", "b@x.test", notify=["SUCCESS", ""]), RELAYED, GONE)
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    rig.spool.broken = set()
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    assert done.called
    assert [one.aborted for one in rig.spool.made][-3:] == [True, False, False]
    assert len(rig.spool.messages) == 2


def test_what_is_not_written_when_stopping_is_left_to_the_next_start() -> None:
    rig = Rig()
    rig.spool.broken = {"settle"}
    message = rig.accept()
    done = rig.begin(message, GONE)
    rig.running = False
    rig.clock.pump([1] * round(REWRITE_SECONDS))
    done.addErrback(lambda failure: failure.trap(OSError))
    assert done.called
    assert list(rig.spool.messages) == [message.number]
    # Its row may be there after all, and then needs its file.
    assert not rig.spool.made[0].aborted


def test_dsns_do_not_gather_in_memory() -> None:
    rig = Rig()
    rig.spool.held = []
    attempts = [rig.begin(rig.accept(), GONE) for _ in range(3 * REPORTS_LIMIT)]
    assert sum(1 for message in rig.spool.messages.values() if message.envelope.reverse_path) == len(attempts)
    assert len(rig.spool.held) == REPORTS_LIMIT
    while not all(done.called for done in attempts):
        rig.spool.held.pop(0).callback(None)
    assert len(rig.spool.messages) == len(attempts)
    assert rig.counted()[0] == len(attempts)


def test_the_limit_leaves_alone_what_has_nothing_to_tell() -> None:
    rig = Rig()
    rig.spool.held = []
    for _ in range(2 * record.REPORTS_LIMIT):
        rig.begin(rig.accept(), GONE)
    rig.begin(rig.accept(), TAKEN)
    assert len(rig.spool.held) == REPORTS_LIMIT + 1
    while rig.spool.held:
        rig.spool.held.pop(0).callback(None)


# What goes back.


def third(dsn: Dsn) -> Any:
    return dsn.third.get_content_type(), dsn.third.as_string()


def test_the_header_goes_back_unless_all_is_asked_for() -> None:
    rig = Rig()
    for ret in ("", "HDRS"):
        (dsn,) = rig.attempt(rig.accept(ret=ret), GONE)
        assert dsn.third.get_content_type() == "text/rfc822-headers"
        assert "hello" not in dsn.third.as_string()
        assert "The header section of your message is attached." in dsn.text


def test_all_goes_back_when_that_is_asked_for() -> None:
    rig = Rig()
    (dsn,) = rig.attempt(rig.accept(ret="FULL", envid="x+20y"), GONE)
    assert dsn.third.get_content_type() == "message/rfc822"
    assert "hello" in dsn.third.as_string()
    assert "Your message is attached." in dsn.text
    assert (dsn.envelope.ret, dsn.envelope.envid) == ("", "")


def test_all_goes_back_with_failures_only() -> None:
    rig = Rig()
    message = rig.accept("a@x.test", "b@x.test", notify=["SUCCESS", ""], ret="FULL")
    (dsn,) = rig.attempt(message, RELAYED, LATER)
    assert dsn.third.get_content_type() == "text/rfc822-headers"
    (dsn,) = rig.again(message, LATER, after=WARN_AFTER)
    assert dsn.third.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("size", "more than the 97.7 KiB that are returned from here"),
        ("binary", "it is binary"),
        ("room", "no room"),
        ("charset", "no charset that is known"),
    ],
)
def test_why_not_all_goes_back_is_said(case: str, says: str) -> None:
    rig = Rig()
    rig.spool.room = case != "room"
    body = BODY + (b"x" * 70 + b"\r\n") * (1400 if case == "size" else 1)
    if case == "charset":
        body = b"Subject: bl\xe5b\xe6r\r\n" + body
    message = rig.accept(ret="FULL", body=body, body_type="BINARYMIME" if case == "binary" else "")
    (dsn,) = rig.attempt(message, GONE)
    assert dsn.third.get_content_type() == "text/rfc822-headers"
    assert says in dsn.text


@pytest.mark.parametrize("at", [0, 299_999])
def test_a_whole_message_is_8bit_if_any_of_it_is(at: int) -> None:
    rig = Rig(return_size=1 << 20)
    body = bytearray(BODY + b"x" * 300_000)
    body[len(BODY) + at] = 0xE5
    (dsn,) = rig.attempt(rig.accept(ret="FULL", body=bytes(body)), GONE)
    assert dsn.third["Content-Transfer-Encoding"] == "8bit"
    assert dsn.envelope.body_type == "8BITMIME"
    (dsn,) = rig.attempt(rig.accept(ret="FULL", body=bytes(body).replace(b"\xe5", b"x")), GONE)
    assert dsn.third["Content-Transfer-Encoding"] is None
    assert dsn.envelope.body_type == ""


@pytest.mark.parametrize("ret", ["FULL", ""])
def test_a_message_that_can_not_be_read_is_told_of_without_it(ret: str) -> None:
    rig = Rig()
    message = rig.accept(ret=ret)
    rig.spool.broken = {"read"}
    (dsn,) = rig.attempt(message, GONE)
    assert dsn.actions == {"you@there.test": "failed"}
    assert "nothing of it is attached" in dsn.text
    assert rig.metrics.relay_errors.value == 1


@pytest.mark.parametrize("ret", ["FULL", ""])
@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\nno header\r\n"])
def test_a_message_without_a_header_goes_back_like_any_other(ret: str, body: bytes) -> None:
    rig = Rig()
    (dsn,) = rig.attempt(rig.accept(ret=ret, body=body), GONE)
    assert dsn.third.get_content_type() == ("message/rfc822" if ret else "text/rfc822-headers")
    assert rig.metrics.relay_errors.value == 0


def test_a_message_that_is_cut_off_is_told_of_without_it() -> None:
    rig = Rig()
    message = rig.accept(ret="FULL")
    message.size += 1
    (dsn,) = rig.attempt(message, GONE)
    assert dsn.third.get_content_type() == "text/rfc822-headers"
    assert "The header section of your message is attached. All of it could not be read." in dsn.text
    assert rig.metrics.relay_errors.value == 1


def test_a_large_message_goes_through_in_pieces() -> None:
    """However much of it goes back, little is in memory at once."""
    rig = Rig(return_size=1 << 30)
    body = BODY + (b"x" * 998 + b"\r\n") * 3000
    message = rig.accept(ret="FULL", body=body)
    reads: list[int] = []
    waits: list[Deferred[None]] = []
    read, write = rig.spool.read, Writer.write
    rig.spool.read = lambda *arguments: reads.append(arguments[2]) or read(*arguments)  # type: ignore[method-assign, func-returns-value]
    with pytest.MonkeyPatch.context() as patch:

        def slowly(self: Writer, data: bytes) -> Deferred[None]:
            assert len(data) <= 256 * 1024
            assert all(wait.called for wait in waits), "the writer asked to wait"
            write(self, data)
            waits.append(Deferred())
            return waits[-1]

        patch.setattr(Writer, "write", slowly)
        done = rig.begin(message, GONE)
        while not done.called:
            waits[-1].callback(None)
    assert max(reads) <= 256 * 1024
    assert len(waits) > 3_000_000 / (256 * 1024)
    (report,) = rig.spool.messages.values()
    assert report.body is not None
    assert body in report.body
