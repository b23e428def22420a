"""Where a next hop is, and for how long it is tried."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from transports.peer import TIMEOUTS
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from mtatwist.metrics.instruments import Instruments
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports.dial import split_next_hop
from mtatwist.transports.failures import ConnectFailed
from mtatwist.transports.smtp import SmtpTransport


class Resolver:
    """Every name is 192.0.2.1."""

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0, *_: Any, **__: Any) -> Any:
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", "192.0.2.1", portNumber))
        receiver.resolutionComplete()
        return receiver


def resolving_reactor() -> Any:
    """A reactor in memory that knows where every host is."""
    reactor: Any = MemoryReactorClock()
    reactor.nameResolver = Resolver()
    alsoProvides(reactor, IReactorPluggableNameResolver)
    return reactor


@pytest.mark.parametrize(
    ("next_hop", "expected"),
    [
        ("smart.example:25", ("smart.example", 25)),
        ("[2001:db8::1]:587", ("2001:db8::1", 587)),
        ("unix:/run/next hop:1", ("/run/next hop:1", 0)),
    ],
)
def test_next_hops(next_hop: str, expected: tuple[str, int]) -> None:
    assert split_next_hop(next_hop) == expected


@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_a_host_that_does_not_answer_is_left_in_time(seconds: float) -> None:
    reactor = resolving_reactor()
    transport = SmtpTransport(
        spool=MemorySpool(),
        reactor=reactor,
        hostname="mta.test",
        timeouts=dataclasses.replace(TIMEOUTS, connect=seconds),
        tls="may",
        tls_context=lambda host, verify: None,
        metrics=Instruments(),
    )
    connecting = Deferred.fromCoroutine(transport.connect("smart.example:25"))
    host, port, factory, timeout, _ = reactor.tcpClients[0]
    assert (host, port, timeout) == ("192.0.2.1", 25, seconds)
    failures: list[Any] = []
    connecting.addErrback(failures.append)
    factory.clientConnectionFailed(reactor.connectors[0], Failure(TimeoutError()))
    reactor.advance(1)
    assert failures[0].check(ConnectFailed)
    assert "Cannot connect" in str(failures[0].value)
