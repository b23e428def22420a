"""An operation as a whole has a deadline and a size, whatever the server does."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mtatwist.directory.limited import ANSWER_LIMIT, LimitedSocket


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_bytes_pass(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    limited = LimitedSocket(ours, 101.0, Time())
    limited.sendall(b"hello")
    assert theirs.recv(10) == b"hello"
    theirs.sendall(b"you")
    assert limited.recv(10) == b"you"
    theirs.close()
    assert limited.recv(10) == b""


def test_dripping_does_not_help(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    time = Time()
    limited = LimitedSocket(ours, 101.0, time)
    for _ in range(4):
        theirs.sendall(b"x")
        assert limited.recv(10) == b"x"
        time.now += 0.25
    theirs.sendall(b"x")
    with pytest.raises(TimeoutError):
        limited.recv(10)
    assert limited.timed_out
    with pytest.raises(TimeoutError):
        limited.sendall(b"x")
    limited.begin(102.0)
    assert limited.recv(10) == b"x"


def test_silence(ends: tuple[socket.socket, socket.socket]) -> None:
    limited = LimitedSocket(ends[0], 100.01, Time())
    with pytest.raises(TimeoutError):
        limited.recv(10)
    assert limited.timed_out


def test_nobody_reads(ends: tuple[socket.socket, socket.socket]) -> None:
    limited = LimitedSocket(ends[0], 100.01, Time())
    with pytest.raises(TimeoutError):
        limited.sendall(b"x" * (8 << 20))
    assert limited.timed_out


def test_an_endless_answer(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    limited = LimitedSocket(ours, 110.0, Time())
    read = 0
    with pytest.raises(OSError, match="too large"):
        while True:
            theirs.sendall(b"x" * 65536)
            read += len(limited.recv(65536))
    assert read <= ANSWER_LIMIT
    assert limited.overrun
