"""A socket with limits: ldap3 waits for each read anew, and believes whatever length a server announces."""

from __future__ import annotations

import socket
from collections.abc import Callable

ANSWER_LIMIT = 4 * 2**20
"""Octets that one operation may be answered with."""


class LimitedSocket:
    """What ldap3 needs of a socket, with a deadline and a limit for each operation as a whole."""

    def __init__(self, wrapped: socket.socket, deadline: float, now: Callable[[], float]) -> None:
        """``deadline``: by ``now``, until begin() sets another.

        :ivar timed_out: an operation took too long.
        :ivar overrun: the answer to one was too large.
        """
        self.wrapped = wrapped
        self.timed_out = False
        self.overrun = False
        self._now = now
        self.begin(deadline)

    def begin(self, deadline: float) -> None:
        """An operation begins."""
        self._deadline = deadline
        self._room = ANSWER_LIMIT

    def patience(self) -> float:
        """The seconds that are left. Raises TimeoutError when there are none."""
        left = self._deadline - self._now()
        if left <= 0:
            self.timed_out = True
            raise TimeoutError("timed out")
        return left

    def recv(self, size: int) -> bytes:
        """See socket. Raises OSError over the limit, too."""
        self.wrapped.settimeout(self.patience())
        try:
            data = self.wrapped.recv(size)
        except TimeoutError:
            self.timed_out = True
            raise
        self._room -= len(data)
        if self._room < 0:
            self.overrun = True
            raise OSError("the answer is too large")
        return data

    def sendall(self, data: bytes) -> None:
        """See socket."""
        self.wrapped.settimeout(self.patience())
        try:
            self.wrapped.sendall(data)
        except TimeoutError:
            self.timed_out = True
            raise

    def shutdown(self, how: int) -> None:
        """See socket."""
        self.wrapped.shutdown(how)

    def close(self) -> None:
        """See socket."""
        self.wrapped.close()
