"""Servers that lie, hang, babble or leave: never a false success, never without bound, never for ever."""

from __future__ import annotations

import dataclasses

import pytest
from transports.peer import TIMEOUTS, Client, Peer, message, now, waits

from mtatwist.envelope import Deferral, Outcome
from mtatwist.transports.failures import ConnectFailed

Patch = pytest.MonkeyPatch
BODY = b"Subject: x\r\n\r\nhello\r\n"
STAGES = ("MAIL", "RCPT", "DATA", ".")

both = pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["lockstep", "pipelining"])


def at(stage: str, said: str) -> Peer:
    """A server that says this at that stage."""
    return Peer(lambda command: said if command.startswith(stage) else None)


def deferred(outcomes: list[Outcome]) -> str:
    """All are deferrals; the text of the first."""
    assert {type(outcome) for outcome in outcomes} == {Deferral}
    return str(outcomes[0].reply)


GARBAGE = {
    "no code": "hello",
    "two digits": "25 ok",
    "a code of no class": "999 ok",
    "no separator": "250ok",
    "not even text": "\0\1\2",
    "nothing": "",
    "endless line": "250 " + "x" * 3000,
    "endless reply": "\r\n".join(["250-x"] * 101),
}


@both
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("stage", STAGES)
def test_garbage_is_no_success(monkeypatch: Patch, stage: str, garbage: str, extensions: tuple[str, ...]) -> None:
    peer = at(stage, garbage)
    peer.extensions = extensions
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert deferred(client.over(delivery, message(BODY)))
    assert peer.aborted
    assert not delivery.usable


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("stage", ["greeting", "EHLO"])
def test_garbage_instead_of_a_welcome(monkeypatch: Patch, stage: str, garbage: str) -> None:
    peer = Peer(greeting=garbage) if stage == "greeting" else at(stage, garbage)
    with pytest.raises(ConnectFailed):
        Client(monkeypatch, peer).connect()
    assert peer.aborted


def test_an_endless_line_is_not_collected(monkeypatch: Patch) -> None:
    peer = Peer(greeting=None)
    connecting = Client(monkeypatch, peer).connecting()
    sent = 0
    while not peer.gone:
        peer.feed(b"x" * 100)
        sent += 100
    assert sent < 3000
    with pytest.raises(ConnectFailed, match="too long"):
        now(connecting)


@both
@pytest.mark.parametrize("stage", STAGES)
def test_lost_in_any_phase_is_tried_again(monkeypatch: Patch, stage: str, extensions: tuple[str, ...]) -> None:
    peer = at(stage, "vanish")
    peer.extensions = extensions
    assert "connection lost" in deferred(Client(monkeypatch, peer).deliver(message(BODY, "c@d.test", "e@d.test")))


@pytest.mark.parametrize("stage", ["greeting", "EHLO"])
def test_lost_before_the_first_message(monkeypatch: Patch, stage: str) -> None:
    peer = Peer(greeting=None) if stage == "greeting" else at(stage, "vanish")
    connecting = Client(monkeypatch, peer).connecting()
    peer.vanish()
    with pytest.raises(ConnectFailed, match="connection lost"):
        now(connecting)


def test_what_was_said_before_the_end_counts(monkeypatch: Patch) -> None:
    said = {"RCPT TO:<gone@d.test>": "550 5.1.1 no", "RCPT TO:<c@d.test>": "vanish"}
    outcomes = Client(monkeypatch, Peer(said.get)).deliver(message(BODY, "gone@d.test", "c@d.test"))
    assert [outcome.reply.code for outcome in outcomes] == [550, 451]


@both
@pytest.mark.parametrize("stage", STAGES)
def test_421_ends_the_connection_in_any_state(monkeypatch: Patch, stage: str, extensions: tuple[str, ...]) -> None:
    """The server leaves after it, as it must."""
    left = False

    def say(command: str) -> str | None:
        nonlocal left
        if left:
            return "vanish"
        left = command.startswith(stage)
        return "421 4.3.2 going down" if left else None

    peer = Peer(say, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert "421 4.3.2 going down" in deferred(client.over(delivery, message(BODY)))
    assert not delivery.usable


@both
@pytest.mark.parametrize("stage", ["EHLO", *STAGES])
def test_a_reply_more_than_is_owed_ends_it(monkeypatch: Patch, stage: str, extensions: tuple[str, ...]) -> None:
    """Whatever stands ahead would be taken for the answer to the next command."""
    good = Peer(extensions=extensions)
    peer = Peer(
        lambda command: good.answer(command) + "\r\n250 2.0.0 and another" if command.startswith(stage) else None,
        extensions=extensions,
    )
    client = Client(monkeypatch, peer)
    if stage == "EHLO":
        delivery = client.connect()
    else:
        delivery = client.connect()
        outcomes = client.over(delivery, message(BODY))
        if stage == ".":
            # It had been taken; the next message does not get this server's leftovers.
            assert outcomes[0].reply.code == 250
        else:
            deferred(outcomes)
    if delivery.usable:
        assert stage == "EHLO"
        deferred(client.over(delivery, message(BODY)))
    assert peer.aborted


@both
def test_replies_may_come_byte_by_byte(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    whole = peer.feed
    monkeypatch.setattr(peer, "feed", lambda data: [whole(data[at : at + 1]) for at in range(len(data))])
    peer.extensions = (*extensions, "SIZE 100000")
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, "c@d.test", "e@d.test"))
    assert [outcome.reply.code for outcome in outcomes] == [250, 250]
    assert peer.messages == [BODY]


# Each time limit: what the server is silent at, and how the delivery gets there.

SILENT_AT = {
    "greeting": "",
    "ehlo": "EHLO",
    "mail": "MAIL",
    "rcpt": "RCPT",
    "data_init": "DATA",
    "data_block": ".",
    "data_done": ".",
    "quit": "QUIT",
}


@pytest.mark.parametrize("seconds", [3.0, 300.0])
@pytest.mark.parametrize("name", SILENT_AT)
def test_each_time_limit(monkeypatch: Patch, name: str, seconds: float) -> None:
    """A silent server is left after exactly this time, with a deferral."""
    timeouts = dataclasses.replace(TIMEOUTS, **{name: seconds})
    silent = SILENT_AT[name]
    peer = Peer(
        lambda command: "silence" if silent and command.startswith(silent) else None,
        greeting=None if name == "greeting" else "220 hi",
    )
    client = Client(monkeypatch, peer, timeouts=timeouts)
    pending = client.connecting()
    if name not in ("greeting", "ehlo"):
        delivery = now(pending)
        peer.slow = name == "data_block"
        if name == "quit":
            delivery.close()
            assert peer.closing
        else:
            pending = client.delivering(delivery, message(BODY))
    client.clock.advance(seconds - 0.1)
    assert not peer.gone
    client.clock.advance(0.2)
    assert peer.aborted
    if name in ("greeting", "ehlo"):
        with pytest.raises(ConnectFailed, match="no reply in time"):
            now(pending)
    elif name != "quit":
        why = "does not take" if name == "data_block" else "no reply in time"
        assert why in deferred(now(pending))
    assert not client.clock.getDelayedCalls()


def test_the_time_limits_end_with_the_wait(monkeypatch: Patch) -> None:
    peer = Peer()
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    assert not client.clock.getDelayedCalls()
    delivery.close()
    peer.lose()
    assert not client.clock.getDelayedCalls()


# TLS, up to the handshake (which integration tests do for real).


def test_tls_is_taken_when_it_is_offered(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("STARTTLS",))
    client = Client(monkeypatch, peer, tls="may")
    outcomes = client.deliver(message(BODY))
    assert outcomes[0].reply.code == 250
    assert client.contexts == [("next.test", False)]
    assert peer.tls is not None
    assert peer.heard[:4] == ["EHLO mta.test", "STARTTLS", "EHLO mta.test", "MAIL FROM:<a@b.test>"]


def test_none_means_none(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("STARTTLS",))
    Client(monkeypatch, peer, tls="none").deliver(message(BODY))
    assert peer.tls is None


def test_verify_asks_for_the_name(monkeypatch: Patch) -> None:
    client = Client(monkeypatch, Peer(extensions=("STARTTLS",)), tls="verify")
    client.connect()
    assert client.contexts == [("next.test", True)]


@pytest.mark.parametrize("tls", ["require", "verify"])
def test_no_tls_no_mail_where_it_is_required(monkeypatch: Patch, tls: str) -> None:
    peer = Peer()
    with pytest.raises(ConnectFailed, match=r"4\.7\.4") as caught:
        Client(monkeypatch, peer, tls=tls).connect()
    assert isinstance(caught.value.outcome, Deferral)
    assert not any(line.startswith("MAIL") for line in peer.heard)


@pytest.mark.parametrize("said", ["454 4.7.0 not now", "501 5.5.4 what"])
@pytest.mark.parametrize("tls", ["may", "require", "verify"])
def test_starttls_refused(monkeypatch: Patch, tls: str, said: str) -> None:
    peer = Peer(lambda command: said if command == "STARTTLS" else None, extensions=("STARTTLS",))
    client = Client(monkeypatch, peer, tls=tls)
    if tls == "may":
        assert client.deliver(message(BODY))[0].reply.code == 250
        assert client.metrics.tls_fallbacks.value == 1
    else:
        with pytest.raises(ConnectFailed) as caught:
            client.connect()
        assert isinstance(caught.value.outcome, Deferral)
        assert not any(line.startswith("MAIL") for line in peer.heard)
    assert peer.tls is None


@pytest.mark.parametrize("tls", ["may", "require", "verify"])
@pytest.mark.parametrize("behind", ["250 injected", "2", "250-x"])
def test_text_behind_the_starttls_reply_is_an_attack(monkeypatch: Patch, tls: str, behind: str) -> None:
    peer = Peer(lambda command: "220 go on\r\n" + behind if command == "STARTTLS" else None, extensions=("STARTTLS",))
    with pytest.raises(ConnectFailed):
        Client(monkeypatch, peer, tls=tls).connect()
    assert peer.tls is None
    assert peer.aborted


@pytest.mark.parametrize("tls", ["may", "require", "verify"])
def test_a_failed_handshake(monkeypatch: Patch, tls: str) -> None:
    """Under "may" the message goes in clear over a second connection, else it waits, saying why."""
    first, second = Peer(extensions=("STARTTLS",)), Peer(extensions=("STARTTLS",))
    client = Client(monkeypatch, first, second, tls=tls)
    client.peers = [first]
    heard = 0

    def say(command: str) -> str | None:
        nonlocal heard
        heard += command.startswith("EHLO")
        return "silence" if heard == 2 else None

    first.say = say
    connecting = client.connecting()
    assert waits(connecting)
    first.lose(RuntimeError("certificate verify failed"))
    if tls == "may":
        second.begin()
        client.peers = [second]
        client.run()
        assert now(connecting).usable
        assert second.tls is None
    else:
        with pytest.raises(ConnectFailed, match=r"4\.7\.5.*certificate verify failed"):
            now(connecting)


@pytest.mark.parametrize("tls", ["may", "verify"])
def test_a_name_that_tls_cannot_ask_for(monkeypatch: Patch, tls: str) -> None:
    """It may come from a stranger's MX record. No connection is left behind."""
    first, second = Peer(extensions=("STARTTLS",)), Peer(extensions=("STARTTLS",))

    def fails(host: str, verify: bool) -> object:
        raise ValueError("not a host name")

    client = Client(monkeypatch, first, second, tls=tls, context=fails)
    connecting = client.connecting()
    assert first.aborted
    if tls == "may":
        assert now(connecting).usable
        assert client.metrics.tls_fallbacks.value == 1
    else:
        with pytest.raises(ConnectFailed, match=r"4\.7\.5.*not a host name"):
            now(connecting)


def test_a_connect_that_is_given_up_leaves_no_connection(monkeypatch: Patch) -> None:
    peer = Peer(greeting=None)
    client = Client(monkeypatch, peer)
    connecting = client.connecting()
    connecting.addErrback(lambda _: None)
    connecting.cancel()
    assert peer.gone
    assert not client.clock.getDelayedCalls()
