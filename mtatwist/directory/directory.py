"""The directory as the rest of the house knows it: searches and binds, whichever server answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.directory.connection import AnswerOverrun, OperationRefused, ServerFailed, ServerSilent, ServerUntrusted
from mtatwist.directory.lane import IDirectoryReactor, Job, Lane
from mtatwist.directory.server import Server
from mtatwist.directory.workers import Workers
from mtatwist.interfaces import AnswerTooLarge, DirectoryTrouble, IDirectory, IEntry

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

RETRY_SECONDS = 2.0
"""How long a server that failed again is left alone."""

TIDY_SECONDS = 30.0
"""Time between two looks at connections that nobody uses."""

REPEAT_SECONDS = 300.0
"""How long the same refusal by a server that works is not told of again."""

STOP_SECONDS = 5.0
"""How long the threads may take to end."""


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
        recipient_threads: int,
        waiting: int,
        seconds: float,
    ) -> None:
        """``servers``: in the order in which they are asked. ``threads``: for logins; recipients have their own.
        ``waiting``: how many requests of either kind may wait for theirs; more are trouble at once. ``seconds``: for
        one request in all."""
        self._servers = servers
        self._reactor = reactor
        self._metrics = metrics
        lane = partial(
            Lane,
            self._attempt,
            partial(self._tell, None, "too many requests wait for an answer"),
            base=base,
            reactor=reactor,
            metrics=metrics,
            waiting=waiting,
            seconds=seconds,
        )
        # Anybody can ask for recipients, and as many as they like.
        self._logins = lane(name="mtatwist-directory", threads=threads)
        self._recipients = lane(name="mtatwist-directory-recipients", threads=recipient_threads)
        self._lanes = (self._logins, self._recipients)
        self._probes = Workers(len(servers), "mtatwist-directory-probe")
        self._down: dict[Server, float] = {}
        self._timers: dict[Server | None, IDelayedCall] = {}
        self._told: dict[tuple[Server | None, str], float] = {}
        self._running = False
        self._retired = False

    @property
    def for_recipients(self) -> IDirectory:
        """The same directory, for those who look up recipients: however many, they never keep a login waiting for a
        thread or a place."""
        return self._recipients

    @property
    def troubles(self) -> Mapping[str, str]:
        """Each server, by its URI, and why it is left alone; "" while it is not."""
        return {server.uri: server.trouble for server in self._servers}

    @property
    def unfinished(self) -> int:
        """How much the threads have not done with."""
        return sum(each.unfinished for each in (*self._lanes, self._probes))

    def start(self) -> None:
        """The threads may begin. Looks at all servers, so that trouble shows at once."""
        self._running = True
        self._metrics.directory_servers_down.value = 0
        for lane in self._lanes:
            lane.start()
        for server in self._servers:
            self._probe(server)
        self._timers[None] = self._reactor.callLater(TIDY_SECONDS, self._tidy)

    def retire(self) -> None:
        """Another one is in force: answer those who still ask, but look after the servers no more."""
        self._retired = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()

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
        for lane in self._lanes:
            lane.stop()
        for server in self._servers:
            server.stop()
        late = self._reactor.callLater(STOP_SECONDS, lambda: done.callback(None))

        def ended() -> None:
            if late.active():
                late.cancel()
                done.callback(None)

        def end() -> None:
            for lane in self._lanes:
                lane.end()
            self._probes.end()
            self._reactor.callFromThread(ended)

        # To wait for threads takes a thread.
        threading.Thread(target=end, name="mtatwist-directory-end", daemon=True).start()
        return done

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Sequence[IEntry]]:
        """See IDirectory; for logins, as bind() is."""
        return self._logins.search(filter, attributes, limit)

    def bind(self, dn: str, password: str) -> Deferred[bool]:
        """See IDirectory."""
        return self._logins.bind(dn, password)

    # In the threads.

    def _attempt(self, job: Job) -> Any:
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
                except AnswerOverrun as overrun:
                    # Of another server it would be as large.
                    self._reactor.callFromThread(self._refused, server, str(overrun))
                    raise AnswerTooLarge(f"{server.uri}: {overrun}") from None
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
        except OperationRefused as refused:
            failed = ServerFailed(str(refused))
        except Exception as error:
            _log.failure("directory_crashed")
            failed = ServerFailed(type(error).__name__)
        self._reactor.callFromThread(self._probed, server, failed)

    # In the reactor's thread.

    def _failed(self, server: Server, failed: ServerFailed) -> None:
        metrics = self._metrics
        if isinstance(failed, ServerSilent):
            metrics.directory_slow.value += 1
        elif isinstance(failed, ServerUntrusted):
            metrics.directory_untrusted.value += 1
        else:
            metrics.directory_unreachable.value += 1
        if not self._running or self._retired:
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
        if self._running and not self._retired:
            self._timers[server] = self._reactor.callLater(RETRY_SECONDS, self._probe, server)

    def _probed(self, server: Server, failed: ServerFailed | None) -> None:
        if not self._running or self._retired:
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
