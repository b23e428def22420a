"""A plain blocking SMTP client that sends exactly what it is told."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

Address = tuple[str, int]


class Reply(NamedTuple):
    """A reply as it came, without line ends."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Disconnected(ConnectionError):
    """The server closed the connection where a reply was due."""


def stuffed(content: bytes) -> bytes:
    """The content as it goes over the wire, the final dot included (RFC 5321 §4.5.2)."""
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


class Client:
    """One session. ``greeting`` is the 220; nothing is said on its own but QUIT on leaving the ``with``."""

    def __init__(self, address: Address, timeout: float = 30.0, context: ssl.SSLContext | None = None) -> None:
        """``context``: begin with TLS, to a server named mta.test."""
        self.socket: socket.socket = socket.create_connection(address, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="mta.test")
        self._buffer = b""
        self.greeting = self.reply()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Disconnected(f"after {self._buffer!r}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def reply(self) -> Reply:
        lines = []
        while True:
            line = self.line()
            if not re.fullmatch(rb"[2-5]\d\d(?:[ -].*)?", line):
                raise ValueError(f"not a reply: {line!r}")
            lines.append(line[4:].decode("utf-8", "replace"))
            if line[3:4] != b"-":
                return Reply(int(line[:3]), lines)

    def command(self, line: str | bytes) -> Reply:
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return self.reply()

    def expect(self, code: int, line: str | bytes) -> Reply:
        """Send a command that must be answered with ``code``."""
        reply = self.command(line)
        if reply.code != code:
            raise AssertionError(f"{line!r} was answered {reply}")
        return reply

    def ehlo(self, name: str = "client.test") -> Reply:
        return self.expect(250, f"EHLO {name}")

    def envelope(self, reverse_path: str, forward_paths: Iterable[str]) -> None:
        """MAIL and RCPTs in one go, each of which must be taken; then DATA."""
        paths = list(forward_paths)
        lines = [f"MAIL FROM:<{reverse_path}>", *(f"RCPT TO:<{path}>" for path in paths), "DATA"]
        self.send("".join(line + "\r\n" for line in lines).encode())
        replies = [self.reply() for _ in lines]
        codes = [reply.code for reply in replies]
        if codes != [250] * (len(paths) + 1) + [354]:
            raise AssertionError(f"envelope refused: {[str(reply) for reply in replies]}")

    def transaction(self, reverse_path: str, forward_paths: Sequence[str], content: bytes, chunk: int = 0) -> Reply:
        """A whole message; the reply to its end. With ``chunk``, written in pieces of that size."""
        self.envelope(reverse_path, forward_paths)
        wire = stuffed(content)
        for start in range(0, len(wire), chunk or len(wire)):
            self.send(wire[start : start + (chunk or len(wire))])
        return self.reply()

    def starttls(self, context: ssl.SSLContext, name: str = "mta.test") -> None:
        self.expect(220, "STARTTLS")
        self.socket = context.wrap_socket(self.socket, server_hostname=name)

    def at_end(self) -> bool:
        """Does the server close the connection without another word?"""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self.command("QUIT")
        except (OSError, ValueError):
            pass
        finally:
            self.close()
