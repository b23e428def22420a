"""Peers that are slow, silent or deaf: each is ended within its limit, and nobody else notices."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from rigs import certificates
from rigs.client import Address, Client
from rigs.content import HEAD
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

PACE = 1.0
"""Seconds between two octets of a slow peer: a minute, against limits that are as much shorter."""

LIMITS = {"command": "3s", "data_init": "3s", "data_block": "3s", "session": "9s"}
PATIENCE = 60.0

SLOW = "421 4.4.2"
CUT = "cut"
CLOSED = "closed"

ENVELOPE = ("EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<b@sink.test>")

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))
"""The beginning of a TLS ClientHello."""


def end_of(peer: socket.socket) -> str:
    """What the server said before it closed (the last reply's code), or how it ended."""
    peer.settimeout(PATIENCE)
    heard = b""
    try:
        while data := peer.recv(65536):
            heard = (heard + data)[-1000:]
    except TimeoutError:
        return "never ended"
    except OSError:
        return CUT
    last = heard.rstrip(b"\r\n").rpartition(b"\n")[2][:9]
    return last.decode() if last.startswith(b"421") else CLOSED


def drip(peer: socket.socket, data: bytes) -> str:
    """Send an octet at a time, until the server has had enough."""
    try:
        for at in range(len(data)):
            peer.sendall(data[at : at + 1])
            if select.select([peer], [], [], PACE)[0]:
                break
    except OSError:
        return CUT
    return end_of(peer)


def after(*commands: str, then: Callable[[socket.socket], str]) -> Callable[[Address], str]:
    """Be good up to here."""

    def play(address: Address) -> str:
        client = Client(address)
        with contextlib.closing(client):
            for command in commands:
                assert client.command(command).code in (220, 250, 354)
            return then(client.socket)

    return play


def at_once(then: Callable[[socket.socket], str]) -> Callable[[Address], str]:
    """Don't even wait for the greeting."""

    def play(address: Address) -> str:
        with socket.create_connection(address) as peer:
            return then(peer)

    return play


def half_close(peer: socket.socket) -> str:
    peer.shutdown(socket.SHUT_WR)
    return end_of(peer)


def chatter(peer: socket.socket) -> str:
    """A command each second: none is late."""
    peer.settimeout(PATIENCE)
    for _ in range(60):
        peer.sendall(b"NOOP\r\n")
        heard = peer.recv(1000)
        if heard.startswith(b"421") or not heard:
            return heard[:9].decode() or CLOSED
        select.select([peer], [], [], PACE)
    return "never ended"


def deaf(peer: socket.socket) -> str:
    """Say much and read nothing."""
    peer.setblocking(False)
    watch = select.poll()
    watch.register(peer, select.POLLOUT)
    deadline = time.monotonic() + PATIENCE
    sent = 0
    while time.monotonic() < deadline:
        for _, what in watch.poll(100):
            if what & (select.POLLHUP | select.POLLERR):
                return CUT
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                sent += peer.send(b"HELP\r\n" * 1000)
        assert sent < 20_000_000, "it reads on and on"
        if sent:
            # What can't be sent now may never be: look for the end only.
            watch.modify(peer, select.POLLOUT if deadline - time.monotonic() > PATIENCE - 2 else 0)
    return "never ended"


def deaf_in_tls(context: ssl.SSLContext) -> Callable[[socket.socket], str]:
    def play(peer: socket.socket) -> str:
        secured = context.wrap_socket(peer, server_hostname="mta.test")
        return deaf(secured)

    return play


def small_window(address: Address) -> str:
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(address)
        return deaf(peer)


PLAIN: dict[str, tuple[Callable[[Address], str], str]] = {
    "says nothing": (at_once(end_of), SLOW),
    "a command by the octet": (at_once(lambda peer: drip(peer, b"EHLO client.example.test\r\n")), SLOW),
    "a command by the octet, in a transaction": (
        after(*ENVELOPE, then=lambda peer: drip(peer, b"RCPT TO:<other@sink.test>\r\n")),
        SLOW,
    ),
    "silent after EHLO": (after("EHLO client.test", then=end_of), SLOW),
    "silent after DATA": (after(*ENVELOPE, "DATA", then=end_of), SLOW),
    "data by the octet": (after(*ENVELOPE, "DATA", then=lambda peer: drip(peer, HEAD * 10)), SLOW),
    "a chunk by the octet": (
        after(*ENVELOPE, then=lambda peer: peer.sendall(b"BDAT 1000 LAST\r\n") or drip(peer, HEAD * 10)),  # type: ignore[func-returns-value]
        SLOW,
    ),
    "commands without end": (after("EHLO client.test", then=chatter), SLOW),
    "half closed": (after("EHLO client.test", then=half_close), CLOSED),
    "half closed in data": (after(*ENVELOPE, "DATA", then=half_close), CLOSED),
    "deaf": (small_window, CUT),
}

STARTTLS: dict[str, tuple[Callable[[Address], str], str]] = {
    "no handshake": (after("EHLO client.test", "STARTTLS", then=end_of), CUT),
    "a handshake by the octet": (after("EHLO client.test", "STARTTLS", then=lambda peer: drip(peer, HELLO)), CUT),
}

IMPLICIT: dict[str, tuple[Callable[[Address], str], str]] = {
    "no handshake": (at_once(end_of), CUT),
    "a handshake by the octet": (at_once(lambda peer: drip(peer, HELLO)), CUT),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


def three_ways(port: int, files: certificates.Files, **tables: Any) -> Config:
    """A listener for each way to do TLS."""
    return relaying_to(
        port,
        listen=[
            {"endpoint": f"tcp:0:interface=127.0.0.{number}", "role": "mx", "tls": tls}
            for number, tls in enumerate(("none", "starttls", "implicit"), 1)
        ],
        tls={"certificate": str(files.certificate), "private_key": str(files.key)},
        timeouts=LIMITS,
        **tables,
    )


def transactions(address: Address, count: int = 40) -> Iterator[float]:
    """How long each took, in seconds."""
    for _ in range(count):
        started = time.monotonic()
        with Client(address) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["good@sink.test"], HEAD).code == 250
        yield time.monotonic() - started


@pytest.mark.fresh_start
def test_each_is_ended_and_nobody_else_notices(make_mta: MakeMta, sink: Sink, files: certificates.Files) -> None:
    context = ssl.create_default_context(cafile=str(files.authority))
    starttls = {**STARTTLS, "deaf": (after("EHLO client.test", "STARTTLS", then=deaf_in_tls(context)), CUT)}
    with make_mta(three_ways(sink.port, files)) as mta:
        addresses = [mta.address("mx", number) for number in range(3)]
        alone = statistics.median(transactions(addresses[0]))
        at_rest, memory = mta.process.descriptors(), mta.process.memory()
        with ThreadPoolExecutor(64) as pool:
            played: dict[str, tuple[Future[str], str]] = {
                f"{kind}: {name}, {copy}": (pool.submit(play, address), expected)
                for kind, address, peers in zip(
                    ("plain", "starttls", "implicit"), addresses, (PLAIN, starttls, IMPLICIT), strict=True
                )
                for name, (play, expected) in peers.items()
                for copy in range(3)
            }
            wait_until(lambda: mta.process.descriptors() >= at_rest + 20, 30, "they have come")
            beside = statistics.median(transactions(addresses[0]))
            ended = {name: future.result(2 * PATIENCE) for name, (future, _) in played.items()}
        assert ended == {name: expected for name, (_, expected) in played.items()}
        wait_until(lambda: mta.process.descriptors() <= at_rest + 8, 30, "no descriptor is left behind")
        assert mta.process.memory() - memory < 32 << 20
        slow = sum(expected == SLOW for _, expected in played.values())
        assert sum(event["event"] == "timeout" for event in mta.events()) >= slow
        # Loosely: they share two cores with all else that runs here.
        assert beside < max(20 * alone, 1.0)
        wait_until(lambda: mta.queued() == 0, 60, "the queue is empty")
    assert {arrival.forward_paths for arrival in sink.arrivals} == {("good@sink.test",)}


def test_who_is_turned_away_may_not_stay_either(make_mta: MakeMta, sink: Sink, files: certificates.Files) -> None:
    """Over implicit TLS nothing can be said before the handshake: who never makes it is cut all the same."""
    with make_mta(three_ways(sink.port, files, limits={"connections": 1})) as mta:
        at_rest = mta.process.descriptors()
        address = mta.address("mx", 2)
        context = ssl.create_default_context(cafile=str(files.authority))
        with context.wrap_socket(socket.create_connection(address), server_hostname="mta.test") as guest:
            assert guest.recv(1000).startswith(b"220 ")
            guest.sendall(b"NOOP\r\n")
            assert guest.recv(1000).startswith(b"250 ")
            with context.wrap_socket(socket.create_connection(address), server_hostname="mta.test") as turned:
                assert turned.recv(1000).startswith(b"421 4.7.0 ")
            waiting = [socket.create_connection(address) for _ in range(30)]
            assert [end_of(peer) for peer in waiting] == [CUT] * 30
            for peer in waiting:
                peer.close()
        wait_until(lambda: mta.process.descriptors() <= at_rest + 8, 30, "no descriptor is left behind")


@pytest.mark.fresh_start
def test_many_large_messages_at_a_slow_pace_stay_small_in_memory(make_mta: MakeMta, sink: Sink) -> None:
    """Fifty senders, each in the middle of five megabytes: what has come lies in files."""
    line = b"x" * 78 + b"\r\n"
    content = HEAD + line * 65_000
    with make_mta(relaying_to(sink.port)) as mta, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(mta.address()))) for _ in range(50)]
        before = mta.process.memory()
        for client in clients:
            client.ehlo()
            client.envelope("a@client.test", ["b@sink.test"])
        for start in range(0, len(content), 100_000):
            for client in clients:
                client.send(content[start : start + 100_000])
        assert mta.process.peak_memory() - before < 120 << 20
        for client in clients:
            client.send(b".\r\n")
        assert {client.reply().code for client in clients} == {250}
        sink.wait_for(50, 120)
        wait_until(lambda: mta.queued() == 0, 60, "the queue is empty")
        assert mta.process.peak_memory() - before < 200 << 20
