"""Next hops that misbehave: small servers that follow a script, and write down what they were told.

A script says what happens at each stage of the dialogue; where it says nothing the server is honest. What happens is
octets to send, or an act: see below.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

#: What happens at a stage.
Act = bytes | Callable[["Peer"], Awaitable[None]]
Script = Mapping[str, Act | Sequence[Act]]

HONEST: Script = {
    "greeting": b"220 hop.test ESMTP\r\n",
    "ehlo": b"250-hop.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 26214400\r\n",
    "helo": b"250 hop.test\r\n",
    "starttls": b"454 4.7.0 not now\r\n",
    "mail": b"250 2.1.0 ok\r\n",
    "rcpt": b"250 2.1.5 ok\r\n",
    "data": b"354 go on\r\n",
    "dot": b"250 2.0.0 taken\r\n",
    "rset": b"250 2.0.0 ok\r\n",
    "quit": b"221 2.0.0 bye\r\n",
    "other": b"500 5.5.2 what?\r\n",
}

_STAGES = {b"EHLO": "ehlo", b"LHLO": "ehlo", b"HELO": "helo", b"STAR": "starttls", b"BDAT": "data"}

#: Octets that an endless sender is allowed, before it is clear that nobody stops it.
ENDLESS = 64 * 2**20


class Gone(Exception):
    """The connection ended."""


@dataclass(slots=True)
class Heard:
    """What a server was told over all its connections."""

    connections: int = 0
    commands: list[bytes] = field(default_factory=list)
    #: Messages that were complete, dots removed.
    contents: list[bytes] = field(default_factory=list)
    #: Octets of content, complete or not.
    content_octets: int = 0
    #: Most command lines that came at once.
    most_at_once: int = 0
    said: int = 0
    notes: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Heard) -> None:
        self.reader = reader
        self.writer = writer
        self.heard = heard
        self.invited = False
        self.counts: dict[str, int] = {}

    async def say(self, data: bytes) -> None:
        """Send; Gone when nobody is there."""
        self.invited = data.startswith(b"354") or (self.invited and data[:1] not in b"245")
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            raise Gone from None
        self.heard.said += len(data)

    async def line(self) -> bytes:
        """The next command; Gone at the end."""
        try:
            line = await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None
        except asyncio.LimitOverrunError:
            line = await self.reader.read(65536)
        self.heard.commands.append(line.rstrip(b"\r\n"))
        waiting: bytes = self.reader._buffer  # type: ignore[attr-defined]
        self.heard.most_at_once = max(self.heard.most_at_once, 1 + bytes(waiting).count(b"\r\n"))
        return line

    async def octets(self, count: int) -> bytes:
        """Some of the content."""
        try:
            data = await self.reader.read(count)
        except ConnectionError:
            raise Gone from None
        if not data:
            raise Gone
        self.heard.content_octets += len(data)
        return data

    async def content(self) -> None:
        """A message up to its final dot."""
        lines = []
        while True:
            try:
                line = await self.reader.readuntil(b"\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Gone from None
            self.heard.content_octets += len(line)
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        self.heard.contents.append(b"".join(lines))

    async def chunk(self, size: int) -> None:
        """A message that came by BDAT."""
        try:
            self.heard.contents.append(await self.reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None
        self.heard.content_octets += size


# Acts.


async def close(peer: Peer) -> None:
    """End the connection, in order."""
    raise Gone


async def reset(peer: Peer) -> None:
    """End the connection by RST."""
    connection = peer.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()
    raise Gone


async def silence(peer: Peer) -> None:
    """Say nothing more, and read nothing more, until everything ends."""
    await asyncio.Event().wait()


def then(*acts: Act) -> Act:
    """One after the other."""

    async def act(peer: Peer) -> None:
        for each in acts:
            await perform(peer, each)

    return act


def pause(seconds: float) -> Act:
    """Nothing, for a while."""

    async def act(peer: Peer) -> None:
        await asyncio.sleep(seconds)

    return act


def note(text: str) -> Act:
    """Let the test know how far it is."""

    async def act(peer: Peer) -> None:
        peer.heard.notes.append(text)

    return act


def drip(data: bytes, seconds: float = 0.001) -> Act:
    """Octet by octet, each in a segment of its own."""

    async def act(peer: Peer) -> None:
        peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in data:
            await peer.say(bytes([octet]))
            await asyncio.sleep(seconds)
        peer.invited = data.startswith(b"354")

    return act


def endless(piece: bytes, total: int = ENDLESS) -> Act:
    """The same again and again, until the other side leaves."""

    async def act(peer: Peer) -> None:
        many = piece * (65536 // len(piece) + 1)
        for _ in range(total // len(many) + 1):
            await peer.say(many)
        await silence(peer)

    return act


def after_content(octets: int, *acts: Act) -> Act:
    """Say 354, and do this when so much of the content has come."""

    async def act(peer: Peer) -> None:
        await peer.say(b"354 go on\r\n")
        while octets > peer.heard.content_octets:
            await peer.octets(65536)
        for each in acts:
            await perform(peer, each)
        while True:
            await peer.octets(65536)

    return act


def echo(prefix: bytes = b"") -> Act:
    """Say what was heard."""

    async def act(peer: Peer) -> None:
        await peer.say(prefix + peer.heard.commands[-1] + b"\r\n")

    return act


async def perform(peer: Peer, act: Act) -> None:
    """Send octets, or do what is to be done."""
    if isinstance(act, bytes):
        await peer.say(act)
    else:
        await act(peer)


async def _converse(peer: Peer, script: Script) -> None:
    async def stage(name: str) -> None:
        act: Any = script.get(name, HONEST[name])
        if isinstance(act, Sequence) and not isinstance(act, bytes):
            # One for each time that it comes to this; the last one for all others.
            number = peer.counts.get(name, 0)
            peer.counts[name] = number + 1
            act = act[min(number, len(act) - 1)]
        await perform(peer, act)

    await stage("greeting")
    while True:
        line = await peer.line()
        verb = line[:4].upper()
        name = _STAGES.get(verb, verb.strip().decode("latin-1").lower())
        if verb == b"BDAT":
            await peer.chunk(int(line.split()[1]))
            await stage("dot")
            continue
        await stage(name if name in HONEST and name not in ("greeting", "dot", "other") else "other")
        if name == "data" and peer.invited:
            await peer.content()
            peer.invited = False
            await stage("dot")
        elif name == "quit":
            return


@dataclass(slots=True)
class HostileHop:
    """One server. ``later``: the script from its second connection on, if that is another one."""

    script: Script
    later: Script | None = None
    heard: Heard = field(default_factory=Heard)
    port: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        # A task that waits for something nobody else knows would be collected.
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.heard.connections += 1
        script = self.later if self.later is not None and self.heard.connections > 1 else self.script
        try:
            await _converse(Peer(reader, writer, self.heard), script)
        except (Gone, asyncio.CancelledError):
            pass  # cancelled at the end of the test
        except Exception as error:
            self.heard.crashes.append(repr(error))
        finally:
            writer.close()


class HostileHops:
    """Runs servers in a thread, each on a port of its own, until the ``with`` is left."""

    def __init__(self, hops: Sequence[HostileHop]) -> None:
        self._hops = hops
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hostile hops", daemon=True)
        self._ready = threading.Event()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> None:
        for hop in self._hops:
            listening = socket.socket()
            # Who does not read must not have read by accident.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            listening.bind(("127.0.0.1", 0))
            hop.port = listening.getsockname()[1]
            await asyncio.start_server(hop.serve, sock=listening, limit=65536)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the hostile hops do not listen"
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


#: What a client of ours may say outside of a message.
COMMAND = re.compile(
    rb"(?:EHLO|LHLO|HELO) mta\.test|STARTTLS|MAIL FROM:<sender@client\.test>[ =A-Z0-9]*"
    rb"|RCPT TO:<[a-e]@[a-z0-9-]+\.test>|DATA|RSET|QUIT|BDAT [0-9]+ LAST"
)
