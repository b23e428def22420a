"""Many connections at once, from one thread: who is greeted, who is turned away, who hears nothing."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from typing import Self

from rigs.client import Address


class Crowd:
    """``count`` clients that connect at the same time, and then wait; ``heard`` is what each was told so far."""

    def __init__(self, address: Address, count: int) -> None:
        self.sockets = [socket.socket() for _ in range(count)]
        self.heard: dict[socket.socket, bytes] = dict.fromkeys(self.sockets, b"")
        self.ended: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        for one in self.sockets:
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)
            one.connect_ex(address)

    def listen(self, seconds: float, until: int = 0) -> Counter[str]:
        """Until every client (or ``until`` of them) was told something or is closed: how many heard which code."""
        deadline = time.monotonic() + seconds
        while len(self._answered()) < (until or len(self.sockets)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._answered())} of {len(self.sockets)} were answered: {self.codes()}")
            for key, _ in self._selector.select(0.1):
                self._read(key.fileobj)  # type: ignore[arg-type]
        return self.codes()

    def _answered(self) -> list[socket.socket]:
        return [one for one in self.sockets if self.heard[one] or one in self.ended]

    def _read(self, one: socket.socket) -> None:
        try:
            data = one.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.heard[one] += data
        if not data:
            self.ended.add(one)
            self._selector.unregister(one)

    def codes(self) -> Counter[str]:
        """The first code that each has heard; "" for those who have heard nothing."""
        return Counter(said[:3].decode() for said in self.heard.values())

    def with_code(self, code: str) -> list[socket.socket]:
        """Those that were greeted so."""
        return [one for one in self.sockets if self.heard[one].startswith(code.encode())]

    def close(self) -> None:
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._selector.close()
        self.close()
