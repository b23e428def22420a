"""The directory as the rest of the house knows it: searches and binds in bounded threads, whichever server answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.directory.connection import (
    REFUSED,
    SUCCESS,
    OperationRefused,
    ServerFailed,
    ServerSilent,
    ServerUntrusted,
)
from mtatwist.directory.server import Server
from mtatwist.directory.workers import Workers
from mtatwist.interfaces import DirectoryTrouble, IDirectory, IEntry

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Histogram, Instruments

_log = Logger()

RETRY_SECONDS = 2.0
"""How long a server that failed again is left alone."""

TIDY_SECONDS = 30.0
"""Time between two looks at connections that nobody uses."""

REPEAT_SECONDS = 300.0
"""How long the same refusal by a server that works is not told of again."""

STOP_SECONDS = 5.0
"""How long the threads may take to end."""


class IDirectoryReactor(IReactorFromThreads, IReactorTime):
    """What the directory needs of a reactor."""


class _Job:
    """What is asked of a server. ``over``: nobody waits for the answer any more."""

    def __init__(self, ask: Callable[[Server], Any], until: float) -> None:
        self.ask = ask
        self.until = until
        self.over = False


@implementer(IDirectory)
class Directory:
    """See IDirectory. A server that failed is left alone, and tried again in the background until it works."""

    def __init__(
        self,
        servers: Sequence[Server],
        *,
        base: str,
        reactor: IDirectoryReactor,
        metrics: Instruments,
        threads: int,
        waiting: int,
        seconds: float,
    ) -> None:
        """``servers``: in the order in which they are asked. ``waiting``: how many requests may wait for one of the
        ``threads``; more are trouble at once. ``seconds``: for one request in all."""
        self._servers = servers
        self._base = base
        self._reactor = reactor
        self._metrics = metrics
        self._limit = threads + waiting
        self._seconds = seconds
        self._pending: set[Deferred[Any]] = set()
        self._handed_over = 0
        self._threads = Workers(threads, "mtatwist-directory")
        self._probes = Workers(len(servers), "mtatwist-directory-probe")
        self._down: dict[Server, float] = {}
        self._timers: dict[Server | None, IDelayedCall] = {}
        self._told: dict[tuple[Server | None, str], float] = {}
        self._running = False

    def start(self) -> None:
        """The threads may begin. Looks at all servers, so that trouble shows at once."""
        self._running = True
        for server in self._servers:
            self._probe(server)
        self._timers[None] = self._reactor.callLater(TIDY_SECONDS, self._tidy)

    def stop(self) -> Deferred[None]:
        """Whoever waits is told of trouble, all connections are cut, and the threads end; fires after that."""
        done: Deferred[None] = Deferred()
        if not self._running:
            done.callback(None)
            return done
        self._running = False
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for pending in list(self._pending):
            pending.errback(DirectoryTrouble("the server is stopping"))
        for server in self._servers:
            server.stop()
        late = self._reactor.callLater(STOP_SECONDS, lambda: done.callback(None))

        def ended() -> None:
            if late.active():
                late.cancel()
                done.callback(None)

        def end() -> None:
            self._threads.end()
            self._probes.end()
            self._reactor.callFromThread(ended)

        # To wait for threads takes a thread.
        threading.Thread(target=end, name="mtatwist-directory-end", daemon=True).start()
        return done

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Sequence[IEntry]]:
        """See IDirectory."""
        if "\0" in filter:
            return _nothing([])
        until = self._reactor.seconds() + self._seconds
        job = _Job(lambda server: server.search(self._base, filter, attributes, limit, until), until)
        return self._submit(job, self._metrics.directory_search_seconds)

    def bind(self, dn: str, password: str) -> Deferred[bool]:
        """See IDirectory. Without a DN or password it is False, and nobody is asked: to the server either would mean
        a user that has no name, and be a success (RFC 4513 §5.1)."""
        try:
            # As octets it is not prepared a second time, by other rules.
            octets = password.encode()
        except UnicodeEncodeError:
            octets = b""
        if not dn or not octets or "\0" in dn or b"\0" in octets:
            return _nothing(False)
        until = self._reactor.seconds() + self._seconds

        def ask(server: Server) -> bool:
            code = server.bind(dn, octets, until)
            if code == SUCCESS:
                return True
            if code in REFUSED:
                return False
            raise OperationRefused(f"the bind is answered with result {code}")

        return self._submit(_Job(ask, until), self._metrics.directory_bind_seconds)

    def _submit(self, job: _Job, histogram: Histogram) -> Deferred[Any]:
        if not self._running:
            return _trouble("it is not running")
        if self._handed_over >= self._limit:
            self._metrics.directory_busy.value += 1
            self._tell(None, "too many requests wait for an answer")
            return _trouble("too many requests wait for an answer")
        started = self._reactor.seconds()

        def give_up(pending: Deferred[Any]) -> None:
            job.over = True

        def ended(result: Any) -> Any:
            job.over = True
            self._pending.discard(done)
            histogram.observe(self._reactor.seconds() - started)
            return result

        def late(result: Any, seconds: float) -> Any:
            self._metrics.directory_slow.value += 1
            return Failure(DirectoryTrouble(f"no answer within {seconds:g} s"))

        done: Deferred[Any] = Deferred(give_up)
        self._pending.add(done)
        self._handed_over += 1
        answered = done.addTimeout(self._seconds, self._reactor, late)
        answered.addBoth(ended)
        self._threads.put(partial(self._run, done, job))
        return answered

    # In the threads.

    def _run(self, done: Deferred[Any], job: _Job) -> None:
        try:
            result = self._attempt(job)
        except DirectoryTrouble as trouble:
            result = Failure(trouble)
        except Exception as error:
            _log.failure("directory_crashed")
            result = Failure(DirectoryTrouble(type(error).__name__))
        self._reactor.callFromThread(self._answer, done, result)

    def _attempt(self, job: _Job) -> Any:
        reasons = []
        for server in self._servers:
            if job.over or not server.time_for(job.until):
                reasons.append("too late")
                break
            if not server.trouble:
                try:
                    return job.ask(server)
                except ServerFailed as failed:
                    server.trouble = str(failed)
                    self._reactor.callFromThread(self._failed, server, failed)
                except OperationRefused as refused:
                    reasons.append(f"{server.uri}: {refused}")
                    self._reactor.callFromThread(self._refused, server, str(refused))
                    continue
            reasons.append(f"{server.uri}: {server.trouble}")
        raise DirectoryTrouble("; ".join(reasons))

    def _run_probe(self, server: Server) -> None:
        failed = None
        try:
            server.probe()
        except ServerFailed as error:
            failed = error
        except Exception as error:
            _log.failure("directory_crashed")
            failed = ServerFailed(type(error).__name__)
        self._reactor.callFromThread(self._probed, server, failed)

    # In the reactor's thread.

    def _answer(self, done: Deferred[Any], result: Any) -> None:
        self._handed_over -= 1
        if not done.called:
            done.callback(result)

    def _failed(self, server: Server, failed: ServerFailed) -> None:
        metrics = self._metrics
        if isinstance(failed, ServerSilent):
            metrics.directory_slow.value += 1
        elif isinstance(failed, ServerUntrusted):
            metrics.directory_untrusted.value += 1
        else:
            metrics.directory_unreachable.value += 1
        if not self._running:
            return
        server.trouble = str(failed)
        if server not in self._down:
            self._down[server] = self._reactor.seconds()
            metrics.directory_servers_down.value = len(self._down)
            _log.error("directory_trouble", server=server.uri, reason=str(failed))
            # At once: it may be about one entry, or a connection, and the server be well.
            self._probe(server)

    def _refused(self, server: Server, reason: str) -> None:
        self._metrics.directory_refused.value += 1
        self._tell(server, reason)

    def _tell(self, server: Server | None, reason: str) -> None:
        """A request was not answered by servers that work: once in a while will do."""
        now = self._reactor.seconds()
        for key in [key for key, when in self._told.items() if now - when > REPEAT_SECONDS]:
            del self._told[key]
        kind = (server, reason)
        if kind not in self._told and len(self._told) < 100:
            self._told[kind] = now
            _log.error("directory_refused", server=server.uri if server else "", reason=reason)

    def _probe(self, server: Server) -> None:
        self._probes.put(partial(self._run_probe, server))

    def _probe_later(self, server: Server) -> None:
        if self._running:
            self._timers[server] = self._reactor.callLater(RETRY_SECONDS, self._probe, server)

    def _probed(self, server: Server, failed: ServerFailed | None) -> None:
        if not self._running:
            return
        if failed is None:
            server.trouble = ""
            since = self._down.pop(server, None)
            self._metrics.directory_servers_down.value = len(self._down)
            if since is not None:
                seconds = round(self._reactor.seconds() - since, 3)
                _log.warn("directory_recovered", server=server.uri, seconds=seconds)
            return
        again = server in self._down
        self._failed(server, failed)
        if again:
            self._probe_later(server)

    def _tidy(self) -> None:
        for server in self._servers:
            self._probes.put(server.tidy)
        self._timers[None] = self._reactor.callLater(TIDY_SECONDS, self._tidy)


def _nothing(result: Any) -> Deferred[Any]:
    done: Deferred[Any] = Deferred()
    done.callback(result)
    return done


def _trouble(reason: str) -> Deferred[Any]:
    done: Deferred[Any] = Deferred()
    done.errback(DirectoryTrouble(reason))
    return done
