"""Asking validators in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mtatwist.smtp.reply import OUR_TROUBLE, Reply

if TYPE_CHECKING:
    from mtatwist.envelope import Recipient
    from mtatwist.interfaces import IValidator, Verdict
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.transaction import Transaction

    Stage = Callable[..., Verdict]

_log = Logger()


class Chain:
    """Validators in order: the first refusal wins, a crash is our trouble (451) and never the peer's."""

    def __init__(self, validators: Sequence[IValidator], metrics: Instruments) -> None:
        self._metrics = metrics
        # Bound methods, looked up once: a stage nobody implements costs nothing.
        self._mail = _stages(validators, "mail")
        self._rcpt = _stages(validators, "rcpt")
        self._header = _stages(validators, "header")

    def mail(self, transaction: Transaction) -> Verdict:
        """Ask about MAIL."""
        return self._ask(self._mail, (transaction,))

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Verdict:
        """Ask about one RCPT."""
        return self._ask(self._rcpt, (transaction, recipient))

    def header(self, transaction: Transaction, header: bytes) -> Verdict:
        """Ask about the header section."""
        return self._ask(self._header, (transaction, header))

    def _ask(self, stages: list[tuple[str, Stage]], arguments: tuple[object, ...]) -> Verdict:
        for position, (name, stage) in enumerate(stages):
            try:
                verdict = stage(*arguments)
            except Exception:
                return self._crashed(name)
            if verdict is None:
                continue
            if isinstance(verdict, Reply):
                return verdict
            return Deferred.fromCoroutine(self._ask_on(verdict, stages[position:], arguments))
        return None

    async def _ask_on(
        self, pending: Awaitable[Reply | None], stages: list[tuple[str, Stage]], arguments: tuple[object, ...]
    ) -> Reply | None:
        """The slow way, from the first validator that needs time."""
        (name, _), *rest = stages
        try:
            verdict = await pending
        except Exception:
            return self._crashed(name)
        if verdict is not None:
            return verdict
        following = self._ask(rest, arguments)
        return following if following is None or isinstance(following, Reply) else await following

    def _crashed(self, name: str) -> Reply:
        self._metrics.validator_crashes.value += 1
        _log.failure("validator_crashed", validator=name)
        return OUR_TROUBLE


def _stages(validators: Sequence[IValidator], stage: str) -> list[tuple[str, Stage]]:
    return [(v.name, getattr(v, stage)) for v in validators if hasattr(v, stage)]
