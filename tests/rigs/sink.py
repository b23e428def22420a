"""An SMTP server that takes everything, writes down what came, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rigs.processes import keep_port, wait_until

#: The header field by which the load generator's messages are known again.
LEDGER_FIELD = b"X-Ledger-Id"

_LEDGER = re.compile(rb"^" + LEDGER_FIELD + rb": (\S+)\r$", re.MULTILINE)
_TRACE = re.compile(rb"Received:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE)
_QUEUE_ID = re.compile(rb"\bid\s+([0-9A-Za-z]+)")
_PATH = re.compile(rb"(?:MAIL FROM|RCPT TO):\s*<([^>]*)>(.*)", re.IGNORECASE | re.DOTALL)

#: Content up to this size is kept, so that a test can read a DSN.
KEPT = 128 * 1024

#: Asked ("RCPT", address) and ("DATA", ledger id): the reply line instead of the 250, or None.
Policy = Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that got our 250."""

    reverse_path: str
    forward_paths: tuple[str, ...]
    #: Of everything behind the Received field of the last hop.
    digest: str
    size: int
    ledger_id: str
    queue_id: str
    content: bytes


def arrival(reverse_path: str, forward_paths: list[str], content: bytes, kept: int = KEPT) -> Arrival:
    """What the sink writes down of a message; the content too up to ``kept`` octets."""
    trace = _TRACE.match(content)
    rest = memoryview(content)[trace.end() if trace else 0 :]
    ledger = _LEDGER.search(content[:4096])
    queue = _QUEUE_ID.search(trace[0]) if trace else None
    return Arrival(
        reverse_path,
        tuple(forward_paths),
        hashlib.sha256(rest).hexdigest(),
        len(rest),
        ledger[1].decode() if ledger else "",
        queue[1].decode() if queue else "",
        content if len(content) <= kept else b"",
    )


class _Session(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.buffer = bytearray()
        self.in_data = False
        self.searched = 0
        self.chunk = 0
        self.chunk_is_last = False
        self.reset()

    def reset(self) -> None:
        self.reverse_path = ""
        self.forward_paths: list[str] = []
        self.chunks = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.sink.sessions.add(self)
        self.transport.write(b"220 sink.test ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink.sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        out: list[bytes] = []
        while True:
            if self.in_data:
                reply = self._content()
            elif self.chunk:
                reply = self._chunk()
            else:
                line, end, rest = self.buffer.partition(b"\r\n")
                if not end:
                    break
                self.buffer = rest
                reply = self._command(bytes(line))
                if self.chunk:
                    continue
            if reply is None:
                break
            out.append(reply + b"\r\n")
        if out:
            self.transport.write(b"".join(out))
        if out and out[-1].startswith(b"221"):
            self.transport.close()

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        path = _PATH.match(line)
        if verb == b"MAIL" and path:
            self.reset()
            self.reverse_path = path[1].decode()
            return b"250 2.1.0 ok"
        if verb == b"RCPT" and path:
            address = path[1].decode()
            refusal = self.sink.policy("RCPT", address)
            if refusal is not None:
                return refusal.encode()
            self.forward_paths.append(address)
            return b"250 2.1.5 ok"
        if verb == b"DATA":
            if not self.forward_paths:
                return b"554 5.5.1 no valid recipients"
            self.in_data = True
            self.searched = 0
            # The dot on a line of its own is also the end when it is the first line.
            self.buffer[:0] = b"\r\n"
            return b"354 go on"
        if verb == b"BDAT" and self.forward_paths:
            self.chunk = int(line.split()[1])
            self.chunk_is_last = line.upper().endswith(b" LAST")
            return b"" if self.chunk else self._chunk_taken()
        if verb == b"EHLO":
            return b"\r\n".join(self.sink.extensions)
        if verb in (b"HELO", b"RSET", b"NOOP"):
            self.reset()
            return b"250 2.0.0 ok"
        if verb == b"QUIT":
            return b"221 2.0.0 bye"
        return b"500 5.5.2 what?"

    def _content(self) -> bytes | None:
        end = self.buffer.find(b"\r\n.\r\n", self.searched)
        if end < 0:
            self.searched = max(0, len(self.buffer) - 4)
            return None
        content = bytes(self.buffer[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del self.buffer[: end + 5]
        self.in_data = False
        return self._arrived(content)

    def _chunk(self) -> bytes | None:
        if len(self.buffer) < self.chunk:
            return None
        self.chunks += self.buffer[: self.chunk]
        del self.buffer[: self.chunk]
        self.chunk = 0
        return self._chunk_taken()

    def _chunk_taken(self) -> bytes:
        return self._arrived(self.chunks) if self.chunk_is_last else b"250 2.0.0 chunk taken"

    def _arrived(self, content: bytes) -> bytes:
        came = arrival(self.reverse_path, self.forward_paths, content, self.sink.kept)
        self.reset()
        refusal = self.sink.policy("DATA", came.ledger_id)
        if refusal is not None:
            return refusal.encode()
        self.sink.arrivals.append(came)
        return b"250 2.0.0 taken"


class Sink:
    """Listens in a thread of its own, on ``port`` of ``host``, until the ``with`` is left."""

    def __init__(self, policy: Policy | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        self.policy: Policy = policy or (lambda stage, what: None)
        self.arrivals: list[Arrival] = []
        self.sessions: set[_Session] = set()
        self.extensions = [b"250-sink.test", b"250-PIPELINING", b"250-8BITMIME", b"250 DSN"]
        self.kept = KEPT
        # Nobody else gets it while we are down.
        self._keeper = keep_port(host, port)
        self.port: int = self._keeper.getsockname()[1]
        self.host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._ready = threading.Event()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Session(self), self.host, self.port, backlog=1024)

    async def _close(self) -> None:
        self._server.close()
        for session in list(self.sessions):
            session.transport.abort()
        await asyncio.sleep(0)

    def go_down(self) -> None:
        """Cut every session, whatever it is doing, and refuse connections."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)

    def come_up(self) -> None:
        """Listen again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the sink does not listen"
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._keeper.close()

    def wait_for(self, count: int, seconds: float = 60) -> list[Arrival]:
        """The arrivals, as soon as there are ``count`` of them."""
        wait_until(
            lambda: len(self.arrivals) >= count,
            seconds,
            lambda: f"{len(self.arrivals)} of {count} messages arrived",
        )
        return self.arrivals
