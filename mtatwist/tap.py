"""``twistd mta``: options, and the only place where objects are wired together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NoReturn

import apsw
from twisted.application.service import MultiService
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import usage
from twisted.python.logfile import LogFile

from mtatwist import __version__, dns
from mtatwist.config import Config, ConfigError, load
from mtatwist.descriptors import Exhaustion, share_out
from mtatwist.log import LineObserver
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.connection import Limits, Timeouts
from mtatwist.receive.delivery import Door, Realm
from mtatwist.receive.factory import ReceiveFactory, Sessions
from mtatwist.receive.listener import Listener
from mtatwist.relay.manager import RelayManager
from mtatwist.relay.mx import Exchanges, SmartHosts
from mtatwist.relay.ourselves import Ourselves
from mtatwist.relay.report import Reporter
from mtatwist.relay.retry import Schedule
from mtatwist.relay.route import Route, refuse_mailbox
from mtatwist.smtp.address import DomainSet
from mtatwist.spool.check import damage_notice
from mtatwist.spool.schema import SchemaTooNew
from mtatwist.spool.sqlite import SqliteSpool
from mtatwist.store.datadir import DataDirError
from mtatwist.store.queue_time import QueueTime
from mtatwist.store.trouble import Damaged
from mtatwist.tls.policy import CertificateError, ServerContext, client_context
from mtatwist.transports import REGISTRY as TRANSPORTS
from mtatwist.transports.dial import Target
from mtatwist.transports.smtp import ClientTimeouts
from mtatwist.validators import build
from mtatwist.validators.chain import Chain

_log = Logger()


class Options(usage.Options):
    """What ``twistd mta`` can be told."""

    synopsis = "[options]"
    longdesc = "A mail transfer agent. Without --config: mail for localhost, on 127.0.0.1:2525, into Maildirs."
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
        config = load(options["config"], data_dir=options["data-dir"])
        return Mta(config, reactor, parent=options.parent)
    except (ConfigError, CertificateError) as error:
        _exit(os.EX_CONFIG, str(error))


def _exit(code: int, why: str) -> NoReturn:
    print(why, file=sys.__stderr__, flush=True)
    raise SystemExit(code)


class Mta(MultiService):
    """The server: what stops, stops in the order in which mail flows."""

    def __init__(self, config: Config, reactor: Any, parent: Any = None) -> None:
        """``parent``: twistd's own options. Raises CertificateError."""
        super().__init__()
        self._config = config
        self._reactor = reactor
        self._twistd = parent or {}
        self.metrics = metrics = Instruments()
        self._hostname = hostname = config.server.hostname
        self.spool = SqliteSpool(
            config.server.data_dir,
            reactor=reactor,
            metrics=metrics,
            minimum_free=config.spool.minimum_free,
            ballast=config.spool.ballast,
        )
        self.queue_time = QueueTime(wall=time.time, clock=reactor, keep=self.spool.keep_ahead, metrics=metrics)
        self._schedule = Schedule(config.relay.retry, config.relay.max_age, warn_after=config.relay.warn_after)
        shares = share_out(config.limits.connections, config.relay.connections, len(config.listen))
        # A delivery that waits for the DNS has no connection yet.
        self.dns = _make_dns(config, reactor, metrics, in_flight=max(16, shares.deliveries // 2))
        client_timeouts = ClientTimeouts(**_fields(config.timeouts.client, ClientTimeouts))
        self._routes = [Route(**_fields(route, Route)) for route in config.routes]
        self.relay = RelayManager(
            self.spool,
            routes=self._routes,
            transport=lambda route: TRANSPORTS[route.transport](
                spool=self.spool,
                reactor=reactor,
                hostname=hostname,
                timeouts=client_timeouts,
                tls=route.tls,
                tls_context=client_context,
                metrics=metrics,
                targets=self._targets(route),
            ),
            schedule=self._schedule,
            reporter=Reporter(
                self.spool,
                hostname=hostname,
                return_size=config.relay.return_size,
                shown=self.queue_time.shown,
                metrics=metrics,
            ),
            connections=shares.deliveries,
            clock=reactor,
            wall=self.queue_time.now,
            metrics=metrics,
        )
        self.sessions = Sessions(shares.sessions, config.limits.connections_per_address)
        self._exhaustion = Exhaustion(reactor, metrics)
        self._listeners = self._make_listeners()
        for listener in self._listeners:
            listener.setServiceParent(self)

    def _targets(self, route: Route) -> Callable[[str], Awaitable[Sequence[Target]]]:
        """How the addresses behind a destination of this route are found."""
        if route.next_hop is not None:
            return SmartHosts(self.dns.hosts).targets
        ourselves = Ourselves({self._hostname.lower()}, lambda: [one.bound for one in self._listeners if one.bound])
        return Exchanges(
            self.dns.resolver, self.dns.hosts, ourselves, port=route.mx_port, loopback=route.mx_loopback
        ).targets

    def _make_listeners(self) -> list[Listener]:
        config, metrics = self._config, self.metrics
        domains = DomainSet(config.relay.domains)
        validators = build(
            config.validators.order,
            message_size=config.limits.message_size,
            has_room=self.spool.has_room,
            domains=domains,
            refuse_mailbox=partial(refuse_mailbox, self._routes),
            hops=config.limits.hops,
        )
        chain = Chain(validators, metrics)
        door = Door(
            hostname=self._hostname,
            spool=self.spool,
            chain=chain,
            metrics=metrics,
            wake=self.relay.wake,
            wall=time.time,
            queue_time=self.queue_time.now,
            now=self._reactor.seconds,
            message_size=config.limits.message_size,
            recipients=config.limits.recipients,
            domains=domains,
            postmaster=config.relay.postmaster,
        )
        portal = Portal(Realm(door), [AllowAnonymousAccess()])
        tls = None
        if config.tls.certificate and config.tls.private_key:
            tls = ServerContext(config.tls.certificate, config.tls.private_key, config.tls.minimum)
        return [
            Listener(
                self._reactor,
                listen.endpoint,
                ReceiveFactory(
                    portal,
                    clock=self._reactor,
                    sessions=self.sessions,
                    chain=chain,
                    metrics=metrics,
                    hostname=self._hostname,
                    limits=Limits(**_fields(config.limits, Limits)),
                    timeouts=Timeouts(**_fields(config.timeouts, Timeouts)),
                    networks=config.relay.networks,
                    role=listen.role,
                    tls_context=tls if listen.tls == "starttls" else None,
                    implicit_tls=listen.tls == "implicit",
                ),
                role=listen.role,
                implicit_tls=tls if listen.tls == "implicit" else None,
                fail=self._fail,
                lost=self._listener_lost,
            )
            for listen in config.listen
        ]

    def setServiceParent(self, parent: Any) -> None:
        """Log our way, unless twistd was told another."""
        super().setServiceParent(parent)
        if self._twistd.get("logger") or self._twistd.get("syslog"):
            return
        name = self._twistd.get("logfile")
        if self._twistd.get("nodaemon", True) and name in (None, "-"):
            stream: Any = sys.stdout
        else:
            stream = LogFile.fromFullPath(os.path.abspath(name or "twistd.log"))
            stream.isatty = lambda: False
        observer = LineObserver(stream, self._config.log.format, self._reactor)
        self._reactor.addSystemEventTrigger("after", "shutdown", observer.flush)
        parent.setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """The ports are bound and privileges gone: open the spool, then begin."""
        try:
            self.spool.start()
        except DataDirError as error:
            self._fail(os.EX_CANTCREAT, str(error))
        except SchemaTooNew as error:
            self._fail(os.EX_CONFIG, f"server.data_dir {self._config.server.data_dir}: {error}")
        except Damaged as error:
            self._fail(os.EX_IOERR, damage_notice(self._config.server.data_dir, error))
        except (apsw.Error, OSError) as error:
            self._fail(
                os.EX_IOERR,
                f"server.data_dir {self._config.server.data_dir}: the spool can't be opened: {error}; check the disk"
                " and the directory's owner before anything else touches it",
            )
        self.queue_time.start(self.spool.kept_time, self._schedule.longest)
        self.relay.startService()
        super().startService()
        globalLogPublisher.addObserver(self._exhaustion)
        for warning in self._config.warnings:
            _log.warn("configuration_warning", warning=warning)
        _log.info("start", version=__version__, pid=os.getpid(), listen=[one.facts() for one in self._listeners])
        if self._config.embedded:
            _log.info("hint", text=_hint(self._config, self._listeners))

    async def _stop(self) -> None:
        _log.info("stopping")
        grace = self._config.timeouts.shutdown
        # Nothing new comes in, and then nothing new is begun; what is under way has the same time on both sides.
        await self._ended(super().stopService)
        sessions = Deferred.fromCoroutine(self._ended(lambda: self.sessions.shut_down(self._reactor, grace)))
        await self._ended(self.relay.stopService)
        await sessions
        globalLogPublisher.removeObserver(self._exhaustion)
        self.queue_time.stop()
        self.dns.resolver.stop()
        self.spool.stop()
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
        _exit(code, why)

    def _listener_lost(self, code: int, why: str) -> None:
        """A port turns out, while we run, not to be bound. A server without any serves nobody: it ends."""
        _log.critical("listener_failed", reason=why)
        if any(listener.accepting for listener in self._listeners):
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


def _make_dns(config: Config, reactor: Any, metrics: Instruments, *, in_flight: int) -> dns.Dns:
    settings = config.dns
    return dns.build(
        reactor=reactor,
        metrics=metrics,
        servers=settings.servers,
        trust_ad=settings.trust_ad,
        timeout=settings.timeout,
        in_flight=in_flight,
        entries=settings.cache_entries,
        minimum_ttl=settings.minimum_ttl,
        maximum_ttl=settings.maximum_ttl,
        maximum_stale=settings.maximum_stale,
        addresses={each.domain: each.addresses for each in settings.overrides if each.addresses},
        forwards={each.domain: each.servers for each in settings.overrides if each.servers},
    )


def _fields(source: Any, target: Any) -> dict[str, Any]:
    """Those attributes of a configuration table that ``target`` has fields for."""
    names: Sequence[str] = getattr(target, "_fields", None) or tuple(target.__dataclass_fields__)
    return {name: getattr(source, name) for name in names}


def _hint(config: Config, listeners: Sequence[Listener]) -> str:
    facts = listeners[0].facts()
    return (
        f"No --config: mail for anyone at localhost, from {facts['host']}:{facts['port']}, goes to the Maildirs under"
        f" {config.server.data_dir}/maildir. Try: swaks --server {facts['host']}:{facts['port']} --to you@localhost;"
        " then look there. Next: mtactl config describe, and twistd -n mta --config FILE"
    )
