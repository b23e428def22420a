"""How the metrics move that have a number of outcomes for each of a number of things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from receive.whole import Whole
from relay.fakes import GONE, LATER, TAKEN
from relay.fakes import Rig as Relaying

from mtatwist.envelope import State
from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.receiving import VALIDATORS
from mtatwist.metrics.instruments.relaying import TRANSPORTS
from mtatwist.relay.route import Route
from mtatwist.smtp.reply import Reply
from mtatwist.validators.chain import Chain

Scenario = Callable[[Whole], Instruments]

ROUTES = {
    "mx": Route("*", "smtp"),
    "smart_host": Route("*", "smtp", "next.test:25"),
    "lmtp": Route("*", "lmtp", "unix:/run/lmtp"),
    "maildir": Route("*", "maildir", "/var/mail"),
    "other": Route("*", "pigeon", "next.test:25"),
}
"""A way of each class."""

OUTCOMES = {"delivered": TAKEN, "deferred": LATER, "failed": GONE, "expired": LATER}

VERDICTS: dict[str, Any] = {
    "passed": None,
    "refused": Reply(550, "5.7.1", "No"),
    "postponed": Reply(450, "4.7.1", "Later"),
    "crashed": RuntimeError("a secret"),
}


def attempt(transport: str, outcome: str) -> Scenario:
    """A recipient is tried at a destination of this class, until that is the outcome."""

    def scenario(server: Whole) -> Instruments:
        route = ROUTES[transport]
        rig = Relaying(route, metrics=server.metrics)
        rig.transport(route.next_hop or "there.test").judge = lambda message, recipient: OUTCOMES[outcome]
        rig.accept("you@there.test", reverse_path="")
        rig.pass_time(1005 if outcome == "expired" else 1)
        return server.metrics

    return scenario


def verdict(validator: str, outcome: str) -> Scenario:
    """A validator of this name is asked, and says that."""

    class Judge:
        name = "homemade" if validator == "other" else validator

        def mail(self, transaction: object) -> Any:
            if isinstance(VERDICTS[outcome], Exception):
                raise VERDICTS[outcome]
            return VERDICTS[outcome]

    def scenario(server: Whole) -> Instruments:
        judge: Any = Judge()
        Chain([judge], server.metrics).mail(None)  # type: ignore[arg-type]
        return server.metrics

    return scenario


def queued(state: State) -> Scenario:
    """A recipient in this state waits when the queue is counted."""

    def scenario(server: Whole) -> Instruments:
        server.connect().send()
        server.spool.claims.clear()
        for message in server.spool.messages.values():
            message.envelope.recipients[0].state = state
        server.pass_time(16)
        return server.metrics

    return scenario


SCENARIOS: dict[str, Scenario] = {
    **{
        f"mtatwist.relay.attempts{{mtatwist.outcome={outcome},mtatwist.transport={transport}}}": attempt(
            transport, outcome
        )
        for transport in TRANSPORTS
        for outcome in OUTCOMES
    },
    **{
        f"mtatwist.relay.delivery.duration{{mtatwist.transport={transport}}}": attempt(transport, "delivered")
        for transport in TRANSPORTS
    },
    **{
        f"mtatwist.validator.verdicts{{mtatwist.outcome={outcome},mtatwist.validator={validator}}}": verdict(
            validator, outcome
        )
        for validator in VALIDATORS
        for outcome in VERDICTS
    },
}

IN_QUEUE: dict[str, Scenario] = {
    f"mtatwist.queue.recipient.count{{mtatwist.state={state.name.lower()}}}": queued(state)
    for state in (State.PENDING, State.DEFERRED, State.HELD)
}
"""These need somebody who watches."""
