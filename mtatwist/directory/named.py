"""Finding the addresses of a directory server; it blocks."""

from __future__ import annotations

import socket
from typing import Any

from ldap3 import Server


class NamedServer(Server):
    """ldap3's own looks up a name that is not there twice, and forgets why it is not.

    :ivar unresolved: why the host's name has no addresses; None while it has some, or was not looked up.
    """

    unresolved: str | None = None
    _address_info: list[list[Any]]

    @property
    def address_info(self) -> list[list[Any]]:
        """(Server) Lists of what getaddrinfo() gives, and ldap3's two marks: whether it works, and since when."""
        # A server object serves one connection: nothing is looked up again.
        if not self._address_info and self.unresolved is None:
            self._address_info = [[*each, None, None] for each in self._look_up()]
        return self._address_info

    def _look_up(self) -> list[tuple[Any, ...]]:
        try:
            try:
                # None of a family that this machine has no way to.
                return self._ask(socket.AI_ADDRCONFIG)
            except socket.gaierror as error:
                if error.errno == socket.EAI_AGAIN:
                    raise
                # A machine that has loopback only has no family at all by that.
                return self._ask(0)
        except socket.gaierror as error:
            self.unresolved = error.strerror or "unknown"
        except UnicodeError:
            self.unresolved = "it is not a host name"
        return []

    def _ask(self, flags: int) -> list[tuple[Any, ...]]:
        return list(
            socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)
        )
