"""Servers that say anything at any time: what is called delivered was delivered, and everything ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transports.peer import Client, Peer, message
from twisted.internet.defer import Deferred

from mtatwist.envelope import Deferral, Delivered, Failure
from mtatwist.transports.failures import ConnectFailed, Stale

BODY = b"Subject: x\r\n\r\n.MAIL FROM:<evil@b.test>\r\n.\r\nRCPT TO:<evil@d.test>\r\nDATA\r\n"

TWICE = ["250 one\r\n250 two", "354 go on\r\n250 ok", "250 ok\r\n354 go on", "550 no\r\n421 and bye"]
"""Two replies to one command. Behind pipelined commands nobody can tell what such a server means."""

SAYINGS = st.sampled_from(
    [
        None,
        None,
        None,
        "250 2.0.0 ok",
        "250-2.0.0 one\r\n250 2.0.0 two",
        "354 go on",
        "450 4.2.1 later",
        "550 5.1.1 no",
        "421 4.3.2 bye",
        "babble",
        "",
        "250",
        "250-",
        "200 \xff\x00",
        "silence",
        "vanish",
        *TWICE,
    ]
)
EXTENSIONS = st.sets(st.sampled_from(["PIPELINING", "CHUNKING", "DSN", "SIZE 100", "SIZE 9", "8BITMIME", "SIZE"]))


class Server(Peer):
    """Says these things, one for each command, and then what a good server says."""

    def __init__(self, sayings: list[str | None], extensions: set[str], lmtp: bool) -> None:
        self.said: list[tuple[str, str]] = []
        left = itertools.chain(sayings, itertools.repeat(None))

        def say(command: str) -> str | None:
            if command[:4] in ("EHLO", "LHLO"):
                return None
            said = next(left)
            self.said.append((command, self.answer(command) if said is None else said))
            return said

        super().__init__(say, extensions=tuple(sorted(extensions)), lmtp=lmtp)


@settings(max_examples=300, deadline=None)
@given(st.lists(SAYINGS, max_size=12), EXTENSIONS, st.booleans(), st.integers(1, 3))
def test_what_is_delivered_was_delivered(
    sayings: list[str | None], extensions: set[str], lmtp: bool, recipients: int
) -> None:
    server = Server(sayings, extensions, lmtp)
    with pytest.MonkeyPatch.context() as patch:
        client = Client(patch, server)
        delivery = client.connect()
        for _ in range(2):
            if not delivery.usable:
                break
            before = len(server.messages)
            what = message(BODY, *(f"{number}@d.test" for number in range(recipients)))
            pending: Deferred[Any] = client.delivering(delivery, what)
            results: list[Any] = []
            pending.addBoth(results.append)
            for _ in range(50):
                if results:
                    break
                client.clock.advance(30)
                client.run()
            assert results, "it never ends"
            if hasattr(results[0], "check"):
                assert results[0].check(Stale)
                assert not delivery.usable
                break
            outcomes = results[0]
            assert len(outcomes) == recipients
            came = server.messages[before:]
            if "PIPELINING" in extensions and any(reply in TWICE for _, reply in server.said):
                break
            # Nothing but our message, and that at most once; an empty one where nobody was left to send it for.
            assert came in ([], [BODY], [b""])
            assert not any("evil" in line for line in server.heard)
            said = [reply for command, reply in server.said if command[:1] == "." or command.startswith("BDAT")]
            for outcome in outcomes:
                if isinstance(outcome, Delivered):
                    assert came == [BODY]
                    assert any(reply.startswith("2") for reply in said)
                elif isinstance(outcome, Failure):
                    assert outcome.reply.code == 552 or any("550" in reply for _, reply in server.said)
                else:
                    assert isinstance(outcome, Deferral)
        delivery.close()
        server.lose()
        assert not client.clock.getDelayedCalls()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"220 hi\r\n", b"250 ok\r\n", b"250-STARTTLS\r\n"]), max_size=20)
)
def test_any_octets_instead_of_a_welcome(pieces: list[bytes]) -> None:
    server = Peer(lambda command: "silence", greeting=None)
    with pytest.MonkeyPatch.context() as patch:
        client = Client(patch, server, server, server)
        connecting: Deferred[Any] = Deferred.fromCoroutine(client.transport.connect(client.next_hop))
        for piece in pieces:
            server.feed(piece)
        for _ in range(50):
            client.clock.advance(30)
        results: list[Any] = []
        connecting.addBoth(results.append)
        assert results, "it never ends"
        if hasattr(results[0], "check"):
            assert results[0].check(ConnectFailed)
        else:
            results[0].close()
        server.lose()
        assert not client.clock.getDelayedCalls()
