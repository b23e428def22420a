"""An SMTP server in memory, as good or as bad as a test wants it, on the other end of our client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtatwist.envelope import Envelope, Message, Outcome, Recipient
from mtatwist.smtp.data import DotReader
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports import smtp
from mtatwist.transports.client import SmtpWire
from mtatwist.transports.smtp import ClientTimeouts, SmtpDelivery, SmtpTransport

HOST = "next.test:25"
TIMEOUTS = ClientTimeouts(
    connect=30, greeting=31, ehlo=32, mail=33, rcpt=34, data_init=35, data_block=36, data_done=37, quit=5
)

Say = Callable[[str], str | None]
"""Gives the reply to a command ("." is the end of data), "silence", "vanish", or None for what a good server says."""


class Peer:
    """Our client's transport, and the server behind it. It answers in :meth:`run`, never within a write."""

    def __init__(self, say: Say | None = None, *, extensions: tuple[str, ...] = (), greeting: str | None = "220 hi"):
        self.say = say or (lambda command: None)
        self.extensions = extensions
        self.greeting = greeting
        self.heard: list[str] = []
        self.written = b""
        self.messages: list[bytes] = []
        self.tls: Any = None
        self.slow = False
        self.closing = self.aborted = self.gone = False
        self.protocol: Any = None
        self._input = b""
        self._dots: DotReader | None = None
        self._message = b""

    # What our client calls.

    def write(self, data: bytes) -> None:
        if not self.closing and not self.gone:
            self.written += data
            self._input += data
            if self.slow:
                self.producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        pass

    def loseConnection(self) -> None:
        self.closing = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.lose(ConnectionAborted())

    def startTLS(self, context: Any) -> None:
        self.tls = context

    # What the server does.

    def lose(self, why: Exception | None = None) -> None:
        """The connection is gone."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(why or ConnectionDone()))

    def vanish(self) -> None:
        """The network broke."""
        self.lose(ConnectionLost())

    def expect_data(self) -> None:
        """The test itself has said 354."""
        self._dots = DotReader()

    def feed(self, data: bytes) -> None:
        """Send ``data``, unless the connection is gone."""
        if not self.gone:
            self.protocol.dataReceived(data)

    def answer(self, command: str) -> str:
        """What a good server says."""
        if command.startswith("EHLO"):
            lines = ["next.test", *self.extensions]
            return "\r\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)
        if command == "DATA":
            return "354 go on"
        if command == "STARTTLS":
            return "220 go on"
        return "221 bye" if command == "QUIT" else "250 2.0.0 fine"

    def begin(self) -> None:
        """Greet."""
        if self.greeting is not None:
            self.feed(self.greeting.encode() + b"\r\n")

    def run(self) -> None:
        """Answer whatever was said, until nothing more is."""
        while self._input and not self.gone:
            if self._dots is not None:
                data, self._input = self._input, b""
                body, rest = self._dots.feed(data)
                self._message += body
                if rest is not None:
                    self._dots, self._input = None, rest
                    self.messages.append(self._message)
                    self._message = b""
                    self._reply(".")
                continue
            line, end, rest = self._input.partition(b"\r\n")
            if not end:
                return
            self._input = rest
            self.heard.append(line.decode())
            self._reply(line.decode())

    def _reply(self, command: str) -> None:
        said = self.say(command)
        if said is None:
            said = self.answer(command)
        if command == "DATA" and said.startswith("354"):
            self._dots = DotReader()
        if said == "vanish":
            self.vanish()
        elif said != "silence":
            self.feed(said.encode() + b"\r\n")


def message(body: bytes = b"Subject: x\r\n\r\nhello\r\n", *to: str, reverse_path: str = "a@b.test") -> Message:
    """A message for ``to`` with its body in memory."""
    recipients = [Recipient(index, path, path.rpartition("@")[2]) for index, path in enumerate(to or ("c@d.test",))]
    return Message(1, Envelope(reverse_path, recipients), len(body), body)


class Client:
    """Our transport, with a connection to each of ``peers`` in turn."""

    def __init__(self, patch: pytest.MonkeyPatch, *peers: Peer, tls: str = "may", timeouts: ClientTimeouts = TIMEOUTS):
        self.clock = Clock()
        self.spool: Any = MemorySpool()
        self.peers = list(peers)
        self.contexts: list[tuple[str, bool]] = []
        self.transport = SmtpTransport(
            spool=self.spool,
            reactor=self.clock,
            hostname="mta.test",
            timeouts=timeouts,
            tls=tls,
            tls_context=self._context,
        )
        patch.setattr(smtp, "dial", self._dial)
        self._left = iter(peers)

    def _context(self, host: str, verify: bool) -> object:
        self.contexts.append((host, verify))
        return object()

    async def _dial(self, reactor: Any, next_hop: str, protocol: SmtpWire, seconds: float) -> SmtpWire:
        peer = next(self._left)
        peer.protocol = protocol
        protocol.makeConnection(peer)
        return protocol

    def run(self) -> None:
        """Let all peers answer."""
        for _ in range(4):
            for peer in self.peers:
                if peer.protocol is not None:
                    peer.run()

    def connecting(self) -> Deferred[SmtpDelivery]:
        """Begin to connect; the first peer greets."""
        connecting: Deferred[Any] = Deferred.fromCoroutine(self.transport.connect(HOST))
        for peer in self.peers:
            if peer.protocol is not None:
                peer.begin()
                self.run()
        return connecting

    def connect(self) -> SmtpDelivery:
        """A connection that is ready."""
        return now(self.connecting())

    def deliver(self, what: Message) -> list[Outcome]:
        """The outcomes of a message over a new connection."""
        delivery = self.connect()
        return self.over(delivery, what)

    def over(self, delivery: SmtpDelivery, what: Message) -> list[Outcome]:
        """The outcomes of a message over this connection."""
        return now(self.delivering(delivery, what))

    def delivering(self, delivery: SmtpDelivery, what: Message) -> Deferred[list[Outcome]]:
        """Begin to deliver, and let the peer answer."""
        done = Deferred.fromCoroutine(delivery.deliver(what, what.envelope.recipients))
        self.run()
        return done


def now(deferred: Deferred[Any]) -> Any:
    """The result, which must be there; raises what it failed with."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "nothing has come of it yet"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def waits(deferred: Deferred[Any]) -> bool:
    """Is there no result yet?"""
    return not deferred.called
