"""What is counted behind the door: the spool, the queue, deliveries and the DNS."""

from __future__ import annotations

from typing import NamedTuple

from mtatwist.metrics.instruments.kinds import (
    ERROR,
    OUTCOME,
    SECONDS,
    STATE,
    VERSION,
    Counter,
    Gauge,
    Histogram,
    UpDownCounter,
    counters,
)

TRANSPORT = "mtatwist.transport"

GROUP = (1, 2, 4, 8, 16, 32, 64, 128)

TRANSPORTS = ("mx", "smart_host", "lmtp", "maildir", "other")
"""Classes of destinations: "other" is every transport that others have added."""


class Attempts(NamedTuple):
    """What became of attempts at destinations of one class."""

    delivered: Counter
    deferred: Counter
    failed: Counter
    expired: Counter
    seconds: Histogram


def _attempts(transport: str) -> Attempts:
    name, what = "mtatwist.relay.attempts", "Recipients that were tried, by what came of it; expired: max_age was over"
    delivered, deferred, failed, expired = (
        Counter(name, what, "{recipient}", {OUTCOME: outcome, TRANSPORT: transport})
        for outcome in ("delivered", "deferred", "failed", "expired")
    )
    seconds = Histogram(
        "mtatwist.relay.delivery.duration", "One delivery attempt", SECONDS, "s", {TRANSPORT: transport}
    )
    return Attempts(delivered, deferred, failed, expired, seconds)


class Relaying:
    """The metrics of messages that are ours."""

    def __init__(self) -> None:
        self.spool_groups = Counter("mtatwist.spool.groups", "Transactions committed by the writer", "{transaction}")
        self.spool_group_size = Histogram("mtatwist.spool.group.size", "Jobs that shared one commit", GROUP, "{job}")
        self.spool_errors = Counter(
            "mtatwist.spool.job.failures", "Jobs of the spool that could not be committed", "{job}"
        )
        self.spool_trouble_full, self.spool_trouble_io, self.spool_trouble_corrupt = counters(
            "mtatwist.spool.faults",
            "Times that the disk or the database was found to be in trouble",
            "{fault}",
            ERROR,
            "full",
            "io",
            "corrupt",
        )
        self.spool_recoveries = Counter(
            "mtatwist.spool.recoveries", "Times that trouble with the spool was over", "{recovery}"
        )
        self.ballast_given_back = Counter(
            "mtatwist.spool.ballast.releases", "Times that the ballast was given back", "{release}"
        )
        self.memory_short = Counter(
            "mtatwist.spool.memory.shortages",
            "Times that unfinished messages held too much memory, and went to files early",
            "{shortage}",
        )
        self.queue_pending, self.queue_deferred, self.queue_held, self.in_flight = (
            UpDownCounter(
                "mtatwist.queue.recipient.count",
                "Recipients in the queue; pending: not tried yet; deferred: to be tried again; held: until released;"
                " active: claimed, and on their way",
                "{recipient}",
                {STATE: state},
            )
            for state in ("pending", "deferred", "held", "active")
        )
        self.queue_due = UpDownCounter(
            "mtatwist.queue.recipient.due", "Those that wait for an attempt, and whose time has come", "{recipient}"
        )
        self.queue_oldest = Gauge("mtatwist.queue.oldest.age", "Age of the oldest message in the queue", "s")
        self.queue_errors = Counter(
            "mtatwist.queue.survey.failures", "Times that the queue could not be counted", "{survey}"
        )
        self.clock_jumps = Counter(
            "mtatwist.clock.jumps", "Times that the machine's clock was found to have been set", "{jump}"
        )

        # On their way.
        self.relay = {transport: _attempts(transport) for transport in TRANSPORTS}
        self.reports_failed, self.reports_delayed, self.reports_succeeded = counters(
            "mtatwist.relay.reports",
            "DSNs put into the spool",
            "{report}",
            "mtatwist.report.kind",
            "failed",
            "delayed",
            "succeeded",
        )
        self.reports_dropped = Counter(
            "mtatwist.relay.report.failures", "DSNs that failed, of which nobody is told", "{recipient}"
        )
        self.connections = Counter("mtatwist.relay.connections", "Connections begun to next hops", "{connection}")
        self.connect_failures = Counter(
            "mtatwist.relay.connection.failures", "Next hops that could not be reached", "{connection}"
        )
        self.connections_idle, self.connections_used = (
            UpDownCounter(
                "mtatwist.relay.connection.count",
                "Connections to next hops now; used: at work, or being made; idle: kept for the next message",
                "{connection}",
                {STATE: state},
            )
            for state in ("idle", "used")
        )
        self.destinations_down = UpDownCounter(
            "mtatwist.relay.destination.down", "Next hops left alone after they failed", "{destination}"
        )
        self.uncertain = Counter(
            "mtatwist.relay.delivery.repeats", "Messages that were sent, and lost their reply: sent again", "{message}"
        )
        self.conversions = Counter(
            "mtatwist.relay.conversions", "Messages converted for a next hop that takes less", "{message}"
        )
        self.relay_tls_12, self.relay_tls_13 = counters(
            "mtatwist.relay.tls.sessions",
            "Connections to next hops that turned to TLS",
            "{session}",
            VERSION,
            "1.2",
            "1.3",
        )
        self.tls_fallbacks = Counter(
            "mtatwist.relay.tls.fallbacks", "Connections made in clear since TLS failed", "{connection}"
        )
        self.dns_answered, self.dns_absent, self.dns_failed = counters(
            "mtatwist.dns.lookups",
            "DNS lookups; answered: found records; absent: found that there is nothing; failed: nobody had an answer",
            "{lookup}",
            OUTCOME,
            "answered",
            "absent",
            "failed",
        )
        self.dns_seconds = Histogram("mtatwist.dns.lookup.duration", "One lookup that servers were asked", SECONDS, "s")
        self.dns_cache_hits = Counter("mtatwist.dns.cache.hits", "DNS answers that were remembered", "{answer}")
        self.dns_cache_entries = UpDownCounter(
            "mtatwist.dns.cache.entry.count", "DNS answers and failures remembered now", "{entry}"
        )
        self.dns_stale = Counter(
            "mtatwist.dns.cache.stale_answers", "Old DNS answers given because there was no new one", "{answer}"
        )
        self.dns_server_failures = Counter(
            "mtatwist.dns.server.failures", "Queries that a DNS server had no reply to", "{query}"
        )
