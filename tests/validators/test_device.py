"""Devices: which network address may send from which mail addresses."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from twisted.logger import capturedLogs

from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import NULL, Address
from mtatwist.transaction import Account, Session, Transaction
from mtatwist.validators.device import NOT_FROM_HERE, Device

DEVICES = [
    (ip_network("192.0.2.0/24"), ["@lab.example.org"]),
    (ip_network("192.0.2.16/28"), ["Printer@example.org", "@xn--mnchen-3ya.test", "<>"]),
    (ip_network("2001:db8::/64"), ["scanner@example.org"]),
]
NETWORKS = [ip_network("192.0.2.20/32"), ip_network("192.0.0.0/16"), ip_network("192.0.2.16/28")]


def path(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain) if text else NULL


def judge(peer: str, sender: str, *, trusted: bool = True, account: Account | None = None) -> bool:
    """May a client there send from this address?"""
    metrics = Instruments()
    session = Session("s", "mx", peer, trusted, account=account)
    reply = Device(DEVICES, NETWORKS, metrics).mail(Transaction(session, path(sender)))
    assert reply in (None, NOT_FROM_HERE)
    assert metrics.devices_refused.value == (reply is not None)
    return reply is None


@pytest.mark.parametrize(
    ("peer", "sender", "allowed"),
    [
        ("192.0.2.1", "anyone@lab.example.org", True),
        ("192.0.2.1", "anyone@LAB.example.org", True),
        ("192.0.2.1", "anyone@x.lab.example.org", False),
        ("192.0.2.1", "printer@example.org", False),
        ("192.0.2.1", "", False),
        ("192.0.2.17", "PRINTER@Example.org", True),
        ("192.0.2.17", "printer+x@example.org", False),
        ("192.0.2.17", "x@münchen.test", True),
        ("192.0.2.17", "x@\N{ZERO WIDTH JOINER}.test", False),
        ("192.0.2.17", "", True),
        ("192.0.2.17", "anyone@lab.example.org", False),
        ("2001:db8::17", "scanner@example.org", True),
        ("2001:db8::17", "printer@example.org", False),
        # The smallest network decides, whichever list it is in.
        ("192.0.2.20", "ceo@example.org", True),
        ("192.0.3.1", "ceo@example.org", True),
    ],
)
def test_senders(peer: str, sender: str, allowed: bool) -> None:
    assert judge(peer, sender) is allowed


def test_who_has_logged_in_is_no_device() -> None:
    assert judge("192.0.2.17", "me@example.org", account=Account("me"))


def test_strangers_are_judged_by_others() -> None:
    assert judge("203.0.113.1", "me@example.org", trusted=False)


def test_a_refusal_is_told_of() -> None:
    session = Session("s1", "mx", "192.0.2.17", trusted=True)
    with capturedLogs() as events:
        reply = Device(DEVICES, [], Instruments()).mail(Transaction(session, path("ceo@example.org")))
    assert reply is NOT_FROM_HERE
    assert (reply.code, reply.enhanced) == (553, "5.7.1")
    (event,) = events
    assert (event["log_format"], event["peer"], event["reverse_path"]) == (
        "device_refused",
        "192.0.2.17",
        "ceo@example.org",
    )
