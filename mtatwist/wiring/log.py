"""Where the log goes, and in which form."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from twisted.python.logfile import LogFile

from mtatwist.config import Config
from mtatwist.log import LineObserver, Threshold
from mtatwist.redaction import Redaction
from mtatwist.wiring.swap import Swap

LOG_MODE = 0o640
"""Of a log file that is made: people's addresses are in it."""


def make_log(config: Config, reactor: Any, twistd: Mapping[str, Any], threshold: Threshold) -> LineObserver | None:
    """As ``[log]`` says; None where twistd was told another way than ours. It writes to standard output, or to the
    file that ``twistd`` was told."""
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    name = twistd.get("logfile")
    if twistd.get("nodaemon", True) and name in (None, "-"):
        stream: Any = sys.stdout
    else:
        path = os.path.abspath(name or "twistd.log")
        # A file that is there keeps the mode that somebody gave it.
        stream = LogFile.fromFullPath(path, defaultMode=None if os.path.exists(path) else LOG_MODE)
        stream.isatty = lambda: False
    observer = LineObserver(stream, config.log.format, reactor, threshold=threshold, redact=_redaction(config))
    reactor.addSystemEventTrigger("after", "shutdown", observer.flush)
    return observer


def prepare_log(running: Config, config: Config, observer: LineObserver | None, threshold: Threshold) -> Swap:
    """For another configuration. A level that was set by hand stays, unless the configuration's is another one now."""
    before, then = running.log, config.log

    def swap() -> None:
        if then.level != before.level:
            threshold.set(then.level)
        if observer is not None and (then.format, then.redact) != (before.format, before.redact):
            # What has been logged is written as it was to be.
            observer.flush()
            observer.use(then.format, _redaction(config))

    return swap


def _redaction(config: Config) -> Redaction | None:
    return Redaction() if config.log.redact else None
