"""Delivery by SMTP: finds a server that takes mail, among all that a destination has (RFC 5321 §5.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mtatwist.envelope import Deferral
from mtatwist.interfaces import IDelivery, ITransport
from mtatwist.log import EventLogger
from mtatwist.smtp.reply import Reply
from mtatwist.transports.client import SmtpWire
from mtatwist.transports.delivery import SmtpDelivery
from mtatwist.transports.dial import Target, dial, direct
from mtatwist.transports.failures import ConnectFailed
from mtatwist.transports.reasons import why_not_connected
from mtatwist.transports.session import ClientTimeouts, Opening, Session, TlsFailed

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool
    from mtatwist.metrics.instruments import Instruments

__all__ = ["ClientTimeouts", "SmtpTransport"]

_log = EventLogger()

TARGETS_LIMIT = 20
"""Addresses that are tried for one connection; a domain can have any number (RFC 5321 §5.1 asks for two at least)."""

TOTAL_SECONDS = 600.0
"""After so much time no other address is begun: the next attempt comes by the schedule."""


@implementer(ITransport)
class SmtpTransport:
    """Connects to one kind of destination: ``tls`` is none, may (take it when offered), require or verify."""

    verb: ClassVar[bytes] = b"EHLO"
    mailbox: ClassVar[bool] = False

    def __init__(
        self,
        *,
        spool: ISpool,
        reactor: Any,
        hostname: str,
        timeouts: ClientTimeouts,
        tls: str,
        tls_context: Callable[[str, bool], Any],
        metrics: Instruments,
        targets: Callable[[str], Awaitable[Sequence[Target]]] | None = None,
        **_: Any,
    ) -> None:
        """``tls_context(host, verify)`` gives the connection creator for a STARTTLS.

        ``targets`` gives the addresses of a destination, best first, or raises ConnectFailed; without it, and for
        unix sockets, the destination is itself the only one.
        """
        self._spool = spool
        self._timeouts = timeouts
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._metrics = metrics
        self._targets = targets
        self._opening = Opening(self.verb, hostname.encode(), tls, tls_context, timeouts)

    async def connect(self, next_hop: str) -> IDelivery:
        """See ITransport. The first target that takes mail; if none does, what the most talkative one said."""
        if self._targets is None or next_hop.startswith("unix:"):
            targets: Sequence[Target] = [direct(next_hop)]
        else:
            targets = await self._targets(next_hop)
        failed = ConnectFailed(Deferral(Reply(451, "4.4.4", f"There is no address to try for {next_hop}")))
        latest = self._clock.seconds() + TOTAL_SECONDS
        for number, target in enumerate(targets[:TARGETS_LIMIT]):
            if number and self._clock.seconds() > latest:
                break
            try:
                session = await self._reach(target)
            except ConnectFailed as again:
                _log.info("target_failed", next_hop=next_hop, host=target.host, address=target.address, why=str(again))
                failed = max(failed, again, key=_telling)
            else:
                _log.info("connected", next_hop=next_hop, host=target.host, address=target.address, tls=session.tls)
                self._count(session.tls)
                return SmtpDelivery(
                    session,
                    spool=self._spool,
                    timeouts=self._timeouts,
                    metrics=self._metrics,
                    mailbox=self.mailbox,
                )
        raise failed

    def stop(self) -> None:
        """Nothing runs here."""

    async def _reach(self, target: Target) -> Session:
        """A session with this target. Under ``tls = "may"`` a failed TLS handshake is followed by a try in clear."""
        try:
            session = await self._opening.open(await self._dial(target), target)
            if session.no_tls:
                self._in_clear(target, session.no_tls)
            return session
        except TlsFailed as failed:
            if self._opening.tls != "may":
                why = f"TLS failed with {target.name}: {failed}"
                raise ConnectFailed(Deferral(Reply(450, "4.7.5", why))) from None
            self._in_clear(target, str(failed))
            return await self._opening.open(await self._dial(target), target, in_clear=True)

    def _count(self, tls: str) -> None:
        if tls.startswith("TLSv1.3"):
            self._metrics.relay_tls_13.value += 1
        elif tls:
            self._metrics.relay_tls_12.value += 1

    def _in_clear(self, target: Target, why: str) -> None:
        self._metrics.tls_fallbacks.value += 1
        _log.warn("tls_failed", host=target.host, address=target.address, why=why, then="in clear")

    async def _dial(self, target: Target) -> SmtpWire:
        try:
            return await dial(self._reactor, target, SmtpWire(self._clock), self._timeouts.connect)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Exception as error:
            why = f"Cannot connect to {target.name}: {why_not_connected(error)}"
            raise ConnectFailed(Deferral(Reply(451, "4.4.1", why))) from None


_TELLING = {"4.4.4": 0, "4.4.1": 1, "4.4.2": 2}


def _telling(failed: ConnectFailed) -> int:
    """How much a failure says about the destination: most if a server spoke, least if there was none."""
    return _TELLING.get(failed.outcome.reply.enhanced, len(_TELLING))
