"""A gate with a checker that knows one password, on a database in memory, and a clock that the test moves."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import apsw
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtatwist.auth.credentials import Login
from mtatwist.auth.gate import Gate
from mtatwist.auth.lockout import Lockout
from mtatwist.auth.pace import LONGEST_DELAY
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import schema
from mtatwist.wiring.lockout import make_gate

RIGHT = "right"
HOME = "192.0.2.1"
ELSEWHERE = "198.51.100.7"


class Store:
    """A writer's submit(), at once. ``trouble``: what it fails with; ``held``: it waits for release()."""

    def __init__(self) -> None:
        self._connection = apsw.Connection(":memory:")
        schema.migrate(self._connection)
        # With one made at random, one run in some thousand would take a guess for a repetition.
        self._connection.execute("INSERT INTO lockout_key VALUES (?)", (bytes(32),))
        self.trouble: Exception | None = None
        self.held = False
        self.jobs = 0
        self._waiting: list[Callable[[], None]] = []

    def submit(self, job: Any, payload: Any) -> Deferred[Any]:
        """See Writer."""
        self.jobs += 1
        done: Deferred[Any] = Deferred()
        if self.held:
            self._waiting.append(lambda: self._do(job, payload, done))
        else:
            self._do(job, payload, done)
        return done

    def release(self) -> None:
        """Do what waits."""
        self.held = False
        for each in self._waiting:
            each()

    def rows(self, table: str) -> list[Any]:
        """What is on the disk."""
        return self._connection.execute(f"SELECT * FROM {table}").fetchall()

    def _do(self, job: Any, payload: Any, done: Deferred[Any]) -> None:
        if self.trouble is not None:
            done.errback(self.trouble)
        else:
            with self._connection:
                (result,) = job(self._connection, [payload])
            done.callback(result)


class Checker:
    """Knows that RIGHT is everybody's password. ``seconds``: how long it takes; ``answer``: what it says instead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[str] = []
        self.seconds: Callable[[Login], float] = lambda login: 0
        self.answer: Callable[[Login], Any] = self._answer
        self.under_way = 0
        self.most_under_way = 0

    def requestAvatarId(self, login: Login) -> Deferred[Any]:
        """See ICredentialsChecker."""
        self.asked.append(login.user)
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        later: Deferred[Any] = succeed(None)
        seconds = self.seconds(login)
        if seconds:
            later = Deferred()
            self._clock.callLater(seconds, later.callback, None)
        return later.addCallback(lambda _: self.answer(login)).addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self.under_way -= 1
        return result

    @staticmethod
    def _answer(login: Login) -> Any:
        if login.secret != RIGHT:
            raise UnauthorizedLogin
        return login.user


class Rig:
    """``restart()`` makes a new gate on the same store."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.store = Store()
        self.checker = Checker(self.clock)
        self.metrics = Instruments()
        self._settings = {"threshold": 5, "window": 900.0, "duration": 1800.0, "address_threshold": 50, **settings}
        self.restart()

    def restart(self) -> None:
        self.gate = Gate(
            self.checker,
            Lockout(**self._settings),
            submit=self.store.submit,
            clock=self.clock,
            now=self.clock.seconds,
            forgotten_after=self._settings["window"],
            metrics=self.metrics,
        )

    def begin(self, secret: str = RIGHT, user: str = "alice", peer: str = HOME) -> list[Any]:
        """A login; what becomes of it will be in the list."""
        return outcome(self.gate.requestAvatarId(Login(user, secret, peer, "s1")))

    def log_in(self, secret: str = RIGHT, user: str = "alice", peer: str = HOME) -> Any:
        """A login to its end: the avatar, or the name of the exception."""
        return self.wait(self.begin(secret, user, peer))

    def wait(self, results: list[Any]) -> Any:
        """Let time pass until there is a result."""
        for _ in range(100):
            if not results:
                first = min(call.getTime() for call in self.clock.getDelayedCalls())
                self.clock.advance(max(first - self.clock.seconds(), 0))
        (result,) = results
        return result.type.__name__ if isinstance(result, Failure) else result

    def taken(self, secret: str = RIGHT, user: str = "alice", peer: str = HOME) -> float:
        """How many seconds a login takes."""
        begun = self.clock.seconds()
        self.log_in(secret, user, peer)
        return self.clock.seconds() - begun

    def guess(self, *secrets: str, user: str = "alice", peer: str = HOME) -> None:
        """Wrong passwords, one after the other."""
        for secret in secrets:
            assert self.log_in(secret, user, peer) == REFUSED

    def asks(self, user: str = "alice", peer: str = HOME, secret: str = RIGHT) -> bool:
        """Is the checker asked about such a login?"""
        before = len(self.checker.asked)
        self.log_in(secret, user, peer)
        return len(self.checker.asked) > before


REFUSED = "UnauthorizedLogin"
UNAVAILABLE = "AuthUnavailable"


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """Will hold what it fires with."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


def guesses(number: int, since: int = 0) -> list[str]:
    """Different wrong passwords."""
    return [f"guess {each}" for each in range(since, since + number)]


class Guarded:
    """A whole server in memory whose lockout is the real one, on a database; the users are those of its checker."""

    def __init__(self, server: Any) -> None:
        self._server = server
        gate = make_gate(
            server.config,
            server.reactor,
            server.metrics,
            checker=server.checker,
            submit=Store().submit,
            queue_time=server.mta.queue_time.now,
        )
        server.reactor.tcpServers[0][1].factory.portal.registerChecker(gate)

    def log_in(self, secret: str = "secret", user: str = "alice", peer: str = HOME) -> str:
        """The reply to a login in a session of its own."""
        session = self._server.connect(peer)
        plain = base64.b64encode(f"\0{user}\0{secret}".encode()).decode()
        session.say("EHLO client.test")
        said = session.say(f"AUTH PLAIN {plain}")
        self._server.pass_time(LONGEST_DELAY)
        said += session.heard()
        session.protocol.connectionLost()
        return said
