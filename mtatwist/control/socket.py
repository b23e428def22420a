"""The control socket itself: bound with a mode, cleared away when it is stale, never taken from a server that lives."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.control.callers import name_of_group, name_of_user

_log = Logger()

BACKLOG = 128


class SocketError(Exception):
    """It can't be bound; the message names the path, the cause and the cure.

    :ivar key: the setting that it is about.
    :ivar code: what the server ends with (sysexits.h).
    """

    def __init__(self, reason: str, key: str = "control.socket", code: int = os.EX_OSERR) -> None:
        super().__init__(reason)
        self.key = key
        self.code = code


class _Port(unix.Port):
    """The parent deletes whatever lies at its path in the end, and complains when nothing does."""

    def connectionLost(self, reason: Failure) -> None:
        """(Port) It is closed."""
        tcp.Port.connectionLost(self, reason)


class ControlSocket(Service):
    """Listens on a UNIX socket from the start of the service to its end."""

    def __init__(self, reactor: Any, path: str, factory: Factory, *, mode: int, group: int | None) -> None:
        """``mode`` of the socket; ``group``: whose it is, None for that of the process."""
        self._reactor = reactor
        self._path = Path(path)
        self._factory = factory
        self._mode = mode
        self._group = group
        self._port: Any = None
        self._identity: tuple[int, int] | None = None

    def startService(self) -> None:
        """Bind it. Raises SocketError."""
        try:
            self._clear_away()
            # Never any wider than it is to be, not even for a moment.
            before = os.umask(0o177)
            try:
                port = _Port(os.fsencode(self._path), self._factory, BACKLOG, 0o600, self._reactor)
                port.startListening()
            finally:
                os.umask(before)
            self._port, self._identity = port, _identity(self._path)
            self._give_to_group()
            os.chmod(self._path, self._mode)
        except SocketError:
            self._close()
            raise
        except Exception as error:
            self._close()
            why = getattr(error, "socketError", error)
            raise SocketError(f"{self._path} can't be bound: {getattr(why, 'strerror', None) or why}") from error
        super().startService()

    def _give_to_group(self) -> None:
        """Raises SocketError: only members may (chown(2)). In a directory with the set-group-ID bit it is theirs."""
        if self._group is None or os.lstat(self._path).st_gid == self._group:
            return
        try:
            os.chown(self._path, -1, self._group)
        except OSError as error:
            user, group = name_of_user(os.geteuid()), name_of_group(self._group)
            raise SocketError(
                f'{self._path} can\'t be given to the group "{group}": {error.strerror}: make {user}, as which the'
                f" server runs, a member of it: usermod --append --groups {group} {user}; or, under systemd,"
                f" SupplementaryGroups={group}",
                "control.group",
                os.EX_CONFIG,
            ) from None

    def stopService(self) -> Any:
        """Accept nobody any more. A socket that another has put into the place of ours is left alone."""
        super().stopService()
        return self._close()

    def _close(self) -> Any:
        port, self._port = self._port, None
        if port is None:
            return None
        if _identity(self._path) == self._identity:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return port.stopListening()

    def _clear_away(self) -> None:
        """What an earlier run has left. Raises SocketError if it is anything else, OSError."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise SocketError(f"{self._path} is there and no socket: move it away, or name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            result = probe.connect_ex(os.fspath(self._path))
        if result != errno.ECONNREFUSED:
            # It answers, or is too busy to.
            raise SocketError(f"{self._path}: another process listens there: stop it, or name another path")
        _log.info("stale_control_socket_removed", path=os.fspath(self._path))
        self._path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return status.st_dev, status.st_ino
    return None
