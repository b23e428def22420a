"""Collectors of metrics: a real one, and one that behaves as badly as a test wants."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import rotel
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from rigs.processes import Child, free_port, listens, wait_until

from mtatwist.metrics.instruments.kinds import key_of

PATH = "/v1/metrics"

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP response."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Rotel:
    """Rotel, an OpenTelemetry collector; what it got stands in its log."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        program = Path(str(rotel.__file__)).with_name("rotel-agent")
        argv = [str(program), "start", "--exporter", "blackhole", "--debug-log", "metrics"]
        argv += ["--debug-log-verbosity", "detailed", "--otlp-http-endpoint", f"127.0.0.1:{self.port}"]
        argv += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
        self._child = Child(argv, directory, "rotel")

    @property
    def url(self) -> str:
        """Where it takes metrics."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def log(self) -> str:
        """What it wrote."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._child.output())

    def __enter__(self) -> Self:
        wait_until(lambda: listens(self.port), 20, lambda: f"rotel does not listen: {self.log()}")
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.end()


@dataclass
class Push:
    """A request that came."""

    header: str
    message: ExportMetricsServiceRequest | None

    def values(self) -> dict[str, float]:
        """What it says of counters and gauges, by name and attributes: see key_of()."""
        assert self.message is not None
        found: dict[str, float] = {}
        for metric in self.message.resource_metrics[0].scope_metrics[0].metrics:
            kind = metric.WhichOneof("data")
            if kind != "histogram":
                for point in getattr(metric, kind).data_points:
                    attributes = {one.key: one.value.string_value for one in point.attributes}
                    found[key_of(metric.name, attributes)] = point.as_int or point.as_double
        return found


@dataclass
class FakeCollector:
    """Listens on loopback, at any ``port`` if none is given; ``behave`` does what is to be done with a connection, once
    its request is read.

    :ivar pushes: the requests that came whole.
    :ivar connections: how many connections there were.
    """

    behave: Callable[[socket.socket], None] = lambda peer: peer.sendall(GOOD)
    context: ssl.SSLContext | None = None
    port: int = 0
    pushes: list[Push] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        self._closing = threading.Event()

    @property
    def url(self) -> str:
        """Where it takes metrics."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}{PATH}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError), peer:
                peer.settimeout(15)
                if self.context is not None:
                    peer = self.context.wrap_socket(peer, server_side=True)
                with peer:
                    self.pushes.append(read(peer))
                    self.behave(peer)

    def hang(self, peer: socket.socket) -> None:
        """Say nothing, until the peer goes or the test ends."""
        while not self._closing.is_set():
            peer.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                if not peer.recv(1):
                    return

    def endless(self, head: bytes, more: bytes) -> Callable[[socket.socket], None]:
        """Say this, and then that, until the peer goes."""

        def behave(peer: socket.socket) -> None:
            peer.sendall(head)
            while not self._closing.is_set():
                peer.sendall(more)

        return behave

    def drip(self, peer: socket.socket) -> None:
        """A good answer, an octet at a time and never whole."""
        for octet in self._slowly(GOOD[:-1]):
            peer.sendall(octet)
        self.hang(peer)

    def _slowly(self, data: bytes) -> Iterator[bytes]:
        for octet in data:
            if self._closing.is_set():
                return
            time.sleep(0.05)
            yield bytes([octet])


def read(peer: socket.socket) -> Push:
    """A request, header and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(peer)
    header, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", header)
    while length and len(body) < int(length[1]):
        body += _more(peer)
    message = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
    return Push(header.decode(), message)


def _more(peer: socket.socket) -> bytes:
    data = peer.recv(65536)
    if not data:
        raise ConnectionError("it went")
    return data
