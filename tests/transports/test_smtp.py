"""Delivery by SMTP, and the outcome of each recipient."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transports.peer import HOST, Client, Peer, message, now, waits

from mtatwist.envelope import Deferral, Delivered, Failure, Message
from mtatwist.smtp.address import AddressError, parse_path
from mtatwist.smtp.reply import Reply
from mtatwist.transports.failures import ConnectFailed, Stale

PIPELINING = ("PIPELINING", "SIZE 1000000", "8BITMIME")
BODY = b"Subject: x\r\n\r\n.dot\r\n..\r\n.\r\nend\r\n"
Patch = pytest.MonkeyPatch

both = pytest.mark.parametrize("extensions", [(), PIPELINING], ids=["lockstep", "pipelining"])


def replies(outcomes: list[Any]) -> list[tuple[type, int, str]]:
    return [(type(outcome), outcome.reply.code, outcome.reply.enhanced) for outcome in outcomes]


@both
def test_the_message_arrives_as_it_was(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    what = message(BODY, "c@d.test", "e@f.test")
    what.envelope.body_type = "8BITMIME"
    outcomes = Client(monkeypatch, peer).deliver(what)
    assert outcomes == [Delivered(Reply(250, "2.0.0", "fine"), HOST)] * 2
    assert peer.messages == [BODY]
    parameters = f" SIZE={len(BODY)} BODY=8BITMIME" if extensions else ""
    assert peer.heard == [
        "EHLO mta.test",
        "MAIL FROM:<a@b.test>" + parameters,
        "RCPT TO:<c@d.test>",
        "RCPT TO:<e@f.test>",
        "DATA",
    ]


def test_pipelined_commands_leave_together(monkeypatch: Patch) -> None:
    peer = Peer(extensions=PIPELINING)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.peers = []
    client.delivering(delivery, message())
    assert peer.written.endswith(b"RCPT TO:<c@d.test>\r\nDATA\r\n")


@both
def test_a_connection_takes_several_messages_and_quits(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    for number in range(3):
        assert replies(client.over(delivery, message(b"%d\r\n" % number))) == [(Delivered, 250, "2.0.0")]
        assert delivery.usable
    delivery.close()
    assert not delivery.usable
    assert peer.written.endswith(b"QUIT\r\n")
    assert peer.closing
    assert peer.messages == [b"0\r\n", b"1\r\n", b"2\r\n"]


@both
def test_each_recipient_has_its_own_reply(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    said = {"RCPT TO:<gone@d.test>": "550-5.1.1 no\r\n550 such user", "RCPT TO:<busy@d.test>": "450 later"}
    peer = Peer(said.get, extensions=extensions)
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, "gone@d.test", "good@d.test", "busy@d.test"))
    assert replies(outcomes) == [(Failure, 550, "5.1.1"), (Delivered, 250, "2.0.0"), (Deferral, 450, "")]
    assert "such user" in outcomes[0].reply.text
    assert peer.messages == [BODY]


@both
def test_a_refused_message_is_refused_for_those_who_were_accepted(
    monkeypatch: Patch, extensions: tuple[str, ...]
) -> None:
    said = {"RCPT TO:<gone@d.test>": "550 5.1.1 no", ".": "451 4.3.0 full"}
    peer = Peer(said.get, extensions=extensions)
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, "gone@d.test", "good@d.test"))
    assert replies(outcomes) == [(Failure, 550, "5.1.1"), (Deferral, 451, "4.3.0")]


@both
@pytest.mark.parametrize(
    ("said", "expected"), [("550 5.7.1 no", Failure), ("450 4.7.1 later", Deferral), ("552 too big", Failure)]
)
def test_mail_refused_is_the_outcome_of_all(
    monkeypatch: Patch, extensions: tuple[str, ...], said: str, expected: type
) -> None:
    peer = Peer(
        lambda command: said if command[:4] == "MAIL" else "503 5.5.1 first MAIL" if command[:4] != "EHLO" else None,
        extensions=extensions,
    )
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, "c@d.test", "e@d.test"))
    assert replies(outcomes) == [(expected, int(said[:3]), said[4:9] if "." in said else "")] * 2
    assert peer.messages == []


@both
@pytest.mark.parametrize("end", ["250 2.0.0 an empty message, thanks", "554 5.5.1 no valid recipients"])
def test_with_no_recipient_left_nothing_is_sent(monkeypatch: Patch, extensions: tuple[str, ...], end: str) -> None:
    peer = Peer(
        lambda command: "550 5.1.1 no" if command[:4] == "RCPT" else end if command == "." else None,
        extensions=extensions,
    )
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    outcomes = client.over(delivery, message(BODY, "c@d.test", "e@d.test"))
    assert replies(outcomes) == [(Failure, 550, "5.1.1")] * 2
    # A pipelining server says 354 anyway: it gets the end of an empty message (RFC 2920 §3.1).
    assert peer.messages == ([b""] if extensions else [])
    assert delivery.usable


@both
@pytest.mark.parametrize("end", ["250 2.0.0 got it", "354 more"])
def test_what_is_no_354_is_no_invitation(monkeypatch: Patch, extensions: tuple[str, ...], end: str) -> None:
    """250 where 354 is due: the message was not sent, so it was not taken; 354 to the end of data neither."""
    stage = "DATA" if end.startswith("250") else "."
    peer = Peer(lambda command: end if command == stage else None, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    outcomes = client.over(delivery, message(BODY))
    assert replies(outcomes) == [(Deferral, 451, "4.5.0")]
    if stage == "DATA":
        assert peer.messages == []
        assert not delivery.usable


@both
@pytest.mark.parametrize(("said", "expected"), [("554 5.6.0 no", Failure), ("451 4.3.0 later", Deferral)])
def test_data_refused_is_reset(monkeypatch: Patch, extensions: tuple[str, ...], said: str, expected: type) -> None:
    peer = Peer(lambda command: said if command == "DATA" else None, extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert replies(client.over(delivery, message(BODY))) == [(expected, int(said[:3]), said[4:9])]
    assert peer.heard[-1] == "RSET"
    assert delivery.usable


def test_a_server_that_cannot_reset_gets_no_further_message(monkeypatch: Patch) -> None:
    said = {"DATA": "451 4.3.0 later", "RSET": "500 what"}
    client = Client(monkeypatch, Peer(said.get))
    delivery = client.connect()
    client.over(delivery, message(BODY))
    assert not delivery.usable


@pytest.mark.parametrize("said", ["552 too many recipients", "552 5.5.3 too many recipients"])
@both
def test_552_for_a_recipient_means_later(monkeypatch: Patch, extensions: tuple[str, ...], said: str) -> None:
    peer = Peer(lambda command: said if "e@d" in command else None, extensions=extensions)
    outcomes = Client(monkeypatch, peer).deliver(message(BODY, "c@d.test", "e@d.test"))
    assert replies(outcomes) == [(Delivered, 250, "2.0.0"), (Deferral, 452, "4.5.3")]


@both
def test_552_for_a_full_mailbox_is_for_good(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    peer = Peer(lambda command: "552 5.2.2 full" if command[:4] == "RCPT" else None, extensions=extensions)
    assert replies(Client(monkeypatch, peer).deliver(message(BODY))) == [(Failure, 552, "5.2.2")]


def test_too_large_for_the_next_hop_fails_unsent(monkeypatch: Patch) -> None:
    peer = Peer(extensions=(f"SIZE {len(BODY) - 1}",))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    assert replies(client.over(delivery, message(BODY, "c@d.test", "e@d.test"))) == [(Failure, 552, "5.3.4")] * 2
    assert peer.heard == ["EHLO mta.test"]
    assert replies(client.over(delivery, message(b"small\r\n"))) == [(Delivered, 250, "2.0.0")]


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many"])
def test_a_size_without_a_limit_is_none(monkeypatch: Patch, size: str) -> None:
    assert replies(Client(monkeypatch, Peer(extensions=(size,))).deliver(message(BODY)))[0][0] is Delivered


def test_helo_where_ehlo_is_unknown(monkeypatch: Patch) -> None:
    peer = Peer(lambda command: "502 5.5.1 what" if command[:4] == "EHLO" else None)
    assert replies(Client(monkeypatch, peer).deliver(message(BODY))) == [(Delivered, 250, "2.0.0")]
    assert peer.heard[:3] == ["EHLO mta.test", "HELO mta.test", "MAIL FROM:<a@b.test>"]


def test_the_null_reverse_path(monkeypatch: Patch) -> None:
    peer = Peer()
    Client(monkeypatch, peer).deliver(message(BODY, reverse_path=""))
    assert "MAIL FROM:<>" in peer.heard


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ("554 5.7.1 go away", {}),
        ("421 4.3.2 busy", {}),
        ("220 hi", {"EHLO mta.test": "421 4.3.2 busy"}),
        ("220 hi", {"EHLO mta.test": "550 no", "HELO mta.test": "550 5.7.1 no"}),
    ],
)
def test_a_server_that_wants_nobody_is_no_verdict(monkeypatch: Patch, greeting: str, said: dict[str, str]) -> None:
    peer = Peer(said.get, greeting=greeting)
    with pytest.raises(ConnectFailed) as caught:
        Client(monkeypatch, peer).connect()
    assert isinstance(caught.value.outcome, Deferral)
    assert peer.written.endswith(b"QUIT\r\n")
    assert peer.closing


@both
def test_a_kept_connection_that_is_gone_is_stale(monkeypatch: Patch, extensions: tuple[str, ...]) -> None:
    """The message has not been heard of: another connection may try it at once."""
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    pending = client.delivering(delivery, message(BODY)) if waits_after(peer) else None
    assert pending is not None
    peer.vanish()
    with pytest.raises(Stale):
        now(pending)


def waits_after(peer: Peer) -> bool:
    """From now on the server is silent."""
    peer.say = lambda command: "silence"
    return True


@both
def test_a_kept_connection_on_which_the_server_says_farewell_is_stale(
    monkeypatch: Patch, extensions: tuple[str, ...]
) -> None:
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    peer.say = lambda command: "421 4.4.2 timeout" if command[:4] == "MAIL" else "vanish"
    with pytest.raises(Stale):
        client.over(delivery, message(BODY))


def test_an_unasked_421_ends_a_kept_connection(monkeypatch: Patch) -> None:
    peer = Peer()
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    peer.feed(b"421 4.4.2 idle for too long\r\n")
    assert not delivery.usable
    with pytest.raises(Stale):
        client.over(delivery, message(BODY))


@both
def test_a_kept_connection_on_which_something_was_said_unasked_is_stale(
    monkeypatch: Patch, extensions: tuple[str, ...]
) -> None:
    """What the server did wrong after one message is no reason to let the next one wait."""
    peer = Peer(extensions=extensions)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    client.over(delivery, message(BODY))
    peer.feed(b"250 half a reply")
    with pytest.raises(Stale):
        client.over(delivery, message(BODY))
    assert len(peer.messages) == 1


def large(client: Client, size: int) -> Message:
    """A message that is in the spool only."""
    body = (b"." * 77 + b"\r\n") * (size // 79)
    what = message(body)
    client.spool.messages[1] = what
    return Message(1, what.envelope, len(body))


def test_a_large_body_waits_for_a_peer_that_does_not_read(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    what = large(client, 3_000_000)
    reads: list[int] = []
    read = client.spool.read
    client.spool.read = lambda message, offset, size: reads.append(offset) or read(message, offset, size)
    peer.say = lambda command: "silence" if command == "DATA" else None
    pending = client.delivering(delivery, what)
    assert not reads
    peer.slow, peer.say = True, lambda command: None
    peer.feed(b"354 go on\r\n")
    for expected in range(1, 13):
        assert len(reads) == expected, "one part is out, and no other is read before the peer has taken it"
        peer.protocol.resumeProducing()
    peer.slow = False
    peer.protocol.resumeProducing()
    peer.expect_data()
    client.run()
    assert replies(now(pending)) == [(Delivered, 250, "2.0.0")]
    assert peer.messages == [client.spool.messages[1].body]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("reply", [b"250 2.0.0 got it\r\n", b"250", b"250-a\r\n"])
def test_success_before_the_end_of_the_message_is_none(monkeypatch: Patch, in_memory: bool, reply: bytes) -> None:
    peer = Peer(lambda command: "silence" if command == "DATA" else None)
    client = Client(monkeypatch, peer)
    delivery = client.connect()
    what = large(client, 600_000)
    if in_memory:
        what.body = client.spool.messages[1].body
    pending = client.delivering(delivery, what)
    peer.slow = True
    peer.feed(b"354 go on\r\n")
    assert waits(pending)
    peer.feed(reply)
    if not peer.gone:
        peer.protocol.resumeProducing()
    assert replies(now(pending)) == [(Deferral, 451, "4.4.2")]
    assert not delivery.usable


def test_a_body_that_is_shorter_than_it_was_is_not_ended(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    client = Client(monkeypatch, peer)
    what = large(client, 600_000)
    what.size += 1
    assert replies(client.deliver(what)) == [(Deferral, 451, "4.3.0")]
    assert peer.aborted
    assert peer.messages == []


def test_a_spool_that_cannot_be_read_cuts_the_message(monkeypatch: Patch) -> None:
    peer = Peer(extensions=("8BITMIME",))
    client = Client(monkeypatch, peer)
    what = large(client, 600_000)
    del client.spool.messages[1]
    assert replies(client.deliver(what)) == [(Deferral, 451, "4.3.0")]
    assert peer.aborted
    assert peer.messages == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.\r\n", b"\x00\xff", b"x" * 300]), max_size=40),
    st.integers(1, 700),
    st.booleans(),
)
def test_any_message_arrives_whole(pieces: list[bytes], part: int, in_memory: bool) -> None:
    body = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtatwist.transports.body.READ_SIZE", part)
        peer = Peer(extensions=("8BITMIME",))
        client = Client(patch, peer)
        what = message(body)
        client.spool.messages[1] = what
        outcomes = client.deliver(what if in_memory else Message(1, what.envelope, len(body)))
    assert replies(outcomes) == [(Delivered, 250, "2.0.0")]
    assert peer.messages == [body if body.endswith(b"\r\n") or not body else body + b"\r\n"]


_AWKWARD = st.text(st.sampled_from('ab"\\ .@<>\r\n\t\x00\x7f\x1fé-_[]:'), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(_AWKWARD, _AWKWARD, st.sampled_from(["{}@{}", '"{}"@{}']))
def test_no_address_from_the_parser_has_a_control_character(local: str, domain: str, form: str) -> None:
    try:
        address, _ = parse_path(f"<{form.format(local, domain)}>")
    except AddressError:
        return
    peer = Peer(extensions=("SMTPUTF8",))
    with pytest.MonkeyPatch.context() as patch:
        Client(patch, peer).deliver(message(b"", str(address), reverse_path=str(address)))
    lines = peer.written.split(b"\r\n")
    assert not any(octet < 0x20 or octet == 0x7F for line in lines for octet in line)
    assert len(peer.heard) == 4
    assert f"RCPT TO:<{address}>" in peer.heard


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)])
@pytest.mark.parametrize("hostile", ["a@b.test>\r\nRCPT TO:<evil@b.test", "a\n@b.test", "a\x7f@b.test", "a\0@b.test"])
def test_a_hostile_address_from_elsewhere_is_not_written(
    monkeypatch: Patch, hostile: str, extensions: tuple[str, ...]
) -> None:
    for what in (message(BODY, hostile), message(BODY, reverse_path=hostile)):
        peer = Peer(extensions=extensions)
        assert replies(Client(monkeypatch, peer).deliver(what)) == [(Deferral, 451, "4.4.2")]
        assert hostile.encode() not in peer.written
        assert not any("evil" in line for line in peer.heard)
