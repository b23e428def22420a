"""Deliver into nothing: for a destination that has to exist, and whose mail nobody wants."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from mtatwist.envelope import Delivered, Message, Outcome, Recipient
from mtatwist.interfaces import IDelivery, ITransport
from mtatwist.smtp.reply import Reply


@implementer(IDelivery)
class NullDelivery:
    """A connection that needs no network."""

    def __init__(self) -> None:
        self.usable = True

    async def deliver(self, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        """An outcome for each recipient. It must not raise: trouble is a Deferral, and what cannot be is a Failure."""
        return [Delivered(Reply(250, "2.0.0", f"{message.id} forgotten")) for _ in recipients]

    def close(self) -> None:
        """Nothing is open."""
        self.usable = False


@implementer(ITransport)
class NullTransport:
    """Connects at once. Give ``__init__`` a ``**_`` for those of tap's arguments that you have no use for."""

    def __init__(self, **_: object) -> None:
        pass

    async def connect(self, next_hop: str) -> NullDelivery:
        """A transport with a network raises ConnectFailed, with the Deferral to record."""
        return NullDelivery()

    def stop(self) -> None:
        """No more connections will be asked for; the open ones have been closed."""
