"""Next hops as a test wants them, and a spool with them behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mtatwist.envelope import Deferral, Delivered, Envelope, Failure, Message, Outcome, Recipient
from mtatwist.interfaces import IDelivery, ITransport
from mtatwist.metrics.instruments import Instruments
from mtatwist.relay.manager import RelayManager
from mtatwist.relay.report import Reporter
from mtatwist.relay.retry import Schedule
from mtatwist.relay.route import Route
from mtatwist.smtp.reply import Reply
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports.failures import ConnectFailed

TAKEN = Delivered(Reply(250, "2.0.0", "fine"), "next.test")
LATER = Deferral(Reply(450, "4.2.1", "busy"), "next.test")
GONE = Failure(Reply(550, "5.1.1", "no such user"), "next.test")
DOWN = Deferral(Reply(451, "4.4.1", "Cannot connect"), "next.test")

BODY = b"Subject: x\r\n\r\nhello\r\n"

Judge = Callable[[Message, Recipient], Outcome]


@implementer(ITransport)
class Transport:
    """Counts what is asked of it. ``hold``: deliveries wait for :meth:`go_on`."""

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge or (lambda message, recipient: TAKEN)
        self.hold = False
        self.hold_connect = False
        self.down = False
        self.stopped = 0
        self.connected: list[Delivery] = []
        self.open: list[Delivery] = []
        self.most = 0
        self.attempts: list[tuple[int, list[str]]] = []
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.connecting: list[Deferred[Any]] = []

    def connect(self, next_hop: str) -> Any:
        if self.down:
            return fail(ConnectFailed(DOWN))
        if self.hold_connect:
            self.connecting.append(Deferred())
            return self.connecting[-1]
        return succeed(Delivery(self))

    def stop(self) -> None:
        self.stopped += 1

    def go_on(self, count: int | None = None) -> None:
        """Let deliveries that wait be answered."""
        batch, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for deferred, answer in batch:
            deferred.callback(answer())


@implementer(IDelivery)
class Delivery:
    """One connection."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.usable = True
        self.raises: Exception | None = None
        self.messages = 0
        self.closed = False
        self._under_way: tuple[Deferred[Any], Any] | None = None
        transport.connected.append(self)
        transport.open.append(self)
        transport.most = max(transport.most, len(transport.open))

    def deliver(self, message: Message, recipients: Sequence[Recipient]) -> Any:
        if self.raises is not None:
            why, self.raises = self.raises, None
            return fail(why)
        transport = self.transport
        self.messages += 1
        transport.attempts.append((message.number, [recipient.address for recipient in recipients]))

        def answer() -> list[Outcome]:
            self._under_way = None
            return [transport.judge(message, recipient) for recipient in recipients]

        if not transport.hold:
            return succeed(answer())
        later: Deferred[Any] = Deferred()
        self._under_way = (later, answer)
        self._cut = [DOWN] * len(recipients)
        transport.waiting.append(self._under_way)
        return later

    def close(self) -> None:
        self.usable = False
        if not self.closed:
            self.closed = True
            self.transport.open.remove(self)
            if self._under_way is not None:
                self.transport.waiting.remove(self._under_way)
                self._under_way[0].callback(self._cut)


class _Way:
    """What a route leads to: a transport for each destination, each counting for itself."""

    def __init__(self, rig: Rig, route: Route) -> None:
        self._rig = rig
        self._name = route.next_hop

    def connect(self, next_hop: str) -> Any:
        return self._rig.transport(next_hop).connect(next_hop)

    def stop(self) -> None:
        for name, transport in self._rig.transports.items():
            if name == self._name or not self._name:
                transport.stop()


class Rig:
    """A relay manager with a clock, a spool in memory, and a transport for each next hop."""

    started: ClassVar[list[Rig]] = []

    def __init__(
        self,
        *routes: Route,
        spool: Any = None,
        grace: float = 10.0,
        connections: int = 500,
        metrics: Instruments | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.grace = grace
        self.spool: Any = spool or MemorySpool()
        self.metrics = metrics or Instruments()
        self.transports: dict[str, Transport] = {}
        self.manager = RelayManager(
            self.spool,
            routes=routes or (Route("*", "smtp", "next.test:25"),),
            transport=lambda route: _Way(self, route),
            schedule=Schedule([60.0, 300.0], 1000.0, random=lambda: 0.5),
            reporter=Reporter(
                self.spool, hostname="mta.test", return_size=1_000_000, shown=lambda at: at, metrics=self.metrics
            ),
            clock=self.clock,
            wall=self.clock.seconds,
            metrics=self.metrics,
            connections=connections,
            grace=grace,
        )
        self.manager.startService()
        self.started.append(self)

    def transport(self, next_hop: str = "next.test:25") -> Transport:
        """The transport to this next hop."""
        return self.transports.setdefault(next_hop, Transport())

    def accept(self, *to: str, body: bytes = BODY, reverse_path: str = "me@here.test") -> Message:
        """A message as the receiver hands it over: durable, claimed, and the manager woken."""
        message = self.store(*to, body=body, reverse_path=reverse_path)
        self.manager.wake(message)
        return message

    def store(self, *to: str, body: bytes = BODY, reverse_path: str = "me@here.test") -> Message:
        """The same, and nobody is woken."""
        recipients = [Recipient(index, path, path.rpartition("@")[2]) for index, path in enumerate(to)]
        writer = self.spool.create(Envelope(reverse_path, recipients, received_at=self.clock.seconds()))
        writer.write(body)
        stored: list[Message] = []
        writer.commit().addCallback(stored.append)
        return stored[0]

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Time passes."""
        self.clock.pump([step] * round(seconds / step))

    def attempts(self, next_hop: str = "next.test:25") -> list[tuple[int, list[str]]]:
        """What the next hop was asked to take: numbers, and forward paths."""
        return self.transport(next_hop).attempts

    def stopping(self) -> list[bool]:
        """Stop; holds True once that is done."""
        done: list[bool] = []
        self.manager.stopService().addCallback(lambda _: done.append(True))
        return done
