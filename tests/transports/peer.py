"""An SMTP server in memory, as good or as bad as a test wants it, on the other end of our client's connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtatwist.envelope import Envelope, Message, Outcome, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.data import DotReader
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports import smtp
from mtatwist.transports.client import SmtpWire
from mtatwist.transports.delivery import SmtpDelivery
from mtatwist.transports.dial import Target
from mtatwist.transports.lmtp import LmtpTransport
from mtatwist.transports.session import ClientTimeouts
from mtatwist.transports.smtp import SmtpTransport

HOST = "next.test"
NEXT_HOP = "next.test:25"
TIMEOUTS = ClientTimeouts(
    connect=30, greeting=31, ehlo=32, mail=33, rcpt=34, data_init=35, data_block=36, data_done=37, quit=5
)

Say = Callable[[str], str | None]
"""Gives the reply to a command, "silence", "vanish", or None for what a good server says.

"." is the end of data; that of BDAT is the command itself. A server of LMTP is asked for each recipient: ".<path>".
"""


class Peer:
    """Our client's transport, and the server behind it. It answers in :meth:`run`, never within a write."""

    def __init__(
        self,
        say: Say | None = None,
        *,
        extensions: tuple[str, ...] = (),
        greeting: str | None = "220 hi",
        lmtp: bool = False,
    ):
        self.say = say or (lambda command: None)
        self.extensions = extensions
        self.greeting = greeting
        self.lmtp = lmtp
        self.heard: list[str] = []
        self.written = b""
        self.messages: list[bytes] = []
        self.tls: Any = None
        self.tls_version = "TLSv1.3"
        self.slow = False
        self.unreachable = False
        self.closing = self.aborted = self.gone = False
        self.protocol: Any = None
        self._input = b""
        self._dots: DotReader | None = None
        self._chunk: tuple[str, int] | None = None
        self._accepted: list[str] = []
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

    def getHandle(self) -> Any:
        return SimpleNamespace(get_protocol_version_name=lambda: self.tls_version, get_cipher_name=lambda: "TLS_TEST")

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
        if command[:4] in ("EHLO", "LHLO"):
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
        while (self._input or (self._chunk and not self._chunk[1])) and not self.gone:
            if self._dots is not None:
                data, self._input = self._input, b""
                body, rest = self._dots.feed(data)
                self._message += body
                if rest is not None:
                    self._dots, self._input = None, rest
                    self._ended(".")
                continue
            if self._chunk is not None:
                command, size = self._chunk
                if len(self._input) < size:
                    return
                self._message, self._input = self._message + self._input[:size], self._input[size:]
                self._chunk = None
                if command.endswith(" LAST"):
                    self._ended(command)
                else:
                    self._reply(command)
                continue
            line, end, rest = self._input.partition(b"\r\n")
            if not end:
                return
            self._input = rest
            command = line.decode()
            self.heard.append(command)
            if command.startswith("BDAT"):
                self._chunk = command, int(command.split()[1])
            else:
                self._reply(command)

    def _ended(self, command: str) -> None:
        self.messages.append(self._message)
        self._message = b""
        for path in self._accepted if self.lmtp else [""]:
            self._reply(f".{path}" if path else command)

    def _reply(self, command: str) -> None:
        said = self.say(command)
        if said is None:
            said = self.answer(command)
        if command.startswith("MAIL"):
            self._accepted = []
        elif command.startswith("RCPT") and said.startswith("2"):
            self._accepted.append(command.partition(":")[2])
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

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        *peers: Peer,
        tls: str = "may",
        timeouts: ClientTimeouts = TIMEOUTS,
        targets: Callable[[str], Awaitable[Sequence[Target]]] | None = None,
        next_hop: str = NEXT_HOP,
        context: Callable[[str, bool], object] | None = None,
    ):
        self.clock = Clock()
        self.metrics = Instruments()
        self.next_hop = next_hop
        self.dialled: list[Target] = []
        self.spool: Any = MemorySpool()
        self.peers = list(peers)
        self.contexts: list[tuple[str, bool]] = []
        kind = LmtpTransport if peers and peers[0].lmtp else SmtpTransport
        self.transport = kind(
            spool=self.spool,
            reactor=self.clock,
            hostname="mta.test",
            timeouts=timeouts,
            tls=tls,
            tls_context=context or self._context,
            metrics=self.metrics,
            targets=targets,
        )
        patch.setattr(smtp, "dial", self._dial)
        self._left = iter(peers)

    def _context(self, host: str, verify: bool) -> object:
        self.contexts.append((host, verify))
        return object()

    async def _dial(self, reactor: Any, target: Target, protocol: SmtpWire, seconds: float) -> SmtpWire:
        self.dialled.append(target)
        peer = next(self._left)
        if peer.unreachable:
            raise ConnectionRefusedError("refused")
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
        connecting: Deferred[Any] = Deferred.fromCoroutine(self.transport.connect(self.next_hop))
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
