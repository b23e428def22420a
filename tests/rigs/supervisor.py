"""The end of sd_notify(3) that is systemd's."""

from __future__ import annotations

import os
import socket
import time
from typing import Self


class Supervisor:
    """Hears what a service says about itself, at an abstract name."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0mtatwist-{os.getpid()}-{name}")
        self.environment = {"NOTIFY_SOCKET": f"@mtatwist-{os.getpid()}-{name}"}

    def hear(self, word: str, seconds: float = 30.0) -> list[str]:
        """The lines that come together with this one; those before them are let go. TimeoutError after a time."""
        deadline = time.monotonic() + seconds
        said = []
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                lines = self._socket.recv(4096).decode().split("\n")
            except TimeoutError:
                break
            if word in lines:
                return lines
            said.append(lines)
        raise TimeoutError(f"no {word} but {said}")

    def heard(self) -> list[str]:
        """What has been said and not been heard yet."""
        self._socket.setblocking(False)
        lines: list[str] = []
        while True:
            try:
                lines += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
