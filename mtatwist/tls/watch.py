"""Keeps certificates fresh while the server runs: read again when they change, warned of before they end."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mtatwist.tls.keypair import CertificateError, KeyPair
from mtatwist.tls.pairs import Changes, Pairs
from mtatwist.tls.server import Contexts, ServerTls

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

WARN_AHEAD = datetime.timedelta(days=21)
"""How long before its end a certificate is warned of: who renews a month ahead hears nothing, who forgot has time."""

WARN_AGAIN = 24 * 3600.0
"""Seconds between two warnings of the same certificate."""

_KEPT = "; the server goes on with what it has read before"


class CertificateWatch(Service):
    """Looks at the files every ``interval`` seconds, in a thread, and whenever it is asked to."""

    def __init__(
        self,
        pairs: Pairs,
        *,
        interval: float,
        clock: IReactorTime,
        wall: Callable[[], float],
        in_thread: Callable[..., Deferred[Any]],
        metrics: Instruments,
    ) -> None:
        """``wall``: seconds since the epoch; ``in_thread``: runs a function in a thread of a bounded pool."""
        self.server = ServerTls()
        self._pairs = pairs
        self._interval = interval
        self._clock = clock
        self._wall = wall
        self._in_thread = in_thread
        self._metrics = metrics
        self._timer: IDelayedCall | None = None
        self._looking = False
        self._asked = False
        self._warned_at: dict[str, float] = {}

    def load(self) -> None:
        """Read all pairs; at the latest before the first session. Raises CertificateError."""
        self.server.use(self._pairs.load())

    def startService(self) -> None:
        """Say what is shown to clients, and begin to watch."""
        super().startService()
        self._tell(self._pairs.in_force)
        self._judge_dates()
        self._timer = self._clock.callLater(self._interval, self._look)

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def use(self, pairs: Pairs, contexts: Contexts, interval: float) -> None:
        """From now on these pairs, which have been read, and their contexts; other files than before."""
        self._pairs = pairs
        self._interval = interval
        self.server.use(contexts)
        if self.running:
            self._tell(pairs.in_force)
            self._judge_dates()
        if self._timer is not None:
            self._timer.reset(interval)

    @property
    def in_force(self) -> Sequence[KeyPair]:
        """What is shown to clients, the default first."""
        return self._pairs.in_force

    def facts(self) -> list[dict[str, Any]]:
        """What is shown to clients, and until when it is good."""
        now = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)
        return [
            {
                "key": pair.files.certificate_key,
                "certificate": pair.files.certificate,
                "names": list(pair.names),
                "expires": round(pair.ends.timestamp()),
                "days_left": pair.days_left(now),
            }
            for pair in self._pairs.in_force
        ]

    def reload(self) -> None:
        """Look now: somebody says that the files have changed."""
        self._asked = True
        if self.running and not self._looking:
            if self._timer is not None:
                self._timer.cancel()
            self._look()

    def _look(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._round())

    async def _round(self) -> None:
        asked, self._asked = self._asked, False
        self._looking = True
        try:
            pairs = self._pairs
            changes = await self._in_thread(pairs.look, asked=asked)
            # Meanwhile others may have taken their place.
            if pairs is self._pairs:
                self._apply(changes, asked)
                self._judge_dates()
        except Exception:
            self._metrics.tls_watch_errors.value += 1
            _log.failure("certificate_watch_failed")
        finally:
            self._looking = False
            if self.running:
                self._timer = self._clock.callLater(0 if self._asked else self._interval, self._look)

    def _apply(self, changes: Changes, asked: bool) -> None:
        if changes.contexts is not None:
            self.server.use(changes.contexts)
        for error in changes.refused:
            self._metrics.tls_reloads_failed.value += 1
            _log.error("certificate_refused", key=error.key, reason=_why_kept(error))
        for error in changes.unreadable:
            _log.warn("certificate_unreadable", key=error.key, reason=_why_kept(error))
        self._metrics.tls_reloads.value += len(changes.loaded)
        self._tell(changes.loaded)
        if asked and not changes.loaded and not changes.refused:
            _log.info("certificates_unchanged", number=len(self._pairs.in_force))

    def _tell(self, pairs: Sequence[KeyPair]) -> None:
        for pair in pairs:
            self._warned_at.pop(pair.files.table, None)
            _log.info(
                "certificate_loaded",
                key=pair.files.certificate_key,
                certificate=pair.files.certificate,
                names=list(pair.names),
                expires=f"{pair.ends:%Y-%m-%dT%H:%M:%SZ}",
                serial=f"{pair.chain[0].serial_number:x}",
            )
            for doubt in pair.doubts:
                _log.warn("certificate_warning", warning=doubt)

    def _judge_dates(self) -> None:
        now = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)
        pairs = self._pairs.in_force
        self._metrics.tls_days_left.value = min((pair.days_left(now) for pair in pairs), default=0)
        for pair in pairs:
            wrong = pair.date_doubts(now)
            if (wrong or pair.ends - now <= WARN_AHEAD) and self._is_due(pair.files.table):
                for each in wrong:
                    _log.error("certificate_invalid", certificate=pair.files.certificate, reason=each)
                if not wrong:
                    _log.warn(
                        "certificate_expires",
                        key=pair.files.certificate_key,
                        certificate=pair.files.certificate,
                        names=list(pair.names),
                        expires=f"{pair.ends:%Y-%m-%dT%H:%M:%SZ}",
                        days_left=pair.days_left(now),
                    )

    def _is_due(self, table: str) -> bool:
        """Has there been no warning for a day? If so, there is one now."""
        now = self._clock.seconds()
        if now - self._warned_at.get(table, -WARN_AGAIN) < WARN_AGAIN:
            return False
        self._warned_at[table] = now
        return True


def _why_kept(error: CertificateError) -> str:
    if error.forbidden:
        return (
            f"{error.reason}: the user the server runs as may not read it{_KEPT}; let it, or restart after each renewal"
        )
    return f"{error.reason}{_KEPT}"
