"""Directory servers played in memory, and a directory over them whose clock the test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rigs.pump import Pump

from mtatwist.directory.connection import Access, Connection, ConnectionLost, Entry
from mtatwist.directory.directory import Directory
from mtatwist.directory.server import Server
from mtatwist.metrics.instruments import Instruments

ACCESS = Access(context=None, start_tls=False, bind_dn="cn=mta", bind_password=b"service")
SECONDS = 9.0
ATTEMPT = 3.0


class Host:
    """A server: ``people`` have passwords by their DN. Set ``trouble`` and it is raised instead of connecting;
    ``answer`` and it is called for what each search or user's bind gives."""

    def __init__(self) -> None:
        self.people = {"uid=user1": b"pw1"}
        self.trouble: Exception | None = None
        self.answer: Callable[[], Any] | None = None
        self.connections: list[Played] = []
        self.requests: list[tuple[Any, ...]] = []

    @property
    def open(self) -> int:
        return sum(not connection.ended for connection in self.connections)

    def fail(self, error: Exception) -> None:
        """So ends each request from now on."""

        def answer() -> Any:
            raise error

        self.answer = answer

    def lose(self) -> None:
        """All its connections break, unnoticed."""
        for connection in self.connections:
            connection.lost = True


class Played(Connection):
    """See Connection."""

    def __init__(self, host: Host, deadline: float) -> None:
        if host.trouble is not None:
            raise host.trouble
        self.host = host
        self.ended = self.lost = False
        self.deadlines = [deadline]
        self.who: list[str] = []
        host.connections.append(self)

    def _asked(self, *request: Any) -> Any:
        self.host.requests.append(request)
        if self.lost:
            self.ended = True
            raise ConnectionLost("it has hung up")
        return None if self.host.answer is None else self.host.answer()

    def bind(self, dn: str, password: bytes, deadline: float) -> int:
        self.deadlines.append(deadline)
        self.who.append(dn)
        if dn == ACCESS.bind_dn:
            return 0 if password == ACCESS.bind_password else 49
        answer = self._asked("bind", dn)
        if answer is not None:
            return int(answer)
        return 0 if self.host.people.get(dn) == password else 49

    def search(self, base: str, filter: str, attributes: Sequence[str], limit: int, deadline: float) -> list[Entry]:
        self.deadlines.append(deadline)
        answer = self._asked("search", filter)
        return [Entry("uid=user1", {})] if answer is None else answer

    def close(self) -> None:
        self.ended = True

    def cut(self) -> None:
        self.ended = True


class Rig:
    """A directory over so many played servers, which has been started."""

    def __init__(
        self,
        servers: int = 1,
        *,
        threads: int = 1,
        waiting: int = 5,
        start: bool = True,
        metrics: Instruments | None = None,
    ) -> None:
        self.pump = Pump()
        self.pump.now = 1000.0
        self.metrics = metrics or Instruments()
        self.hosts = [Host() for _ in range(servers)]

        def connect(host: str, port: int, implicit_tls: bool, access: Access, deadline: float, now: Any) -> Connection:
            return Played(self.hosts[int(host[1:])], deadline)

        self.servers = [
            Server(
                f"ldap://h{number}",
                ACCESS,
                idle=threads,
                attempt_seconds=ATTEMPT,
                now=self.pump.seconds,
                connect=connect,
            )
            for number in range(servers)
        ]
        self.directory = Directory(
            self.servers,
            base="dc=example",
            reactor=self.pump,  # type: ignore[arg-type]
            metrics=self.metrics,
            threads=threads,
            recipient_threads=1,
            waiting=waiting,
            seconds=SECONDS,
        )
        if start:
            self.start()

    def start(self) -> None:
        self.directory.start()
        for host in self.hosts:
            self.pump.until(lambda host=host: bool(host.connections or host.trouble))  # type: ignore[misc]
        self.settle()

    def settle(self) -> None:
        """Run what the threads have handed over, until there is no more of it."""
        while self.directory.unfinished:
            self.pump.drain()
        self.pump.drain()

    def search(self, filter: str = "(uid=user1)") -> Any:
        return self.pump.outcome(self.directory.search(filter, ["mail"]))

    def bind(self, dn: str = "uid=user1", password: str = "pw1") -> Any:
        return self.pump.outcome(self.directory.bind(dn, password))

    def later(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.pump.advance(seconds)
        self.settle()

    def stop(self) -> None:
        self.pump.wait(self.directory.stop())
