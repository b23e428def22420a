"""What is counted of the server itself: its process, and those who watch and administer it."""

from __future__ import annotations

from mtatwist.metrics.instruments.kinds import (
    OUTCOME,
    REASON,
    SECONDS,
    Counter,
    Gauge,
    Histogram,
    UpDownCounter,
    counters,
)


class Running:
    """The metrics of the process, and of who looks at it."""

    def __init__(self) -> None:
        self.auth_crashes, self.recipient_crashes, self.relay_errors, self.tls_watch_errors = counters(
            "mtatwist.server.exceptions",
            "Exceptions that nobody had expected, of validators besides: the log has each",
            "{exception}",
            "mtatwist.component",
            "auth",
            "recipients",
            "relay",
            "tls",
        )
        self.pushes, self.push_failures = counters(
            "mtatwist.metric.pushes",
            "Pushes of metrics; failed: the collector did not take it",
            "{push}",
            OUTCOME,
            "succeeded",
            "failed",
        )
        self.push_rejected = Counter(
            "mtatwist.metric.push.rejections", "Values that the collector did not want", "{data_point}"
        )
        self.push_seconds = Histogram("mtatwist.metric.push.duration", "One push", SECONDS, "s")
        self.control_done, self.control_failed = counters(
            "mtatwist.control.commands", "Commands of the control socket", "{command}", OUTCOME, "done", "failed"
        )
        self.control_denied = Counter(
            "mtatwist.control.denials", "Those of them by somebody who may not, or had no good token", "{command}"
        )
        self.control_refused, self.control_crowded = counters(
            "mtatwist.control.refusals",
            "Clients of the control socket that were sent away; cut: for what they sent; crowded: there was no place",
            "{connection}",
            REASON,
            "cut",
            "crowded",
        )
        self.health_requests = Counter("mtatwist.health.requests", "Requests to the health endpoint", "{request}")
        self.health_unready = Counter(
            "mtatwist.health.refusals", "Those of them that were told: not ready", "{request}"
        )
        self.reactor_lag = Histogram("mtatwist.reactor.lag", "How late timers fire: how busy we are", SECONDS, "s")
        self.cpu_user, self.cpu_system = counters(
            "process.cpu.time", "Processor time used", "s", "cpu.mode", "user", "system"
        )
        self.memory = UpDownCounter("process.memory.usage", "Memory that is resident", "By")
        self.descriptors = UpDownCounter(
            "process.unix.file_descriptor.count", "Open file descriptors", "{file_descriptor}"
        )
        self.threads = UpDownCounter("process.thread.count", "Threads", "{thread}")
        self.uptime = Gauge("process.uptime", "Time since the start", "s")
