"""The pairs in force. Their files are looked at again and again; what is broken there changes nothing here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mtatwist.tls.keypair import CertificateError, Files, KeyPair, read
from mtatwist.tls.policy import TICKET_SECONDS, Policy, server_context
from mtatwist.tls.server import Contexts

_Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(slots=True)
class _Slot:
    """One pair. ``stamp``: its files when it was read; ``refused``: stamp and reason of what could not be taken;
    ``told``: whether somebody has been told of that."""

    files: Files
    pair: KeyPair | None = None
    stamp: _Stamp = ()
    refused: tuple[_Stamp, str] | None = None
    told: bool = False


@dataclass(slots=True)
class Changes:
    """What a look at the files has brought. ``contexts``: for new sessions from now on, None for the old ones;
    ``unreadable``: what has been read, but could not be read again."""

    contexts: Contexts | None = None
    loaded: list[KeyPair] = field(default_factory=list)
    refused: list[CertificateError] = field(default_factory=list)
    unreadable: list[CertificateError] = field(default_factory=list)


class Pairs:
    """Reads pairs, in whatever thread, but in one at a time. The first pair is the default."""

    def __init__(
        self,
        files: Sequence[Files],
        policy: Policy,
        *,
        seconds: Callable[[], float],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """``seconds``: a monotonic clock. ``prepare`` is called before each look, to make the files where they are
        ours to make; it may raise CertificateError."""
        self._slots = [_Slot(each) for each in files]
        self._policy = policy
        self._seconds = seconds
        self._prepare = prepare
        self._made_at = 0.0
        self._unprepared = ""
        self._has_looked = False

    @property
    def in_force(self) -> list[KeyPair]:
        """What has been read, the default first."""
        return [slot.pair for slot in self._slots if slot.pair is not None]

    def load(self) -> Contexts:
        """Read them all, for the first time. Raises CertificateError."""
        if self._prepare is not None:
            self._prepare()
        for slot in self._slots:
            slot.stamp = self._stamp(slot.files)
            slot.pair = read(slot.files)
        return self._contexts()

    def look(self, *, asked: bool = False) -> Changes:
        """See what has changed. Trouble with a pair that was not there at the last look waits for the next one: its two
        files are written one after the other. ``asked``: somebody said that they are complete now."""
        changes = Changes()
        self._try_to_prepare(changes)
        changed = False
        for slot in self._slots:
            stamp = self._stamp(slot.files)
            if stamp == slot.stamp:
                slot.refused = None
                self._try_to_open(slot.files, changes)
                continue
            try:
                pair = read(slot.files)
                # What OpenSSL refuses must not stand in the way of the others.
                server_context(pair, self._policy)
            except CertificateError as error:
                self._refuse(slot, stamp, error, asked, changes)
                continue
            if slot.pair is None or slot.pair.chain != pair.chain:
                changes.loaded.append(pair)
            slot.pair, slot.stamp, slot.refused = pair, stamp, None
            changed = True
        self._has_looked = True
        if changed or self._seconds() - self._made_at >= TICKET_SECONDS:
            changes.contexts = self._contexts()
        return changes

    def _try_to_open(self, files: Files, changes: Changes) -> None:
        """Once: a process that gave its privileges away should not find out at the first renewal."""
        if self._has_looked:
            return
        for key, path in ((files.certificate_key, files.certificate), (files.private_key_key, files.private_key)):
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            except OSError as error:
                changes.unreadable.append(CertificateError(key, f"{path}: {error.strerror}", forbidden=True))

    def _try_to_prepare(self, changes: Changes) -> None:
        if self._prepare is None:
            return
        before, self._unprepared = self._unprepared, ""
        try:
            self._prepare()
        except CertificateError as error:
            self._unprepared = error.reason
            if before != error.reason:
                changes.refused.append(error)

    @staticmethod
    def _refuse(slot: _Slot, stamp: _Stamp, error: CertificateError, asked: bool, changes: Changes) -> None:
        refused = (stamp, str(error))
        if refused != slot.refused:
            slot.refused, slot.told = refused, False
            if not asked:
                return
        if not slot.told or asked:
            slot.told = True
            changes.refused.append(error)

    def _contexts(self) -> Contexts:
        contexts = Contexts(self.in_force, self._policy)
        self._made_at = self._seconds()
        return contexts

    def _stamp(self, files: Files) -> _Stamp:
        """What changes when any of the files does; also those of a client's authority count."""
        paths = (files.certificate, files.private_key, self._policy.client_ca_file)
        return tuple(_facts(path) for path in paths if path is not None)


def _facts(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
