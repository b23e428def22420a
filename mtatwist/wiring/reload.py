"""Taking the configuration again while the server runs: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtatwist.config import Config, ConfigError, Problem
from mtatwist.reread import Reading
from mtatwist.wiring.control import Control, make_callers
from mtatwist.wiring.files import Found, NamedFiles
from mtatwist.wiring.swap import Swap

_log = Logger()


class Reloaded(NamedTuple):
    """What came of it: the keys that are different from now on, and those that take a restart to be; the paths of
    certificates that are taken, and what somebody should know of the files."""

    changed: tuple[str, ...]
    restart: tuple[str, ...]
    certificates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Reloader:
    """Reads and prepares in a thread, one time after the other, and puts in place in the reactor's thread."""

    def __init__(
        self,
        running: Config,
        *,
        read: Callable[[Config], Reading],
        prepare: Callable[[Config, Config], Sequence[Swap]],
        files: NamedFiles,
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        """``read`` reads the file again beside what is running, and ``prepare`` gets both that and the other, and
        builds what is different: neither changes anything, both are called in a thread and raise ConfigError."""
        self._files = files
        self.running = running
        self._read = read
        self._prepare = prepare
        self._in_thread = in_thread
        self._waiting: list[Deferred[Reloaded]] = []
        self._under_way = False
        self._stopped = False

    def reload(self) -> Deferred[Reloaded]:
        """Take what the file says now. Fires with ConfigError: nothing has changed, and why.

        While it is being read already, it is read once more after that, for all who have asked meanwhile.
        """
        done: Deferred[Reloaded] = Deferred()
        self._waiting.append(done)
        if not self._under_way:
            self._begin()
        return done

    def stop(self) -> None:
        """Change nothing any more."""
        self._stopped = True

    def _begin(self) -> None:
        self._under_way = True
        asked, self._waiting = self._waiting, []
        Deferred.fromCoroutine(self._once()).addBoth(self._end, asked)

    def _end(self, result: Reloaded | Failure, asked: Sequence[Deferred[Reloaded]]) -> None:
        self._under_way = False
        if self._waiting:
            self._begin()
        for each in asked:
            each.callback(result)

    async def _once(self) -> Reloaded:
        try:
            reading, found, swaps = await self._in_thread(self._work)
            if self._stopped:
                raise ConfigError([Problem(self.running.source or "", "", "the server is stopping")])
        except ConfigError as error:
            for problem in error.problems:
                _log.error("reload_refused", file=problem.file, key=problem.key, reason=problem.reason)
            if not self._stopped:
                self._files.refused()
            raise
        except Exception as error:
            _log.failure("reload_failed")
            why = f"could not be taken, which is a bug here: {type(error).__name__}"
            raise ConfigError([Problem(self.running.source or "", "", why)]) from error
        self.running = reading.config
        for swap in swaps:
            try:
                swap()
            except Exception:
                # The others go together with what is in place already.
                _log.failure("reload_failed")
        for warning in reading.config.warnings:
            _log.warn("configuration_warning", warning=warning)
        _log.info("reload", changed=list(reading.changed), restart=list(reading.restart))
        return Reloaded(reading.changed, reading.restart, *found)

    def _work(self) -> tuple[Reading, Found, Sequence[Swap]]:
        """In a thread."""
        reading = self._read(self.running)
        found = self._files.look(reading.config)
        return reading, found, self._prepare(self.running, reading.config)


def prepare_control(config: Config, control: Control) -> Swap:
    """Whoever is connected to the socket stays, unless its token is gone. Raises ConfigError."""
    make_callers(config)
    return partial(control.reload, config)
