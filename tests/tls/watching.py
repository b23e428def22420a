"""Certificates that are watched: files in a directory, a clock of our own, and what was logged."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rigs import certificates
from tls.handshakes import Visitor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory

from mtatwist.metrics.instruments import Instruments
from mtatwist.tls.keypair import Files
from mtatwist.tls.pairs import Pairs
from mtatwist.tls.policy import Policy
from mtatwist.tls.watch import CertificateWatch

INTERVAL = 30.0
DAY = 24 * 3600.0


class Watched:
    """A watch over the pairs of some names; each lies in a directory of its name."""

    def __init__(
        self,
        directory: Path,
        *names: str,
        days: float = 90,
        policy: Policy | None = None,
        prepare: Callable[[], None] | None = None,
        metrics: Instruments | None = None,
    ) -> None:
        """``days``: how long the certificates last from now."""
        self.directory = directory
        self.authority = certificates.Authority(directory / "authority.pem")
        names = names or ("mta.test",)
        for name in names:
            self.issue(name, days=days)
        self.clock = Clock()
        self.now = datetime.datetime.now(datetime.UTC).timestamp()
        self.metrics = metrics or Instruments()
        self.events: list[dict[str, Any]] = []
        self.held: Deferred[None] | None = None
        self.watch = CertificateWatch(
            Pairs(
                [Files(str(self.files(name).certificate), str(self.files(name).key), name) for name in names],
                policy or Policy(),
                seconds=self.clock.seconds,
                prepare=prepare,
            ),
            interval=INTERVAL,
            clock=self.clock,
            wall=lambda: self.now + self.clock.seconds(),
            in_thread=self._in_thread,
            metrics=self.metrics,
        )
        globalLogPublisher.addObserver(self._observe)
        self.watch.load()
        self.watch.startService()

    def _in_thread(self, work: Callable[..., Any], **arguments: Any) -> Deferred[Any]:
        done = maybeDeferred(work, **arguments)
        return done if self.held is None else self.held.addCallback(lambda _: done)

    def _observe(self, event: dict[str, Any]) -> None:
        if event["log_namespace"].startswith("mtatwist.tls"):
            self.events.append({"event": event["log_format"], **event})

    def files(self, name: str = "mta.test") -> certificates.Files:
        """Where its pair lies."""
        place = self.directory / name
        return certificates.Files(self.authority.file, place / "mta.pem", place / "mta.key")

    def issue(self, name: str = "mta.test", *, host: str = "", days: float = 90) -> None:
        """Put a new pair in place, for ``host``; both files at once."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        unfinished = self.directory / "unfinished"
        unfinished.mkdir(exist_ok=True)
        made = self.authority.issue(unfinished, host or name, days=days)
        for path in (made.certificate, made.key):
            os.replace(path, place / path.name)

    def pass_time(self, seconds: float) -> None:
        """Time passes, look after look."""
        for _ in range(int(seconds // INTERVAL)):
            self.clock.advance(INTERVAL)
        self.clock.advance(seconds % INTERVAL)

    def seen(self, name: str = "", **how: Any) -> str:
        """Whose certificate a new client gets to see."""
        return Visitor(self.factory, name=name, **how).shake_hands().saw

    @property
    def factory(self) -> TLSMemoryBIOFactory:
        """Makes the server's end of a session."""
        return TLSMemoryBIOFactory(self.watch.server, False, Factory.forProtocol(Protocol), self.clock)

    def said(self, name: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [event for event in self.events if event["event"] == name]

    def stop(self) -> None:
        """No more time for it."""
        globalLogPublisher.removeObserver(self._observe)
        self.watch.stopService()
        assert self.clock.getDelayedCalls() == []
