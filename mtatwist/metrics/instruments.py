"""Every metric, one line each. Plain integers on the hot path; nobody reads them until they are pushed.

Instruments of one name differ in their attributes, and are one metric. Units are those of UCUM: "s", "By".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from types import MappingProxyType

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


def key_of(name: str, attributes: Mapping[str, str]) -> str:
    """What tells an instrument from all others: ``name{attribute=value}``."""
    words = ",".join(f"{attribute}={value}" for attribute, value in attributes.items())
    return f"{name}{{{words}}}" if words else name


class Counter:
    """A number that only grows."""

    __slots__ = ("attributes", "description", "name", "unit", "value")

    def __init__(
        self, name: str, description: str, unit: str = "", attributes: Mapping[str, str] = NO_ATTRIBUTES
    ) -> None:
        self.name = name
        self.description = description
        self.unit = unit
        self.attributes = attributes
        self.value: float = 0

    @property
    def key(self) -> str:
        """See key_of()."""
        return key_of(self.name, self.attributes)


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()


class Histogram:
    """Counts of observations by upper bound; ``counts`` has one more entry, for what exceeds them all."""

    __slots__ = ("attributes", "bounds", "counts", "description", "name", "sum", "unit")

    def __init__(
        self,
        name: str,
        description: str,
        bounds: tuple[float, ...],
        unit: str = "",
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
    ) -> None:
        self.name = name
        self.description = description
        self.unit = unit
        self.attributes = attributes
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    @property
    def key(self) -> str:
        """See key_of()."""
        return key_of(self.name, self.attributes)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
_GROUP = (1, 2, 4, 8, 16, 32, 64, 128)


class Instruments:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.sessions = Counter("mtatwist.smtp.sessions", "Sessions accepted")
        self.sessions_open = Gauge("mtatwist.smtp.sessions.open", "Sessions open now")
        self.sessions_refused = Counter("mtatwist.smtp.sessions.refused", "Connections over a limit, answered 421")
        self.timeouts = Counter("mtatwist.smtp.timeouts", "Sessions ended because the peer was too slow")
        self.replies_2xx = Counter("mtatwist.smtp.replies.2xx", "Commands answered 2xx or 3xx")
        self.replies_4xx = Counter("mtatwist.smtp.replies.4xx", "Commands answered 4xx")
        self.replies_5xx = Counter("mtatwist.smtp.replies.5xx", "Commands answered 5xx")
        self.tls_sessions = Counter("mtatwist.tls.sessions", "Sessions that turned to TLS: their handshake succeeded")
        self.tls_sessions_12 = Counter("mtatwist.tls.sessions.tls12", "Those of them that speak TLS 1.2")
        self.tls_sessions_13 = Counter("mtatwist.tls.sessions.tls13", "Those of them that speak TLS 1.3")
        self.tls_failures = Counter(
            "mtatwist.tls.handshakes.failed", "TLS handshakes with clients that came to nothing"
        )
        self.tls_slow = Counter(
            "mtatwist.tls.handshakes.slow", "Those of them that took longer than timeouts.handshake"
        )
        self.tls_days_left = Gauge(
            "mtatwist.tls.certificate.days_left", "Days until the first of the certificates ends"
        )
        self.tls_reloads = Counter("mtatwist.tls.certificate.reloads", "Certificates that were replaced while running")
        self.tls_reloads_failed = Counter(
            "mtatwist.tls.certificate.reloads.failed", "New certificates that could not be used: the old one stays"
        )
        self.tls_watch_errors = Counter("mtatwist.tls.certificate.errors", "Exceptions in looking after certificates")
        self.auth_succeeded = Counter("mtatwist.auth.succeeded", "Logins that were right")
        self.auth_refused = Counter("mtatwist.auth.refused", "Logins answered 535, whatever was wrong with them")
        self.auth_unavailable = Counter("mtatwist.auth.unavailable", "Logins nobody could judge, answered 454")
        self.auth_aborted = Counter("mtatwist.auth.aborted", "AUTH exchanges that ended without a login to judge")
        self.auth_crashes = Counter("mtatwist.auth.crashes", "Exceptions in checkers of logins, answered 454")
        self.lockout_failures = Counter(
            "mtatwist.auth.lockout.failures", "Wrong names and passwords that the lockout counted"
        )
        self.lockout_accounts = Counter("mtatwist.auth.lockout.locks.account", "Accounts locked")
        self.lockout_pairs = Counter(
            "mtatwist.auth.lockout.locks.pair", "Accounts locked for one address they are known at"
        )
        self.lockout_addresses = Counter("mtatwist.auth.lockout.locks.address", "Addresses locked")
        self.lockout_refused = Counter(
            "mtatwist.auth.lockout.refused", "Logins refused by a lock, without asking further"
        )
        self.lockout_active = Gauge("mtatwist.auth.lockout.locks.active", "Locks on accounts, pairs and addresses now")
        self.accepted = Counter("mtatwist.messages.accepted", "Messages on stable storage before their 250")
        self.accepted_bytes = Counter("mtatwist.messages.accepted.bytes", "Octets of accepted messages", "By")
        self.refused = Counter("mtatwist.messages.refused", "Messages refused after their end of data")
        self.postponed = Counter("mtatwist.messages.postponed", "Those of them that were answered 4xx: our own trouble")
        self.accept_seconds = Histogram(
            "mtatwist.messages.accept.duration", "End of data to 250, in seconds", _SECONDS, "s"
        )
        self.validator_crashes = Counter("mtatwist.validators.crashes", "Exceptions in validators, answered 451")
        self.send_as_refused = Counter(
            "mtatwist.submission.send_as.refused", "Reverse paths and messages refused: their sender is somebody else"
        )
        self.from_mismatches = Counter(
            "mtatwist.submission.from.mismatches", "Messages from addresses that their sender may not use"
        )
        self.submission_limited = Counter(
            "mtatwist.submission.limited", "Messages and recipients answered 450: over a limit of their account"
        )
        self.submission_limits_near = Counter(
            "mtatwist.submission.limits.near", "Times that an account came near one of its limits"
        )
        self.fields_added = Counter(
            "mtatwist.submission.fields.added", "Date, Message-ID and Sender fields that messages lacked"
        )
        self.spool_groups = Counter("mtatwist.spool.groups", "Transactions committed by the writer")
        self.spool_group_size = Histogram("mtatwist.spool.group.size", "Jobs that shared one commit", _GROUP)
        self.spool_errors = Counter("mtatwist.spool.errors", "Jobs of the spool that could not be committed")
        self.spool_trouble_full = Counter("mtatwist.spool.trouble.full", "Times that the disk was found to be full")
        self.spool_trouble_io = Counter("mtatwist.spool.trouble.io", "Times that the disk gave errors")
        self.spool_trouble_corrupt = Counter("mtatwist.spool.trouble.corrupt", "Times that the database was damaged")
        self.spool_recoveries = Counter("mtatwist.spool.recoveries", "Times that trouble with the spool was over")
        self.ballast_given_back = Counter("mtatwist.spool.ballast.given_back", "Times that the ballast was given back")
        self.memory_short = Counter(
            "mtatwist.spool.memory_short",
            "Times that unfinished messages held too much memory, and went to files early",
        )
        self.clock_jumps = Counter("mtatwist.clock.jumps", "Times that the machine's clock was found to have been set")
        self.descriptors_exhausted = Counter(
            "mtatwist.descriptors.exhausted", "Connections closed at once: no file descriptor was left for them"
        )
        self.delivered = Counter("mtatwist.relay.delivered", "Recipients delivered to their next hop")
        self.deferred = Counter("mtatwist.relay.deferred", "Attempts to be tried again later")
        self.failed = Counter("mtatwist.relay.failed", "Recipients that failed for good")
        self.expired = Counter("mtatwist.relay.expired", "Recipients that failed because max_age was over")
        self.reports = Counter("mtatwist.relay.reports", "DSNs put into the spool")
        self.reports_failed = Counter("mtatwist.relay.reports.failed", "DSNs about failures")
        self.reports_delayed = Counter("mtatwist.relay.reports.delayed", "DSNs about delays")
        self.reports_succeeded = Counter("mtatwist.relay.reports.succeeded", "DSNs about deliveries, asked for")
        self.reports_dropped = Counter("mtatwist.relay.reports.dropped", "DSNs that failed, of which nobody is told")
        self.in_flight = Gauge("mtatwist.relay.in_flight", "Recipients claimed and not yet settled")
        self.connections = Counter("mtatwist.relay.connections", "Connections opened to next hops")
        self.connect_failures = Counter("mtatwist.relay.connect.failures", "Next hops that could not be reached")
        self.destinations_down = Gauge("mtatwist.relay.destinations.down", "Next hops left alone after they failed")
        self.delivery_seconds = Histogram(
            "mtatwist.relay.delivery.duration", "One delivery attempt, in seconds", _SECONDS, "s"
        )
        self.uncertain = Counter(
            "mtatwist.relay.uncertain", "Messages that were sent, and lost their reply: sent again"
        )
        self.conversions = Counter("mtatwist.relay.conversions", "Messages converted for a next hop that takes less")
        self.tls_fallbacks = Counter("mtatwist.relay.tls.fallbacks", "Connections made in clear since TLS failed")
        self.relay_errors = Counter("mtatwist.relay.errors", "Exceptions in a round of the relay manager")
        self.directory_search_seconds = Histogram(
            "mtatwist.directory.search.duration",
            "One search of the directory, waiting included, in seconds",
            _SECONDS,
            "s",
        )
        self.directory_bind_seconds = Histogram(
            "mtatwist.directory.bind.duration", "One bind to the directory, waiting included, in seconds", _SECONDS, "s"
        )
        self.directory_unreachable = Counter(
            "mtatwist.directory.failures.unreachable", "Directory servers that could not be reached, or hung up"
        )
        self.directory_slow = Counter("mtatwist.directory.failures.slow", "Times that the directory took too long")
        self.directory_untrusted = Counter(
            "mtatwist.directory.failures.untrusted", "Directory servers without TLS, or with a wrong certificate"
        )
        self.directory_refused = Counter(
            "mtatwist.directory.failures.refused", "Requests that the directory did not understand or permit"
        )
        self.directory_busy = Counter(
            "mtatwist.directory.failures.busy", "Requests not put to the directory: too many waited for it"
        )
        self.directory_servers_down = Gauge(
            "mtatwist.directory.servers.down", "Directory servers left alone after they failed"
        )
        self.auth_offline = Counter(
            "mtatwist.auth.offline", "Logins that were right by what was remembered, while the directory was away"
        )
        self.dns_answered = Counter("mtatwist.dns.lookups.answered", "DNS lookups that found records")
        self.dns_absent = Counter("mtatwist.dns.lookups.absent", "DNS lookups that found that there is nothing")
        self.dns_failed = Counter("mtatwist.dns.lookups.failed", "DNS lookups that no server had an answer for")
        self.dns_cache_hits = Counter("mtatwist.dns.cache.hits", "DNS answers that were remembered")
        self.dns_cache_entries = Gauge("mtatwist.dns.cache.entries", "DNS answers and failures remembered now")
        self.dns_stale = Counter("mtatwist.dns.stale", "Old DNS answers given because there was no new one")
        self.dns_server_failures = Counter("mtatwist.dns.server.failures", "Queries that a DNS server had no reply to")

        self.recipients_unknown = Counter("mtatwist.recipients.unknown", "Recipients of ours refused: nobody has them")
        self.recipients_unchecked = Counter(
            "mtatwist.recipients.unchecked", "Recipients of ours answered 451: the directory could not tell"
        )
        self.recipients_expanded = Counter(
            "mtatwist.recipients.expanded", "Recipients replaced by those they stand for"
        )
        self.aliases_unusable = Counter(
            "mtatwist.recipients.aliases.unusable", "Recipients answered 451: their alias is a loop, or too large"
        )
        self.recipient_files_refused = Counter(
            "mtatwist.recipients.files.refused", "Changed files of aliases or recipients that could not be used"
        )
        self.devices_refused = Counter("mtatwist.devices.refused", "Senders that a device may not use, answered 553")
        self.queue_waiting = Gauge("mtatwist.queue.waiting", "Recipients that wait for an attempt", "{recipient}")
        self.queue_due = Gauge("mtatwist.queue.due", "Those of them whose time has come", "{recipient}")
        self.queue_oldest = Gauge("mtatwist.queue.oldest", "Age of the oldest message in the queue", "s")
        self.queue_errors = Counter("mtatwist.queue.errors", "Times that the queue could not be counted")
        self.pushes = Counter("mtatwist.metrics.pushes", "Pushes of metrics that the collector took", "{push}")
        self.push_failures = Counter("mtatwist.metrics.push.failures", "Pushes that it did not take", "{push}")
        self.push_rejected = Counter("mtatwist.metrics.push.rejected", "Values it did not want", "{data_point}")
        self.push_seconds = Histogram("mtatwist.metrics.push.duration", "One push, in seconds", _SECONDS, "s")
        control = "mtatwist.control.commands"
        self.control_done = Counter(control, "Commands of the control socket", "{command}", {"outcome": "done"})
        self.control_failed = Counter(control, "Commands of the control socket", "{command}", {"outcome": "failed"})
        self.control_denied = Counter(
            "mtatwist.control.denied", "Those of them by somebody who may not, or had no good token", "{command}"
        )
        self.control_refused = Counter(
            "mtatwist.control.refused", "Clients of the control socket that were cut off", "{connection}"
        )
        self.control_crowded = Counter(
            "mtatwist.control.crowded", "Clients for which there was no place any more", "{connection}"
        )
        self.health_requests = Counter("mtatwist.health.requests", "Requests to the health endpoint", "{request}")
        self.health_unready = Counter("mtatwist.health.unready", "Those of them that were told: not ready", "{request}")
        self.reactor_lag = Histogram("mtatwist.reactor.lag", "How late timers fire: how busy we are", _SECONDS, "s")
        self.cpu_user = Counter("process.cpu.time", "Processor time used", "s", {"cpu.mode": "user"})
        self.cpu_system = Counter("process.cpu.time", "Processor time used", "s", {"cpu.mode": "system"})
        self.memory = Gauge("process.memory.usage", "Memory that is resident", "By")
        self.descriptors = Gauge("process.unix.file_descriptor.count", "Open file descriptors", "{file_descriptor}")
        self.threads = Gauge("process.thread.count", "Threads", "{thread}")
        self.uptime = Gauge("process.uptime", "Time since the start", "s")

    def __iter__(self) -> Iterator[Counter | Histogram]:
        return iter(vars(self).values())
