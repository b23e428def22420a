"""Threads that ask servers. A Twisted ThreadPool costs three times as much for each request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from twisted.logger import Logger

_log = Logger()


class Workers:
    """At most ``count`` threads, begun as they are needed. One that waits for the network keeps no process alive."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0

    @property
    def unfinished(self) -> int:
        """How much work waits or is being done."""
        return self._unfinished

    def put(self, work: Callable[[], None]) -> None:
        """Have it done; always called by the same thread."""
        with self._lock:
            self._unfinished += 1
            more = self._unfinished > len(self._threads) < self._count
        if more:
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(work)

    def end(self) -> None:
        """When what waits is done, the threads end. Waits for that."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                _log.failure("directory_crashed")
            with self._lock:
                self._unfinished -= 1
