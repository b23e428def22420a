"""Asking validators in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mtatwist.smtp.reply import OUR_TROUBLE, Reply

if TYPE_CHECKING:
    from mtatwist.envelope import Recipient
    from mtatwist.interfaces import IValidator, Verdict
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.metrics.instruments.receiving import Verdicts
    from mtatwist.transaction import Transaction

_log = Logger()


class _Stage(NamedTuple):
    """What one validator does at one stage, and where its verdicts are counted."""

    name: str
    check: Callable[..., Verdict]
    counts: Verdicts


class Chain:
    """Validators in order: the first refusal wins, a crash is our trouble (451) and never the peer's."""

    def __init__(self, validators: Sequence[IValidator], metrics: Instruments) -> None:
        self._metrics = metrics
        # Bound methods, looked up once: a stage nobody implements costs nothing, nor does who has nothing to judge by.
        self._mail = self._stages(validators, "mail")
        self._rcpt = self._stages(validators, "rcpt")
        self._header = self._stages(validators, "header")

    def mail(self, transaction: Transaction) -> Verdict:
        """Ask about MAIL."""
        return self._ask(self._mail, (transaction,))

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Verdict:
        """Ask about one RCPT."""
        return self._ask(self._rcpt, (transaction, recipient))

    def header(self, transaction: Transaction, header: bytes) -> Verdict:
        """Ask about the header section."""
        return self._ask(self._header, (transaction, header))

    def _ask(self, stages: Sequence[_Stage], arguments: tuple[object, ...]) -> Verdict:
        for position, stage in enumerate(stages):
            try:
                verdict = stage.check(*arguments)
            except Exception:
                return self._crashed(stage)
            if verdict is None:
                stage.counts.passed.value += 1
                continue
            if isinstance(verdict, Reply):
                return _refused(stage, verdict)
            return Deferred.fromCoroutine(self._ask_on(verdict, stages[position:], arguments))
        return None

    async def _ask_on(
        self, pending: Awaitable[Reply | None], stages: Sequence[_Stage], arguments: tuple[object, ...]
    ) -> Reply | None:
        """The slow way, from the first validator that needs time."""
        stage, *rest = stages
        try:
            verdict = await pending
            if verdict is not None:
                return _refused(stage, verdict)
        except Exception:
            return self._crashed(stage)
        stage.counts.passed.value += 1
        following = self._ask(rest, arguments)
        return following if following is None or isinstance(following, Reply) else await following

    def _crashed(self, stage: _Stage) -> Reply:
        stage.counts.crashed.value += 1
        _log.failure("validator_crashed", validator=stage.name)
        return OUR_TROUBLE

    def _stages(self, validators: Sequence[IValidator], stage: str) -> list[_Stage]:
        known = self._metrics.validators
        return [
            _Stage(v.name, getattr(v, stage), known.get(v.name, known["other"]))
            for v in validators
            if hasattr(v, stage) and not getattr(v, "idle", False)
        ]


def _refused(stage: _Stage, verdict: Reply) -> Reply:
    counter = stage.counts.refused if verdict.permanent else stage.counts.postponed
    counter.value += 1
    return verdict
