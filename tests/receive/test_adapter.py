"""Both ways between our streams and twisted.mail's older interfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dialogue import Settings
from dialogue_servers import make_wire
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail import smtp
from zope.interface import implementer

from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.delivery import Door, Realm
from mtatwist.receive.factory import ReceiveFactory, Sessions
from mtatwist.smtp.address import DomainSet
from mtatwist.spool.memory import MemorySpool
from mtatwist.validators.chain import Chain
from mtatwist.validators.relay import Relay

BODY = b"Subject: x\r\n\r\n.dot\r\n\r\nend\r\n"
SECRET = "a secret of this server"


@implementer(smtp.IMessage)
class TheirMessage:
    """By the line."""

    def __init__(self, finish: Callable[[], Any]) -> None:
        self.lines: list[bytes] = []
        self.finished = self.lost = False
        self._finish = finish

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self) -> Any:
        self.finished = True
        return self._finish()

    def connectionLost(self) -> None:
        self.lost = True


@implementer(smtp.IMessageDelivery)
class TheirDelivery:
    """A delivery somebody wrote for twisted.mail. What it does is a test's choice."""

    def __init__(self) -> None:
        self.sender: Callable[[Any], Any] = lambda origin: origin
        self.recipient: Callable[[Any, Any], Any] = lambda user, make: make
        self.finish: Callable[[], Any] = lambda: succeed(None)
        self.field = b"X-Received: by them"
        self.messages: list[TheirMessage] = []
        self.asked: list[tuple[Any, str]] = []

    def validateFrom(self, helo: Any, origin: smtp.Address) -> Any:
        self.asked.append((helo, str(origin)))
        return self.sender(origin)

    def validateTo(self, user: smtp.User) -> Any:
        self.asked.append((user.helo, str(user)))
        return self.recipient(user, self.make)

    def make(self) -> TheirMessage:
        self.messages.append(TheirMessage(self.finish))
        return self.messages[-1]

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return self.field


@implementer(IRealm)
class TheirRealm:
    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return smtp.IMessageDelivery, self._delivery, lambda: None


class Rig:
    """Our protocol with their delivery."""

    def __init__(self) -> None:
        self.theirs = TheirDelivery()
        metrics = Instruments()
        factory = ReceiveFactory(
            Portal(TheirRealm(self.theirs), [AllowAnonymousAccess()]),
            clock=Clock(),
            sessions=Sessions(10, 10),
            chain=Chain([], metrics),
            metrics=metrics,
            hostname="mta.test",
            limits=Limits(message_size=100_000, errors=20, data_rate=1),
            timeouts=Timeouts(handshake=30, command=300, data_init=120, data_block=180, data_done=600, session=1800),
        )
        self.wire = make_wire(Settings(tls="none"))
        self.protocol: Any = factory.buildProtocol(self.wire.getPeer())
        self.protocol.makeConnection(self.wire)
        self.say(b"EHLO client.test\r\n")

    def say(self, data: bytes) -> list[str]:
        """The replies' codes and enhanced codes."""
        self.wire.written = b""
        self.protocol.dataReceived(data)
        assert SECRET.encode() not in self.wire.written
        return [line[:9] for line in self.wire.written.decode().splitlines() if line[3] == " "]

    def send(self) -> list[str]:
        return self.say(
            b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\nRCPT TO:<b@here.test>\r\nDATA\r\n"
        ) + self.say(BODY.replace(b"\r\n.", b"\r\n..") + b".\r\n")


def test_their_delivery_gets_a_message_for_each_recipient() -> None:
    rig = Rig()
    assert rig.send()[-1] == "250 2.0.0"
    expected = [b"X-Received: by them", *BODY.split(b"\r\n")[:-1]]
    assert [message.lines for message in rig.theirs.messages] == [expected] * 2
    assert all(message.finished and not message.lost for message in rig.theirs.messages)
    helo = (b"client.test", b"192.0.2.7")
    assert rig.theirs.asked == [(helo, "me@away.test"), (helo, "a@here.test"), (helo, "b@here.test")]


def test_a_last_line_without_its_end_is_a_line() -> None:
    rig = Rig()
    rig.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\nBDAT 8 LAST\r\none\r\ntwo")
    assert rig.theirs.messages[0].lines[1:] == [b"one", b"two"]


def test_their_answers_may_take_time() -> None:
    rig = Rig()
    pending: list[tuple[Deferred[Any], Any]] = []

    def later(result: Any) -> Deferred[Any]:
        pending.append((Deferred(), result))
        return pending[-1][0]

    rig.theirs.sender = later
    rig.theirs.recipient = lambda user, make: later(make)
    rig.theirs.finish = lambda: later(None)
    assert rig.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\nDATA\r\n") == []
    for expected in ("250 2.1.0", "250 2.1.5"):
        rig.wire.written = b""
        deferred, result = pending.pop()
        deferred.callback(result)
        assert rig.wire.written.decode().startswith(expected)
    assert rig.say(BODY + b".\r\n") == []
    pending.pop()[0].callback(None)
    assert rig.wire.written.startswith(b"250 2.0.0")


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (smtp.SMTPServerError(450, f"4.7.1 later\n250 {'x'}"), "450 4.7.1"),
        (smtp.SMTPServerError(550, "5.7.1 never"), "550 5.7.1"),
        (smtp.SMTPBadSender(smtp.Address("me@away.test")), "550 "),
        (smtp.SMTPBadRcpt(smtp.Address("a@here.test")), "550 "),
        (RuntimeError(SECRET), "451 4.3.0"),
    ],
    ids=["450", "550", "bad sender", "bad recipient", "crash"],
)
@pytest.mark.parametrize("stage", ["MAIL", "RCPT"])
def test_their_refusals(stage: str, error: Exception, expected: str, later: bool) -> None:
    rig = Rig()

    def refuse(*_: Any) -> Any:
        if later:
            return fail(error)
        raise error

    if stage == "MAIL":
        rig.theirs.sender = refuse
    else:
        rig.theirs.recipient = refuse
    replies = rig.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\n")
    assert replies[0 if stage == "MAIL" else 1].startswith(expected)
    assert len(replies) == 2
    assert rig.say(b"RSET\r\nMAIL FROM:<me@away.test>\r\n")[0] == "250 2.0.0"


@pytest.mark.parametrize("later", [False, True])
def test_a_message_they_cannot_keep_is_tried_again(later: bool) -> None:
    rig = Rig()

    def breaks() -> Any:
        if later:
            return fail(OSError(SECRET))
        raise OSError(SECRET)

    rig.theirs.finish = breaks
    assert rig.send()[-1] == "451 4.3.0"
    rig.theirs.finish = lambda: succeed(None)
    assert rig.send()[-1] == "250 2.0.0"


@pytest.mark.parametrize("error", [RuntimeError(SECRET), smtp.SMTPServerError(452, "4.3.1 full")])
def test_a_message_they_cannot_begin(error: Exception) -> None:
    rig = Rig()
    made: list[TheirMessage] = []

    def second_breaks() -> Any:
        if made:
            raise error
        made.append(rig.theirs.make())
        return made[0]

    rig.theirs.recipient = lambda user, make: second_breaks
    replies = rig.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\nRCPT TO:<b@here.test>\r\nDATA\r\n")
    assert replies[-1] == ("451 4.3.0" if isinstance(error, RuntimeError) else "452 4.3.1")
    assert made[0].lost


@pytest.mark.parametrize(
    ("error", "expected"), [(smtp.SMTPServerError(554, "5.6.0 no"), "554 5.6.0"), (RuntimeError(SECRET), "451 4.3.0")]
)
def test_a_message_they_refuse_by_its_content(monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str) -> None:
    """The refusal is told after the end of data, where the client listens; the session goes on."""
    rig = Rig()

    def line_received(self: TheirMessage, line: bytes) -> None:
        if line == b".dot":
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(TheirMessage, "lineReceived", line_received)
        assert rig.send()[-1] == expected
    assert all(message.lost and not message.finished for message in rig.theirs.messages)
    assert rig.send()[-1] == "250 2.0.0"


@pytest.mark.parametrize("end", [b"", b"bare\rCR\r\n.\r\n"])
def test_they_are_told_when_a_message_does_not_come_to_its_end(end: bytes) -> None:
    rig = Rig()
    rig.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<a@here.test>\r\nDATA\r\nSubject: x\r\n\r\n" + end)
    if not end:
        rig.protocol.connectionLost()
    (message,) = rig.theirs.messages
    assert message.lost
    assert not message.finished


# The other way: our avatar, and twisted.mail's protocol as it comes.


class Stock:
    """twisted.mail's ESMTP with our avatar."""

    def __init__(self, spool: Any = None) -> None:
        self.spool: Any = spool or MemorySpool()
        self.woken: list[Any] = []
        domains = DomainSet(["here.test"])
        metrics = Instruments()
        door = Door(
            hostname="mta.test",
            spool=self.spool,
            chain=Chain([Relay(domains)], metrics),
            metrics=metrics,
            wake=self.woken.append,
            wall=lambda: 0.0,
            queue_time=lambda: 0.0,
            now=lambda: 0.0,
            message_size=100_000,
            recipients=10,
            domains=domains,
            postmaster="admin@here.test",
        )
        self.protocol: Any = smtp.ESMTP()
        self.protocol.portal = Portal(Realm(door), [AllowAnonymousAccess()])
        self.protocol.host = b"mta.test"
        self.protocol.timeout = None
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.say(b"EHLO client.test\r\n")

    def say(self, data: bytes) -> list[str]:
        self.transport.clear()
        self.protocol.dataReceived(data)
        return self.transport.value().decode().splitlines()


def test_our_avatar_stores_for_a_stock_protocol() -> None:
    stock = Stock()
    assert stock.say(b"MAIL FROM:<me@away.test>\r\n")[0].startswith("250")
    assert stock.say(b"RCPT TO:<you@here.test>\r\n")[0].startswith("250")
    assert stock.say(b"RCPT TO:<x@elsewhere.test>\r\n")[0].startswith("550 5.7.1")
    assert stock.say(b"RCPT TO:<Postmaster@here.test>\r\n")[0].startswith("250")
    assert stock.say(b"DATA\r\n")[0].startswith("354")
    assert stock.say(b"Subject: x\r\n\r\n..dot\r\n.\r\n")[0].startswith("250")
    stored = list(stock.spool.messages.values())
    assert [message.envelope.recipients[0].address for message in stored] == ["you@here.test", "admin@here.test"]
    assert {message.envelope.reverse_path for message in stored} == {"me@away.test"}
    assert {message.envelope.helo for message in stored} == {"client.test"}
    for message in stored:
        assert message.body.startswith(b"Received: from client.test")
        assert message.body.endswith(b"Subject: x\r\n\r\n.dot\r\n")
    assert len(stock.woken) == 2


def test_a_stock_protocol_hears_of_our_trouble() -> None:
    class Full(MemorySpool):
        def has_room(self, size: int) -> bool:
            return False

    stock = Stock(Full())
    stock.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<you@here.test>\r\n")
    assert stock.say(b"DATA\r\n")[0].startswith("452 4.3.1")
    assert stock.spool.messages == {}


def test_what_a_stock_protocol_loses_leaves_nothing() -> None:
    stock = Stock()
    stock.say(b"MAIL FROM:<me@away.test>\r\nRCPT TO:<you@here.test>\r\nDATA\r\n")
    stock.say(b"Subject: x\r\n")
    stock.protocol.connectionLost(None)
    assert stock.spool.messages == {}
    assert stock.woken == []


def test_the_realm_gives_out_deliveries_only() -> None:
    with pytest.raises(NotImplementedError):
        Realm(None).requestAvatar("me", None, IRealm)  # type: ignore[arg-type]
