"""The listeners, and all that stands behind them up to the spool: that may be another one for each new session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

from mtatwist.config import Config
from mtatwist.envelope import Message
from mtatwist.interfaces import ISpool
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.delivery import Door, Realm
from mtatwist.receive.factory import ReceiveFactory, Sessions
from mtatwist.receive.gather import Gatherer
from mtatwist.receive.listener import Listener
from mtatwist.recipients.resolve import Resolver
from mtatwist.smtp.address import DomainSet
from mtatwist.validators import build
from mtatwist.validators.chain import Chain
from mtatwist.validators.usage import Usage
from mtatwist.values.fields import fields
from mtatwist.wiring.auth import make_logins
from mtatwist.wiring.relay import make_refusal
from mtatwist.wiring.submission import make_submission


def make_factories(
    config: Config,
    *,
    reactor: Any,
    metrics: Instruments,
    spool: ISpool,
    sessions: Sessions,
    wake: Callable[[Message], None],
    queue_time: Callable[[], float],
    recipients: Resolver | None,
    tls: IOpenSSLServerConnectionCreator | None,
    checkers: Sequence[ICredentialsChecker],
    usage: Usage,
) -> list[ReceiveFactory]:
    """What makes the sessions of each ``[[listen]]``; ``tls`` is what they begin TLS with; ``checkers`` are the
    portal's; ``usage`` is what accounts have sent."""
    relay = config.relay
    domains = DomainSet(relay.domains)
    submission = make_submission(config, usage)

    def make_portal(accounts: bool) -> tuple[Portal, Chain]:
        """For listeners where one can log in, or for those where nobody can."""
        validators = build(
            config.validators.order,
            message_size=config.limits.message_size,
            has_room=spool.has_room,
            domains=domains,
            refuse_mailbox=make_refusal(config),
            devices=[(device.network, device.senders) for device in relay.devices],
            networks=relay.networks,
            metrics=metrics,
            hops=config.limits.hops,
            recipient_delimiter=relay.recipient_delimiter,
            from_mismatch=config.submission.from_mismatch,
            usage=usage,
            accounts=accounts,
        )
        chain = Chain(validators, metrics)
        door = Door(
            hostname=config.server.hostname,
            spool=spool,
            chain=chain,
            metrics=metrics,
            wake=wake,
            wall=time.time,
            queue_time=queue_time,
            now=reactor.seconds,
            message_size=config.limits.message_size,
            recipients=config.limits.recipients,
            domains=domains,
            postmaster=relay.postmaster,
            submission=submission,
            resolve=recipients.resolve if recipients else None,
            expansion=relay.expansion,
        )
        return Portal(Realm(door), checkers), chain

    portals = {role: make_portal(accounts=role == "submission") for role in {listen.role for listen in config.listen}}
    return [
        ReceiveFactory(
            portals[listen.role][0],
            clock=reactor,
            sessions=sessions,
            chain=portals[listen.role][1],
            metrics=metrics,
            hostname=config.server.hostname,
            limits=Limits(**fields(config.limits, Limits)),
            timeouts=Timeouts(**fields(config.timeouts, Timeouts)),
            networks=[*relay.networks, *(device.network for device in relay.devices)],
            role=listen.role,
            tls_context=tls if listen.tls == "starttls" else None,
            implicit_tls=listen.tls == "implicit",
            logins=make_logins(config),
        )
        for listen in config.listen
    ]


def make_listeners(
    config: Config,
    reactor: Any,
    factories: Sequence[ReceiveFactory],
    *,
    tls: IOpenSSLServerConnectionCreator | None,
    fail: Callable[[int, str], NoReturn],
    lost: Callable[[int, str], None],
) -> list[Listener]:
    """One for each ``[[listen]]``. ``fail`` and ``lost``: see BoundEndpoint."""
    gatherer = Gatherer(reactor)
    return [
        Listener(
            reactor,
            listen.endpoint,
            factory,
            role=listen.role,
            implicit_tls=tls if listen.tls == "implicit" else None,
            gatherer=gatherer,
            fail=fail,
            lost=lost,
        )
        for listen, factory in zip(config.listen, factories, strict=True)
    ]
