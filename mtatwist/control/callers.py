"""Who is at the other end of the control socket, and what they may do."""

from __future__ import annotations

import grp
import hashlib
import hmac
import os
import pwd
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""Not in the socket module: asm-generic/socket.h."""
_GROUPS_SIZE = 1024
"""Octets: for 256 groups. Python reads no more."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that has connected, as the kernel knows it (unix(7), SO_PEERCRED).

    :ivar groups: all of its groups.
    """

    uid: int
    pid: int
    groups: frozenset[int] = frozenset()

    @property
    def user(self) -> str:
        """Its user's name, or the number if there is no such user."""
        return name_of_user(self.uid)


def name_of_user(uid: int) -> str:
    """The name, or the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def name_of_group(gid: int) -> str:
    """The name, or the number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def peer_of(connected: socket.socket) -> Peer:
    """Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        groups = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:
        # It has more, or the kernel is older than 4.13: the first one will have to do.
        groups = b""
    return Peer(uid, pid, frozenset((gid, *struct.unpack(f"{len(groups) // 4}i", groups))))


@dataclass(frozen=True, slots=True)
class Token:
    """What a caller may prove to be.

    :ivar sha256: of the token, in hexadecimal.
    :ivar admin: may do everything; else only look.
    """

    name: str
    sha256: str
    admin: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives a command. ``token``: the name of theirs, "" without one; ``proof``: what it was compared with."""

    peer: Peer
    token: str
    admin: bool
    proof: Token | None = None


class Callers:
    """Who may come in: root, the server's own user, and the members of one group; with tokens, only with one."""

    def __init__(self, tokens: Sequence[Token] = (), group: int | None = None) -> None:
        self._tokens = tuple(tokens)
        self._group = group

    def knows(self, peer: Peer) -> bool:
        """Is it one of those whom the socket is for? Its mode says so, too, unless somebody has changed that."""
        return peer.uid in (0, os.geteuid()) or self._group in peer.groups

    def caller(self, peer: Peer, token: str | None) -> Caller | None:
        """Who it is, or None: it has no good token. All tokens are compared, in the same time (CWE-208)."""
        if not self._tokens:
            return Caller(peer, "", admin=True)
        given = hashlib.sha256((token or "").encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for each in self._tokens:
            if hmac.compare_digest(given, each.sha256.lower()):
                found = each
        return None if found is None else Caller(peer, found.name, found.admin, found)

    def knows_still(self, caller: Caller) -> bool:
        """May somebody go on who came in when the tokens may have been others?"""
        return not self._tokens or caller.proof in self._tokens
