"""Requests to the directory that share threads and places in the queue; those of another lane take neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtatwist.directory.connection import REFUSED, SUCCESS, OperationRefused
from mtatwist.directory.server import Server
from mtatwist.directory.workers import Workers
from mtatwist.interfaces import DirectoryTrouble, IDirectory, IEntry

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.metrics.instruments.kinds import Histogram

_log = Logger()


class IDirectoryReactor(IReactorFromThreads, IReactorTime):
    """What the directory needs of a reactor."""


class Job:
    """What is asked of a server. ``over``: nobody waits for the answer any more."""

    def __init__(self, ask: Callable[[Server], Any], until: float) -> None:
        self.ask = ask
        self.until = until
        self.over = False


@implementer(IDirectory)
class Lane:
    """See IDirectory."""

    def __init__(
        self,
        attempt: Callable[[Job], Any],
        full: Callable[[], None],
        *,
        name: str,
        base: str,
        reactor: IDirectoryReactor,
        metrics: Instruments,
        threads: int,
        waiting: int,
        seconds: float,
    ) -> None:
        """``attempt`` does a job, in a thread, or raises DirectoryTrouble; ``full`` hears that there was no place for
        one. ``waiting``: how many requests may wait for one of the ``threads``; more are trouble at once. ``seconds``:
        for one request in all."""
        self._attempt = attempt
        self._full = full
        self._base = base
        self._reactor = reactor
        self._metrics = metrics
        self._limit = threads + waiting
        self._seconds = seconds
        self._pending: set[Deferred[Any]] = set()
        self._handed_over = 0
        self._threads = Workers(threads, name)
        self._running = False

    @property
    def unfinished(self) -> int:
        """How many requests the threads have not done with."""
        return self._threads.unfinished

    def start(self) -> None:
        """Requests are taken from now on."""
        self._running = True

    def stop(self) -> None:
        """Whoever waits is told of trouble."""
        self._running = False
        for pending in list(self._pending):
            pending.errback(DirectoryTrouble("the server is stopping"))

    def end(self) -> None:
        """The threads end. Waits for that."""
        self._threads.end()

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Sequence[IEntry]]:
        """See IDirectory."""
        if "\0" in filter:
            return succeed([])
        until = self._reactor.seconds() + self._seconds
        job = Job(lambda server: server.search(self._base, filter, attributes, limit, until), until)
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
            return succeed(False)
        until = self._reactor.seconds() + self._seconds

        def ask(server: Server) -> bool:
            code = server.bind(dn, octets, until)
            if code == SUCCESS:
                return True
            if code in REFUSED:
                return False
            raise OperationRefused(f"the bind is answered with result {code}")

        return self._submit(Job(ask, until), self._metrics.directory_bind_seconds)

    def _submit(self, job: Job, histogram: Histogram) -> Deferred[Any]:
        if not self._running:
            return fail(DirectoryTrouble("it is not running"))
        if self._handed_over >= self._limit:
            self._metrics.directory_busy.value += 1
            self._full()
            return fail(DirectoryTrouble("too many requests wait for an answer"))
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

    def _run(self, done: Deferred[Any], job: Job) -> None:
        """In a thread."""
        try:
            result = self._attempt(job)
        except DirectoryTrouble as trouble:
            result = Failure(trouble)
        except Exception as error:
            _log.failure("directory_crashed")
            result = Failure(DirectoryTrouble(type(error).__name__))
        self._reactor.callFromThread(self._answer, done, result)

    def _answer(self, done: Deferred[Any], result: Any) -> None:
        self._handed_over -= 1
        if not done.called:
            done.callback(result)
