"""mtactl's end of the control socket. It blocks: there is nothing else to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any, Self

from twisted.protocols import amp

from mtatwist.control.commands import CODES, CONTRACT, ControlCommand, ControlError, Hello, OtherVersion

ANSWER_SECONDS = 30.0
"""The longest that a server takes for an answer, and how long it is waited for."""

_READ_SIZE = 65536
_ERRORS = {code: error for error, code in CODES.items()}


class NoServer(Exception):
    """There is nobody to talk to; the message says the cause and the cure.

    :ivar code: the exit code that says so (sysexits.h).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Client:
    """One connection. Ask with ask(); leave with close(), or use it as a context manager."""

    def __init__(self, path: str, token: str | None = None) -> None:
        """Connect and say Hello. Raises NoServer, ControlError."""
        self._path = path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            with self._reasons():
                self._socket.connect(path)
            hello = self.ask(Hello, contract=CONTRACT, token=token)
        except BaseException:
            self.close()
            raise
        self.version: str = hello["version"]
        self.role: str = hello["role"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(self, command: type[ControlCommand], **arguments: Any) -> dict[str, Any]:
        """Have a command done. Raises what it is answered (ControlError), NoServer."""
        box = command.makeArguments(arguments, None)
        box[amp.COMMAND], box[amp.ASK] = command.commandName, b"1"
        with self._reasons():
            self._socket.sendall(box.serialize())
            answer = self._box()
        if amp.ERROR in answer:
            words = answer[amp.ERROR_DESCRIPTION].decode("utf-8", "replace")
            raise _ERRORS.get(answer[amp.ERROR_CODE], ControlError)(words)
        try:
            response: dict[str, Any] = command.parseResponse(answer, None)
        except Exception as error:
            raise OtherVersion(f"the answer can't be read: {type(error).__name__}: {error}") from None
        return response

    def rows(self, command: type[ControlCommand], **arguments: Any) -> Iterator[dict[str, Any]]:
        """All the answers to a command that is read in pages. Raises as ask()."""
        after = None
        while True:
            answer = self.ask(command, after=after, **arguments)
            yield answer
            after = answer["cursor"]
            if after is None:
                return

    def _box(self) -> amp.AmpBox:
        box = amp.AmpBox()
        while key := self._string():
            box[key] = self._string()
        return box

    def _string(self) -> bytes:
        return self._octets(int.from_bytes(self._octets(2)))

    def _octets(self, count: int) -> bytes:
        while len(self._buffer) < count:
            more = self._socket.recv(_READ_SIZE)
            if not more:
                raise NoServer(
                    os.EX_TEMPFAIL,
                    f"{self._path}: the server closed the connection: it has too many clients, or is stopping; see"
                    " its log",
                )
            self._buffer += more
        octets, self._buffer = self._buffer[:count], self._buffer[count:]
        return octets

    @contextlib.contextmanager
    def _reasons(self) -> Iterator[None]:
        """What goes wrong with a socket, for the one who called."""
        try:
            yield
        except TimeoutError:
            raise NoServer(
                os.EX_TEMPFAIL, f"{self._path}: no answer within {ANSWER_SECONDS:g} s: is the server hanging?"
            ) from None
        except OSError as error:
            raise NoServer(*_reason(self._path, error)) from None


def _reason(path: str, error: OSError) -> tuple[int, str]:
    if error.errno == errno.ENOENT:
        return os.EX_UNAVAILABLE, (
            f"{path}: there is no control socket: is the server running? Say where its socket is with --socket or"
            ' MTACTL_SOCKET: it is "control.socket" of its configuration'
        )
    if error.errno == errno.ECONNREFUSED and not stat.S_ISSOCK(os.stat(path).st_mode):
        return os.EX_USAGE, f"{path}: that is no socket: name the one that is control.socket of the configuration"
    if error.errno == errno.ECONNREFUSED:
        return os.EX_UNAVAILABLE, f"{path}: nobody listens there: the server is not running"
    if error.errno in (errno.EACCES, errno.EPERM):
        return os.EX_NOPERM, (
            f"{path}: permission denied: run this as root, as the server's user, or as a member of its control.group,"
            " who may also enter the directories above it"
        )
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return os.EX_TEMPFAIL, (
            f"{path}: the server closed the connection: it has too many clients, or is stopping; see its log"
        )
    if error.errno is None:
        # A path that is too long for a socket.
        return os.EX_USAGE, f"{path}: {error}"
    return os.EX_UNAVAILABLE, f"{path}: {error.strerror}"
