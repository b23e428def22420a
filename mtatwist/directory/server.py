"""One of the directory's servers: its connections, kept to be used again, and what is known of its trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from mtatwist.directory.connection import SUCCESS, Access, Connection, ConnectionLost, Entry, ServerFailed

T = TypeVar("T")

PROBE_SECONDS = 3.0
"""How long a look whether it works may take: with the time between two looks, it is never left alone for five."""

IDLE_SECONDS = 60.0
"""How long a connection may have been idle to be used again: others on the way forget it sooner or later."""


class Server:
    """Used by several threads, each with a connection of its own. Its methods raise ServerFailed, OperationRefused.

    Who searches and who is to be checked never share a connection: after a bind it has that user's rights.

    :ivar uri: as it was configured.
    :ivar trouble: why it is left alone, "" while it is not.
    """

    def __init__(
        self,
        uri: str,
        access: Access,
        *,
        idle: int,
        attempt_seconds: float,
        now: Callable[[], float],
        connect: Callable[[str, int, bool, Access, float, Callable[[], float]], Connection] = Connection,
    ) -> None:
        """``uri``: ldap:// or ldaps://. ``idle``: how many connections of each kind are kept. ``attempt_seconds``: how
        long it may take over what it is asked, its connection included. ``now``: monotonic, from any thread."""
        parts = urlsplit(uri)
        self.uri = uri
        self.trouble = ""
        self._host = parts.hostname or ""
        self._implicit_tls = parts.scheme.lower() == "ldaps"
        self._port = parts.port or (636 if self._implicit_tls else 389)
        self._access = access
        self._idle_limit = idle
        self._attempt_seconds = attempt_seconds
        self._now = now
        self._connect = connect
        self._lock = threading.Lock()
        self._searching: list[tuple[float, Connection]] = []
        self._checking: list[tuple[float, Connection]] = []
        self._open: set[Connection] = set()
        self._stopped = False

    def search(self, base: str, filter: str, attributes: Sequence[str], limit: int, until: float) -> list[Entry]:
        """See Connection.search, as the service account."""
        return self._use(
            self._searching,
            self._open_to_search,
            lambda connection, deadline: connection.search(base, filter, attributes, limit, deadline),
            until,
        )

    def bind(self, dn: str, password: bytes, until: float) -> int:
        """See Connection.bind."""
        return self._use(
            self._checking, self._open_one, lambda connection, deadline: connection.bind(dn, password, deadline), until
        )

    def probe(self) -> None:
        """Can a search be asked of it?"""
        deadline = self._now() + min(self._attempt_seconds, PROBE_SECONDS)
        connection = self._open_to_search(deadline)
        self._keep(self._searching, connection)

    def time_for(self, until: float) -> bool:
        """Is there enough time to blame this server if it does not answer?"""
        return until - self._now() >= self._attempt_seconds / 2

    def _use(
        self,
        kept: list[tuple[float, Connection]],
        connect: Callable[[float], Connection],
        ask: Callable[[Connection, float], T],
        until: float,
    ) -> T:
        deadline = min(until, self._now() + self._attempt_seconds)
        connection = self._take(kept)
        if connection is not None:
            try:
                return self._ask(kept, connection, ask, deadline)
            except ConnectionLost:
                # It was idle for long, or the server has been started again: the others have gone the same way.
                self._forget(kept)
        return self._ask(kept, connect(deadline), ask, deadline)

    def _ask(
        self,
        kept: list[tuple[float, Connection]],
        connection: Connection,
        ask: Callable[[Connection, float], T],
        deadline: float,
    ) -> T:
        try:
            result = ask(connection, deadline)
        except BaseException:
            self._gone([connection])
            raise
        self._keep(kept, connection)
        return result

    def _open_one(self, deadline: float) -> Connection:
        connection = self._connect(self._host, self._port, self._implicit_tls, self._access, deadline, self._now)
        with self._lock:
            self._open.add(connection)
            stopped = self._stopped
        if stopped:
            connection.cut()
        return connection

    def _open_to_search(self, deadline: float) -> Connection:
        connection = self._open_one(deadline)
        try:
            code = connection.bind(self._access.bind_dn, self._access.bind_password, deadline)
            if code != SUCCESS:
                connection.close()
                raise ServerFailed(f"it refuses the account that searches (result {code})")
        except BaseException:
            self._gone([connection])
            raise
        return connection

    def _take(self, kept: list[tuple[float, Connection]]) -> Connection | None:
        with self._lock:
            while kept:
                since, connection = kept.pop()
                if self._now() - since < IDLE_SECONDS:
                    return connection
                # What is below it has been idle for even longer.
                stale = [connection, *(each for _, each in kept)]
                kept.clear()
                self._open.difference_update(stale)
                break
            else:
                return None
        for connection in stale:
            connection.close()
        return None

    def _keep(self, kept: list[tuple[float, Connection]], connection: Connection) -> None:
        with self._lock:
            if len(kept) < self._idle_limit and not self._stopped:
                kept.append((self._now(), connection))
                return
            self._open.discard(connection)
        connection.close()

    def _forget(self, kept: list[tuple[float, Connection]]) -> None:
        with self._lock:
            gone = [connection for _, connection in kept]
            kept.clear()
        self._gone(gone)
        for connection in gone:
            connection.close()

    def _gone(self, connections: list[Connection]) -> None:
        with self._lock:
            self._open.difference_update(connections)

    def tidy(self) -> None:
        """Close what has been idle for too long."""
        for kept in (self._searching, self._checking):
            with self._lock:
                fresh = [one for one in kept if self._now() - one[0] < IDLE_SECONDS]
                stale = [one[1] for one in kept if one not in fresh]
                kept[:] = fresh
                self._open.difference_update(stale)
            for connection in stale:
                connection.close()

    def stop(self) -> None:
        """Cut all connections. Does not block."""
        with self._lock:
            self._stopped = True
            cut = list(self._open)
            self._searching.clear()
            self._checking.clear()
        for connection in cut:
            connection.cut()
