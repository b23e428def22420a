"""Several addresses of a destination: the first that takes mail gets it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from transports.peer import Client, Peer, message, now

from mtatwist.envelope import Deferral, Delivered, Failure
from mtatwist.smtp.reply import Reply
from mtatwist.transports.dial import Target
from mtatwist.transports.failures import ConnectFailed

Patch = pytest.MonkeyPatch

TARGETS = [Target(f"mx{number}.test", f"192.0.2.{number}", 25) for number in range(30)]


def dead() -> Peer:
    peer = Peer()
    peer.unreachable = True
    return peer


def client(patch: Patch, *peers: Peer, tls: str = "may") -> Client:
    async def targets(next_hop: str) -> Sequence[Target]:
        assert next_hop == "d.test"
        return TARGETS[: len(peers)]

    return Client(patch, *peers, tls=tls, targets=targets, next_hop="d.test")


UNWILLING = {
    "refused": dead,
    "greets with 5xx": lambda: Peer(greeting="554 5.7.1 go away"),
    "greets with 4xx": lambda: Peer(greeting="450 4.7.0 later"),
    "is busy": lambda: Peer(greeting="421 4.3.2 busy"),
    "babbles": lambda: Peer(greeting="SSH-2.0"),
    "wants no EHLO": lambda: Peer(lambda command: "550 5.7.1 no"),
    "leaves": lambda: Peer(lambda command: "vanish"),
}


@pytest.mark.parametrize("unwilling", UNWILLING.values(), ids=UNWILLING)
def test_the_next_is_tried(monkeypatch: Patch, unwilling: type[Peer]) -> None:
    good = Peer()
    rig = client(monkeypatch, unwilling(), unwilling(), good, Peer())
    (outcome,) = rig.deliver(message())
    assert isinstance(outcome, Delivered)
    assert outcome.host == "mx2.test"
    assert len(good.messages) == 1
    assert rig.dialled == TARGETS[:3]


def test_a_silent_one_is_left_in_time(monkeypatch: Patch) -> None:
    silent, good = Peer(greeting=None), Peer()
    rig = client(monkeypatch, silent, good)
    connecting = rig.connecting()
    rig.clock.advance(31.1)
    assert silent.aborted
    good.begin()
    rig.run()
    assert now(connecting).usable


@pytest.mark.parametrize(
    ("peers", "said", "host"),
    [
        ((dead(), Peer(greeting="554 5.7.1 go away"), dead()), "554 5.7.1 go away", "mx1.test"),
        ((dead(), Peer(greeting="babble"), dead()), "no SMTP reply", ""),
        ((dead(), dead()), "Cannot connect to mx0.test.192.0.2.0.:25: refused", ""),
        ((Peer(greeting="421 4.3.2 one"), Peer(greeting="421 4.3.2 two")), "one", "mx0.test"),
    ],
)
def test_when_none_takes_it_the_most_telling_is_told(
    monkeypatch: Patch, peers: tuple[Peer, ...], said: str, host: str
) -> None:
    with pytest.raises(ConnectFailed, match=said) as caught:
        client(monkeypatch, *peers).connect()
    assert isinstance(caught.value.outcome, Deferral)
    assert caught.value.outcome.host == host


def test_no_address_is_a_deferral(monkeypatch: Patch) -> None:
    with pytest.raises(ConnectFailed, match="no address") as caught:
        client(monkeypatch).connect()
    assert isinstance(caught.value.outcome, Deferral)


def test_what_the_search_fails_with_is_passed_on(monkeypatch: Patch) -> None:
    nowhere = Failure(Reply(556, "5.1.10", "null MX"))

    async def targets(next_hop: str) -> Sequence[Target]:
        raise ConnectFailed(nowhere)

    with pytest.raises(ConnectFailed) as caught:
        Client(monkeypatch, targets=targets).connect()
    assert caught.value.outcome is nowhere


def test_there_is_an_end_to_trying(monkeypatch: Patch) -> None:
    rig = client(monkeypatch, *(dead() for _ in range(30)))
    with pytest.raises(ConnectFailed):
        rig.connect()
    assert len(rig.dialled) == 20


def test_there_is_an_end_to_waiting(monkeypatch: Patch) -> None:
    """Each keeps us for half an hour: after the first no other is begun."""
    slow = Peer()
    rig = client(monkeypatch, slow, Peer())
    slow.say = lambda command: "silence"
    connecting = rig.connecting()
    rig.clock.advance(601)
    with pytest.raises(ConnectFailed):
        now(connecting)
    assert rig.dialled == TARGETS[:1]


def test_who_gives_up_goes_to_no_other(monkeypatch: Patch) -> None:
    rig = client(monkeypatch, Peer(greeting=None), Peer())
    connecting = rig.connecting()
    connecting.addErrback(lambda _: None)
    connecting.cancel()
    assert rig.dialled == TARGETS[:1]


def test_tls_asks_for_the_name_of_the_target(monkeypatch: Patch) -> None:
    rig = client(monkeypatch, dead(), Peer(extensions=("STARTTLS",)), tls="verify")
    (outcome,) = rig.deliver(message())
    assert rig.contexts == [("mx1.test", True)]
    assert outcome == Delivered(Reply(250, "2.0.0", "fine"), "mx1.test", tls="TLSv1.3 with cipher TLS_TEST")


@pytest.mark.parametrize("tls", ["require", "verify"])
def test_one_without_tls_is_passed_by_where_it_is_required(monkeypatch: Patch, tls: str) -> None:
    plain, good = Peer(), Peer(extensions=("STARTTLS",))
    rig = client(monkeypatch, plain, good, tls=tls)
    assert isinstance(rig.deliver(message())[0], Delivered)
    assert not plain.messages
    assert len(good.messages) == 1


def test_the_second_try_in_clear_goes_to_the_same_target(monkeypatch: Patch) -> None:
    first = Peer(extensions=("STARTTLS",))
    first.say = lambda command: "vanish" if first.tls else None
    rig = client(monkeypatch, first, Peer(extensions=("STARTTLS",)), Peer())
    assert isinstance(rig.deliver(message())[0], Delivered)
    assert rig.dialled == [TARGETS[0], TARGETS[0]]
    assert rig.metrics.tls_fallbacks.value == 1


def test_what_was_offered_in_clear_is_forgotten_after_starttls(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("STARTTLS", "SIZE 10", "DSN", "PIPELINING"))
    peer.say = lambda command: "250 next.test" if command[:4] == "EHLO" and peer.tls else None
    (outcome,) = Client(monkeypatch, peer).deliver(message())
    assert isinstance(outcome, Delivered)
    assert peer.heard[3] == "MAIL FROM:<a@b.test>"


def test_a_unix_socket_is_its_own_target(monkeypatch: Patch) -> None:
    """Nothing is looked up, and TLS is left out where it is not insisted on."""

    async def targets(next_hop: str) -> Sequence[Target]:
        raise AssertionError

    peer = Peer(extensions=("STARTTLS",))
    rig = Client(monkeypatch, peer, targets=targets, next_hop="unix:/run/x")
    rig.connect()
    assert rig.dialled == [Target("unix:/run/x", "/run/x", 0)]
    assert peer.tls is None
