"""One connection, to servers of all kinds: what a hostile or broken one can do is bounded and has a name."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from mtatwist.directory.connection import (
    Access,
    AnswerOverrun,
    Connection,
    ConnectionLost,
    OperationRefused,
    ServerFailed,
    ServerSilent,
    ServerUntrusted,
)
from mtatwist.directory.tls import make_context

Play = Callable[[socket.socket], None]
PLAIN = Access(context=None, start_tls=False)
OTHER = b"\x30\x05\x02\x03\x7f\xff\xff"
"""The beginning of a request that was never sent."""


def reply(request: bytes, operation: bytes) -> bytes:
    """An LDAPMessage (RFC 4511 §4.1.1) with this protocolOp, and the messageID of ``request``."""
    body = request[2 : 4 + request[3]] + operation
    return b"\x30" + bytes([len(body)]) + body


def result(tag: int, code: int) -> bytes:
    """An LDAPResult (§4.1.9) without words."""
    return bytes([tag, 7, 0x0A, 1, code, 4, 0, 4, 0])


def answering(*operations: bytes, then: bytes = b"") -> Play:
    """Each request gets one of these, and the last ``then`` besides."""

    def play(client: socket.socket) -> None:
        for left, operation in reversed(list(enumerate(reversed(operations)))):
            client.sendall(reply(client.recv(4096), operation) + (b"" if left else then))
        client.recv(4096)

    return play


class Played:
    """A server that does this with each connection."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                with suppress(OSError):
                    self._play(client)
                    client.close()

    def connect(self, access: Access = PLAIN, seconds: float = 5, implicit_tls: bool = False) -> Connection:
        return Connection("127.0.0.1", self.port, implicit_tls, access, time.monotonic() + seconds, time.monotonic)

    def close(self) -> None:
        for one in (self._listener, *self._clients):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Play], Played]]:
    made: list[Played] = []

    def serve(play: Play) -> Played:
        made.append(Played(play))
        return made[-1]

    yield serve
    for one in made:
        one.close()


Serve = Callable[[Play], Played]


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def test_a_bind(serve: Serve) -> None:
    server = serve(answering(result(0x61, 0), result(0x61, 49)))
    connection = server.connect()
    assert connection.bind("cn=a", b"secret", soon()) == 0
    assert connection.bind("cn=a", b"wrong", soon()) == 49
    connection.close()


@pytest.mark.parametrize("code", [51, 52])
def test_a_server_that_can_not_just_now(serve: Serve, code: int) -> None:
    with pytest.raises(ServerFailed):
        serve(answering(result(0x61, code))).connect().bind("cn=a", b"secret", soon())


def test_a_referral_is_no_answer(serve: Serve) -> None:
    """For a bind; to follow it would mean to tell the password to whoever is named."""
    lure = serve(answering(result(0x61, 0)))
    uri = b"ldap://127.0.0.1:%d/" % lure.port
    body = b"\x0a\x01\x0a\x04\x00\x04\x00\xa3" + bytes([len(uri) + 2]) + b"\x04" + bytes([len(uri)]) + uri
    server = serve(answering(b"\x61" + bytes([len(body)]) + body))
    # ldap3 does not understand it there.
    with pytest.raises(OperationRefused):
        server.connect().bind("cn=a", b"secret", soon())
    assert lure._clients == []


def closing(client: socket.socket) -> None:
    """Says nothing."""


def hanging_up(client: socket.socket) -> None:
    client.recv(4096)


def silent(client: socket.socket) -> None:
    client.recv(4096)
    client.recv(4096)


def garbage(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    client.recv(4096)


def endless(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"\x30\x84\xff\xff\xff\xff")
    while True:
        client.sendall(b"x" * 65536)


def dripping(client: socket.socket) -> None:
    client.recv(4096)
    client.sendall(b"\x30\x7f")
    while True:
        client.sendall(b"\x02")
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (closing, ConnectionLost),
        (hanging_up, ConnectionLost),
        (silent, ServerSilent),
        (dripping, ServerSilent),
        (endless, AnswerOverrun),
        (garbage, (OperationRefused, ServerFailed)),
    ],
)
def test_no_answer(serve: Serve, play: Play, error: type[Exception]) -> None:
    connection = serve(play).connect()
    with pytest.raises(error):
        connection.bind("cn=a", b"secret", soon(20 if error in (ConnectionLost, AnswerOverrun) else 0.5))
    # It is of no use any more, and closed.
    assert connection._ldap.closed
    with pytest.raises((ServerFailed, OperationRefused)):
        connection.search("", "(a=b)", [], 1, soon(0.5))


def test_answers_to_nobodys_question(serve: Serve) -> None:
    def play(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(reply(OTHER, result(0x61, 0)))
        client.recv(4096)

    with pytest.raises((OperationRefused, ServerFailed)):
        serve(play).connect().bind("cn=a", b"secret", soon())


def test_nobody_is_there() -> None:
    server = Played(silent)
    server.close()
    with pytest.raises(ConnectionLost, match=r"^Connection refused$"):
        server.connect()


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(ServerFailed, match=r"^its name can't be resolved: .*[Nn]ame"):
        Connection("no.such.host.invalid", 389, False, PLAIN, soon(), time.monotonic)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ServerFailed, match=r"^its name can't be resolved: it is not a host name$"):
        Connection("x" * 64 + ".example", 389, False, PLAIN, soon(), time.monotonic)


def test_the_first_address_that_answers_is_taken(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(answering(result(0x61, 0)))
    found = [
        (family, socket.SOCK_STREAM, 6, "", address)
        for family, address in (
            (socket.AF_INET6, ("::1", server.port, 0, 0)),
            (socket.AF_INET, ("127.0.0.1", server.port)),
        )
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    connection = Connection("two.example", server.port, False, PLAIN, soon(), time.monotonic)
    assert connection.bind("cn=a", b"secret", soon()) == 0


def closing(client: socket.socket) -> None:
    client.recv(4096)


def a_tls_server(client: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with suppress(ssl.SSLError):
        context.wrap_socket(client, server_side=True)


@pytest.mark.parametrize(
    ("play", "why"),
    [(closing, "it closed the connection"), (a_tls_server, "(it closed the connection|Connection reset by peer)")],
)
def test_start_tls_on_the_ldaps_port(serve: Serve, play: Play, why: str) -> None:
    with pytest.raises(ConnectionLost, match=rf"^{why} before TLS: is that the ldaps port\?$"):
        serve(play).connect(Access(context=make_context(None)))


def test_start_tls_is_not_answered(serve: Serve) -> None:
    with pytest.raises(ServerSilent):
        serve(silent).connect(Access(context=make_context(None)), 0.5)


def test_a_connection_that_is_closed(serve: Serve) -> None:
    with pytest.raises(ConnectionLost, match=r"^it closed the connection$"):
        serve(closing).connect().bind("cn=a", b"secret", soon())


@pytest.mark.parametrize("implicit", [False, True])
def test_no_handshake_in_time(serve: Serve, implicit: bool) -> None:
    access = Access(context=make_context(None))

    def play(client: socket.socket) -> None:
        if not implicit:
            client.sendall(reply(client.recv(4096), result(0x78, 0)))
        silent(client)

    server = serve(play)
    with pytest.raises(ServerSilent):
        server.connect(access, 0.5, implicit)


@pytest.mark.parametrize("code", [1, 2, 10, 52, 53, 80])
def test_start_tls_is_refused(serve: Serve, code: int) -> None:
    heard: list[bytes] = []

    def play(client: socket.socket) -> None:
        answering(result(0x78, code))(client)
        heard.append(client.recv(4096))

    with pytest.raises(ServerUntrusted):
        serve(play).connect(Access(context=make_context(None)))
    assert not any(heard)


def test_what_is_said_in_clear_behind_start_tls_is_not_believed(serve: Serve) -> None:
    """As in CVE-2021-38371: whoever sits between could answer the bind before it is sent."""
    server = serve(answering(result(0x78, 0), then=reply(OTHER, result(0x61, 0))))
    with pytest.raises(ServerFailed):
        server.connect(Access(context=make_context(None)), 2)


@pytest.mark.parametrize(("dn", "password"), [("cn=a", b""), ("", b"secret")])
def test_an_unauthenticated_bind_is_never_sent(serve: Serve, dn: str, password: bytes) -> None:
    connection = serve(silent).connect()
    with pytest.raises(ValueError, match="unauthenticated"):
        connection.bind(dn, password, soon())


def test_no_password_is_kept(serve: Serve) -> None:
    connection = serve(answering(result(0x61, 0))).connect()
    connection.bind("cn=a", b"secret", soon())
    assert connection._ldap.password is None
    assert connection._ldap.request is None


def test_cut_from_another_thread(serve: Serve) -> None:
    connection = serve(silent).connect()
    threading.Timer(0.05, connection.cut).start()
    with pytest.raises(ConnectionLost):
        connection.bind("cn=a", b"secret", soon(30))
