"""Who may begin a session, and how they all end."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from dialogue import Settings
from dialogue_servers import make_wire
from receive.whole import Whole
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.bounds import Limits, Timeouts
from mtatwist.receive.factory import ReceiveFactory, Sessions
from mtatwist.validators.chain import Chain


class Rig:
    """A factory whose sessions get no further than the greeting."""

    def __init__(self, connections: int = 3, per_address: int = 2) -> None:
        self.clock = Clock()
        self.sessions = Sessions(connections, per_address)
        self.metrics = Instruments()
        self.factory = ReceiveFactory(
            None,  # type: ignore[arg-type]
            clock=self.clock,
            sessions=self.sessions,
            chain=Chain([], self.metrics),
            metrics=self.metrics,
            hostname="mta.test",
            limits=Limits(message_size=1000, errors=20, data_rate=1),
            timeouts=Timeouts(handshake=30, command=300, data_init=120, data_block=180, data_done=600, session=1800),
            networks=[ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")],
        )

    def connect(self, host: str) -> tuple[Any, str]:
        """The protocol, and what it says first."""
        address = IPv6Address("TCP", host, 1) if ":" in host else IPv4Address("TCP", host, 1)
        return self.connect_from(address if host else UNIXAddress(None))

    def connect_from(self, address: Any) -> tuple[Any, str]:
        protocol: Any = self.factory.buildProtocol(address)
        wire = make_wire(Settings(tls="none"))
        protocol.makeConnection(wire)
        self.wire = wire
        return protocol, wire.written.decode()


def test_an_address_has_so_many_sessions_and_no_more() -> None:
    rig = Rig()
    first, _ = rig.connect("192.0.2.1")
    rig.connect("192.0.2.1")
    _, said = rig.connect("192.0.2.1")
    assert said.startswith("421 4.7.0 ")
    assert rig.wire.disconnecting
    assert rig.connect("192.0.2.2")[1].startswith("220 ")
    assert rig.connect("192.0.2.3")[1].startswith("421 4.7.0 ")
    assert rig.metrics.sessions_refused.value == 2
    first.connectionLost()
    assert rig.connect("192.0.2.1")[1].startswith("220 ")


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    """Who has one address of a /64 has all of them."""
    rig = Rig(connections=5)
    first, _ = rig.connect("2001:db8:1:2::1")
    rig.connect("2001:db8:1:2:ffff::2")
    assert rig.connect("2001:db8:1:2::3")[1].startswith("421 4.7.0 ")
    assert rig.connect("2001:db8:1:3::1")[1].startswith("220 ")
    first.connectionLost()
    assert rig.connect("2001:db8:1:2::3")[1].startswith("220 ")
    # IPv4 within IPv6 is IPv4.
    assert rig.connect("::ffff:192.0.2.1")[1].startswith("220 ")
    assert rig.connect("::ffff:192.0.2.2")[1].startswith("220 ")


def test_the_log_names_the_limit_that_keeps_a_session_out() -> None:
    rig = Rig()
    with capturedLogs() as events:
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"):
            rig.connect(host)
        rig.sessions.drain(True)
        rig.connect("192.0.2.3")
        rig.sessions.stopping = True
        rig.connect("192.0.2.1")
    refused = [event for event in events if event["log_format"] == "session_refused"]
    assert [(event["peer"], event.get("limit"), event.get("value"), event.get("why")) for event in refused] == [
        ("192.0.2.1", "limits.connections_per_address", 2, None),
        ("192.0.2.3", "limits.connections", 3, None),
        ("192.0.2.3", None, None, "draining"),
        ("192.0.2.1", None, None, "stopping"),
    ]


def test_a_session_that_ends_twice_is_counted_once() -> None:
    rig = Rig(connections=1)
    protocol, _ = rig.connect("192.0.2.1")
    rig.sessions.discard(protocol)
    rig.sessions.discard(protocol)
    assert len(rig.sessions) == 0
    assert rig.connect("192.0.2.1")[1].startswith("220 ")
    assert rig.connect("192.0.2.1")[1].startswith("421 ")


@pytest.mark.parametrize(
    ("host", "peer", "trusted"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("198.51.100.1", "198.51.100.1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:198.51.100.1", "198.51.100.1", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("fe80::1%eth0", "fe80::1", False),
    ],
)
def test_addresses_in_their_plain_form(host: str, peer: str, trusted: bool) -> None:
    session = Rig().connect(host)[0].session
    assert (session.peer, session.trusted) == (peer, trusted)


def test_a_mapped_address_counts_with_the_plain_one() -> None:
    rig = Rig()
    rig.connect("192.0.2.1")
    rig.connect("::ffff:192.0.2.1")
    assert rig.connect("192.0.2.1")[1].startswith("421 ")


def test_unix_sockets_have_no_address_and_count_in_all_only() -> None:
    rig = Rig(connections=3, per_address=1)
    for _ in range(3):
        protocol, said = rig.connect("")
        assert said.startswith("220 ")
        assert (protocol.session.peer, protocol.session.trusted) == ("", False)
    assert rig.connect("")[1].startswith("421 ")


def test_stopping_ends_idle_sessions_at_once_and_others_after_the_grace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    server = Whole(monkeypatch, tmp_path, {"timeouts.shutdown": '"20s"'})
    idle, busy, late = (server.connect() for _ in range(3))
    busy.begin()
    late.begin()
    done = server.mta.sessions.shut_down(server.reactor, 20.0)
    assert idle.heard().startswith("421 4.3.2")
    assert idle.ended
    assert server.connect().greeting.startswith("421 4.3.2")
    busy.say("DATA")
    said = busy.say(b"Subject: x\r\n\r\n.\r\n")
    assert said.startswith("250 2.0.0")
    assert "421 4.3.2" in said
    server.pass_time(19.9)
    assert not late.ended
    server.pass_time(0.2)
    assert late.heard().startswith("421 4.3.2")
    for session in (idle, busy, late):
        assert not done.called
        session.protocol.connectionLost()
    assert done.called


def test_draining_lets_transactions_end_and_none_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    server = Whole(monkeypatch, tmp_path)
    idle, busy, patient = (server.connect() for _ in range(3))
    busy.begin()
    server.mta.sessions.drain(True)
    refused = server.connect()
    assert refused.greeting.startswith("421 4.3.2 ")
    assert refused.ended
    # What has no need of a transaction is answered as ever.
    assert idle.say("EHLO client.test").startswith("250-")
    assert patient.say("EHLO client.test", "NOOP").endswith("250 2.0.0 Ok\r\n")
    assert idle.say("MAIL FROM:<me@away.test>").startswith("421 4.3.2 ")
    assert idle.ended
    busy.say("DATA")
    assert busy.say(b"Subject: x\r\n\r\n.\r\n").startswith("250 2.0.0 ")
    assert not busy.ended
    assert busy.say("MAIL FROM:<me@away.test>").startswith("421 4.3.2 ")
    assert busy.ended
    server.mta.sessions.drain(False)
    assert patient.say("MAIL FROM:<me@away.test>").startswith("250 ")
    assert server.connect().greeting.startswith("220 ")


def test_a_server_that_drains_can_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    server = Whole(monkeypatch, tmp_path)
    busy = server.connect()
    busy.begin()
    server.mta.sessions.drain(True)
    done = server.mta.sessions.shut_down(server.reactor, 20.0)
    assert server.connect().greeting.startswith("421 4.3.2 Shutting down")
    server.pass_time(20)
    assert busy.heard().startswith("421 4.3.2 Shutting down")
    busy.protocol.connectionLost()
    assert done.called


def test_stopping_without_sessions_is_done_at_once() -> None:
    rig = Rig()
    assert rig.sessions.shut_down(rig.clock, 20.0).called
    assert not rig.clock.getDelayedCalls()


def test_the_grace_ends_with_the_last_session() -> None:
    rig = Rig()
    protocol, _ = rig.connect("192.0.2.1")
    done = rig.sessions.shut_down(rig.clock, 20.0)
    protocol.connectionLost()
    assert done.called
    assert not rig.clock.getDelayedCalls()
