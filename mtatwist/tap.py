"""``twistd mta``: options, and the service that starts and stops everything; ``wiring`` builds its parts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn

import apsw
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import usage

from mtatwist import __version__
from mtatwist.auth.user_file import UserFileError
from mtatwist.config import Config, ConfigError, load
from mtatwist.control.socket import SocketError
from mtatwist.descriptors import Exhaustion, share_out
from mtatwist.log import LineObserver, Threshold
from mtatwist.metrics.instruments import Instruments
from mtatwist.notify import Supervisor
from mtatwist.receive.factory import Sessions
from mtatwist.reread import read_again
from mtatwist.spool.check import damage_notice
from mtatwist.spool.schema import SchemaTooNew
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.datadir import DataDirError
from mtatwist.store.queue_time import QueueTime
from mtatwist.store.trouble import Damaged
from mtatwist.tls.keypair import CertificateError
from mtatwist.wiring.auth import Users
from mtatwist.wiring.background import tell_parent
from mtatwist.wiring.control import Control
from mtatwist.wiring.directory import CurrentDirectory
from mtatwist.wiring.dns import make_dns, prepare_dns
from mtatwist.wiring.files import NamedFiles
from mtatwist.wiring.hangup import Hangup
from mtatwist.wiring.hint import hint
from mtatwist.wiring.log import make_log, prepare_log
from mtatwist.wiring.receive import make_factories, make_listeners
from mtatwist.wiring.recipients import CurrentRecipients
from mtatwist.wiring.relay import Relaying, make_schedule
from mtatwist.wiring.reload import Reloaded, Reloader, prepare_control
from mtatwist.wiring.submission import make_limits, make_usage
from mtatwist.wiring.swap import Swap
from mtatwist.wiring.tls import make_tls, prepare_tls
from mtatwist.wiring.watching import Watching

_log = Logger()


class Options(usage.Options):
    """What ``twistd mta`` can be told."""

    synopsis = "[options]"
    longdesc = "A mail transfer agent. Without --config: mail for localhost, on 127.0.0.1:2525 and 2587, into Maildirs."
    optParameters: ClassVar = [
        ["config", "c", None, "The configuration file (TOML); see 'mtactl config describe'."],
        ["data-dir", "d", None, "Where the spool lives; goes before the file's server.data_dir."],
    ]

    def opt_version(self) -> NoReturn:
        """Say the version and leave."""
        print(f"mtatwist {__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> MultiService:
    """The whole server. A configuration that can't be used ends the process here, with nothing bound."""
    from twisted.internet import reactor

    # The reactor's clock is wall-clock time: a jump would fire every timer, or none.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    try:
        # As they are now: in the background the process may find itself elsewhere.
        path, data_dir = (each and os.path.abspath(each) for each in (options["config"], options["data-dir"]))
        config = load(path, data_dir=data_dir)
        mta = Mta(config, reactor, parent=options.parent, data_dir=data_dir)
    except ConfigError as error:
        _exit(os.EX_CONFIG, str(error))
    Hangup(reactor, mta.hang_up).setServiceParent(mta)
    return mta


def _exit(code: int, why: str) -> NoReturn:
    print(why, file=sys.__stderr__, flush=True)
    raise SystemExit(code)


class Mta(MultiService):
    """The server: what stops, stops in the order in which mail flows."""

    def __init__(self, config: Config, reactor: Any, parent: Any = None, data_dir: str | None = None) -> None:
        """``parent``: twistd's own options; ``data_dir``: see load(). Raises ConfigError."""
        super().__init__()
        self.metrics = metrics = Instruments()
        self.certificates = make_tls(config, reactor, metrics, wall=time.time)
        self.reloader = Reloader(
            config,
            read=lambda running: read_again(config.source, running, data_dir=data_dir),
            prepare=self._prepare,
            files=NamedFiles(self.certificates),
            in_thread=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
        )
        self._reactor = reactor
        self._twistd = parent or {}
        self.threshold = Threshold(config.log.level)
        self._observer: LineObserver | None = None
        self.supervisor = Supervisor(clock=reactor)
        self.spool = SqliteSpool(
            config.server.data_dir,
            reactor=reactor,
            metrics=metrics,
            minimum_free=config.spool.minimum_free,
            ballast=config.spool.ballast,
        )
        self.queue_time = QueueTime(wall=time.time, clock=reactor, keep=self.spool.keep_ahead, metrics=metrics)
        shares = share_out(config.limits.connections, config.relay.connections, len(config.listen))
        self.dns = make_dns(config, reactor, metrics, deliveries=shares.deliveries)
        self.directory = CurrentDirectory(config, reactor, metrics)
        self.recipients = CurrentRecipients(config, reactor, metrics, self.directory)
        self.relaying = Relaying(
            reactor,
            metrics,
            spool=self.spool,
            dns=self.dns,
            queue_time=self.queue_time,
            listening=lambda: [one.bound for one in self.listeners if one.bound],
        )
        recipients = self.recipients.resolver
        self.relay = self.relaying.manager(config, connections=shares.deliveries, recipients=recipients)
        self.sessions = Sessions(shares.sessions, config.limits.connections_per_address)
        self._exhaustion = Exhaustion(reactor, metrics)
        self.users = Users(
            config,
            reactor,
            metrics,
            directory=self.directory,
            submit=self.spool.submit,
            queue_time=self.queue_time.now,
        )
        self._usage = make_usage(config, reactor, metrics, submit=self.spool.submit, queue_time=self.queue_time.now)
        tls = None if self.certificates is None else self.certificates.server
        self._factories = partial(
            make_factories,
            reactor=reactor,
            metrics=metrics,
            spool=self.spool,
            sessions=self.sessions,
            wake=self.relay.wake,
            queue_time=self.queue_time.now,
            tls=tls,
            usage=self._usage,
            checkers=self.users.checkers,
        )
        factories = self._factories(config, recipients=recipients)
        self.listeners = make_listeners(config, reactor, factories, tls=tls, fail=self._fail, lost=self._listener_lost)
        for listener in self.listeners:
            listener.setServiceParent(self)
        if self.certificates is not None:
            self.certificates.setServiceParent(self)
        self.watching = Watching(
            config,
            reactor,
            metrics,
            spool=self.spool,
            listeners=self.listeners,
            directory=self.directory,
            hosts=self.dns.hosts,
            wall=time.time,
            queue_time=self.queue_time.now,
            fail=self._fail,
        )
        self.control = Control(config, reactor, self)

    def _prepare(self, running: Config, config: Config) -> list[Swap]:
        """In a thread: how what is different in another configuration takes its place. Raises ConfigError."""
        reactor, metrics = self._reactor, self.metrics
        shares = share_out(config.limits.connections, config.relay.connections, len(config.listen))
        before = self.recipients.resolver
        recipients, new_recipients = self.recipients.prepare(config)
        factories = self._factories(config, recipients=recipients)
        return [
            self.directory.prepare(config),
            new_recipients,
            self.users.prepare(config),
            prepare_dns(running, config, self.dns, reactor, metrics, deliveries=shares.deliveries),
            self.relaying.prepare(
                self.relay, running, config, connections=shares.deliveries, recipients=(before, recipients)
            ),
            prepare_tls(running, config, self.certificates, reactor, wall=time.time),
            partial(self._usage.limit, make_limits(config)),
            partial(self.sessions.limit, shares.sessions, config.limits.connections_per_address),
            *(partial(listener.use, factory) for listener, factory in zip(self.listeners, factories, strict=True)),
            self.watching.prepare(config),
            prepare_control(config, self.control),
            prepare_log(running, config, self._observer, self.threshold),
        ]

    def setServiceParent(self, parent: Any) -> None:
        """Log our way, unless twistd was told another."""
        super().setServiceParent(parent)
        self._observer = make_log(self.config, self._reactor, self._twistd, self.threshold)
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
            self.spool.meanwhile(self._observer.flush_many)

    def privilegedStartService(self) -> None:
        """Bind ports."""
        self.watching.bind()
        super().privilegedStartService()

    def startService(self) -> None:
        """The ports are bound and privileges gone: open the spool, then begin."""
        try:
            # Before there are any threads: they would keep a process alive that has failed.
            self.users.start()
        except UserFileError as error:
            self._fail(os.EX_CONFIG, str(ConfigError.of(self.config, "auth.file", *str(error).splitlines())))
        try:
            self.spool.start()
        except DataDirError as error:
            self._fail(os.EX_CANTCREAT, str(error))
        except SchemaTooNew as error:
            self._fail(os.EX_CONFIG, f"server.data_dir {self.config.server.data_dir}: {error}")
        except Damaged as error:
            self._fail(os.EX_IOERR, damage_notice(self.config.server.data_dir, error))
        except (apsw.Error, OSError) as error:
            self._fail(
                os.EX_IOERR,
                f"server.data_dir {self.config.server.data_dir}: the spool can't be opened: {error}; check the disk"
                " and the directory's owner before anything else touches it",
            )
        if self.certificates is not None and self.config.embedded:
            try:
                self.certificates.load()
            except CertificateError as error:
                self.spool.stop()
                self._fail(os.EX_CANTCREAT, str(error))
        try:
            self.control.startService()
        except SocketError as error:
            # Its threads would keep the process alive.
            self.spool.stop()
            self._fail(error.code, f"{error.key}: {error}")
        self.directory.start()
        self.queue_time.start(self.spool.kept_time, make_schedule(self.config).longest)
        self._usage.start()
        self.relay.startService()
        super().startService()
        self.watching.start()
        globalLogPublisher.addObserver(self._exhaustion)
        for warning in self.config.warnings:
            _log.warn("configuration_warning", warning=warning)
        _log.info(
            "start",
            version=__version__,
            pid=os.getpid(),
            listen=[one.facts() for one in self.listeners],
            health=self.watching.facts(),
        )
        if self.config.embedded:
            _log.info("hint", text=hint(self.config, self.listeners))
        self.supervisor.ready()

    @property
    def config(self) -> Config:
        """What holds now; of what takes a restart, as it was at the start."""
        return self.reloader.running

    def reload(self) -> Deferred[Reloaded]:
        """Take what the file says now, and the files that it names. Fires with ConfigError: nothing has changed."""
        self.supervisor.reloading()

        def tell(result: Any) -> Any:
            self.supervisor.reloaded()
            return result

        return self.reloader.reload().addBoth(tell)

    def hang_up(self) -> None:
        """SIGHUP: the same, and the log says what came of it."""
        self.reload().addErrback(lambda failure: failure.trap(ConfigError))

    async def _stop(self) -> None:
        _log.info("stopping")
        self.supervisor.stopping()
        self.reloader.stop()
        self.watching.stopping()
        await self._ended(self.control.stop)
        grace = self.config.timeouts.shutdown
        # Nothing new comes in, and then nothing new is begun; what is under way has the same time on both sides.
        await self._ended(super().stopService)
        sessions = Deferred.fromCoroutine(self._ended(lambda: self.sessions.shut_down(self._reactor, grace)))
        await self._ended(self.relay.stopService)
        await sessions
        self.users.stop()
        await self._ended(self.directory.stop)
        globalLogPublisher.removeObserver(self._exhaustion)
        self._usage.stop()
        self.queue_time.stop()
        self.spool.stop()
        await self._ended(self.watching.stop)
        self.dns.resolver.stop()
        self.supervisor.stopped()
        _log.info("stopped")

    @staticmethod
    async def _ended(end: Callable[[], Any]) -> None:
        try:
            await end()
        except Exception:
            # Whatever it is, the next part must get its chance to end well.
            _log.failure("stop_failed")

    def stopService(self) -> Deferred[None]:
        """No new connections, then transactions, deliveries and the spool, each to its end."""
        return Deferred.fromCoroutine(self._stop())

    def _fail(self, code: int, why: str) -> NoReturn:
        """The server can't start."""
        _log.critical("start_failed", reason=why)
        self._remove_pidfile()
        tell_parent(self._twistd, why)
        _exit(code, why)

    def _listener_lost(self, code: int, why: str) -> None:
        """A port turns out, while we run, not to be bound. A server without any serves nobody: it ends."""
        _log.critical("listener_failed", reason=why)
        if any(listener.accepting for listener in self.listeners):
            return
        # Nothing that is raised below the reactor ends it: this is how its process gets an exit code.
        self._reactor.addSystemEventTrigger("after", "shutdown", self._leave, code, why)
        self._reactor.stop()

    def _leave(self, code: int, why: str) -> None:
        self._remove_pidfile()
        print(why, file=sys.__stderr__, flush=True)
        os._exit(code)

    def _remove_pidfile(self) -> None:
        pidfile = self._twistd.get("pidfile")
        if pidfile and os.path.exists(pidfile):
            os.unlink(pidfile)
