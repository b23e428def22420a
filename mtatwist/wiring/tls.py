"""What the listeners show to clients that use TLS."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from mtatwist.config import Config, ConfigError
from mtatwist.metrics.instruments import Instruments
from mtatwist.tls import selfsigned
from mtatwist.tls.keypair import CertificateError, Files
from mtatwist.tls.pairs import Pairs
from mtatwist.tls.policy import Policy
from mtatwist.tls.watch import CertificateWatch
from mtatwist.values.fields import fields
from mtatwist.wiring.swap import Swap, nothing


def make_tls(
    config: Config, reactor: Any, metrics: Instruments, *, wall: Callable[[], float]
) -> CertificateWatch | None:
    """As ``[tls]`` says; None without a certificate. Raises ConfigError.

    Files of the administrator's are read here: after it has given its privileges away the process may not be allowed
    to. Our own wait for :meth:`CertificateWatch.startService`, when the data directory is ours.
    """
    if not config.tls.pairs:
        return None
    certificates = CertificateWatch(
        _pairs(config, reactor, wall),
        interval=config.tls.reload,
        clock=reactor,
        wall=wall,
        in_thread=partial(_in_thread, reactor),
        metrics=metrics,
    )
    if not config.embedded:
        try:
            certificates.load()
        except CertificateError as error:
            raise ConfigError.of(config, error.key, error.reason) from None
    return certificates


def prepare_tls(
    running: Config, config: Config, certificates: CertificateWatch | None, reactor: Any, *, wall: Callable[[], float]
) -> Swap:
    """For another configuration; with the same one, the files are looked at: they may have changed. Raises ConfigError.

    Whether there is TLS at all is a matter of the listeners, and these take a restart.
    """
    if certificates is None:
        return nothing
    if not config.tls.pairs or config.tls == running.tls:
        return certificates.reload
    pairs = _pairs(config, reactor, wall)
    try:
        contexts = pairs.load()
    except CertificateError as error:
        raise ConfigError.of(config, error.key, error.reason) from None
    return partial(certificates.use, pairs, contexts, config.tls.reload)


def _pairs(config: Config, reactor: Any, wall: Callable[[], float]) -> Pairs:
    return Pairs(
        [Files(*each) for each in config.tls.pairs],
        Policy(**fields(config.tls, Policy)),
        seconds=reactor.seconds,
        prepare=partial(_make_our_own, config, wall) if config.embedded else None,
    )


def _in_thread(reactor: Any, work: Callable[..., Any], **arguments: Any) -> Deferred[Any]:
    return deferToThreadPool(reactor, reactor.getThreadPool(), work, **arguments)


def _make_our_own(config: Config, wall: Callable[[], float]) -> None:
    ((certificate, private_key, _),) = config.tls.pairs
    now = datetime.datetime.fromtimestamp(wall(), datetime.UTC)
    try:
        selfsigned.ensure(certificate, private_key, config.server.hostname, now=now)
    except OSError as error:
        raise CertificateError("tls.certificate", f"{certificate} can't be made: {error.strerror}") from None
