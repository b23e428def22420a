"""What is counted at the door: sessions, messages, TLS, and who and what is let in."""

from __future__ import annotations

from typing import NamedTuple

from mtatwist.metrics.instruments.kinds import (
    CLASS,
    ERROR,
    OUTCOME,
    REASON,
    SECONDS,
    VERSION,
    Counter,
    Gauge,
    Histogram,
    UpDownCounter,
    counters,
)

OCTETS = (1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

VALIDATORS = ("parameters", "size", "relay", "device", "send_as", "rate", "loop", "other")
"""Those of the registry: "other" is every validator that others have added."""


class Verdicts(NamedTuple):
    """What a validator said."""

    passed: Counter
    refused: Counter
    postponed: Counter
    crashed: Counter


def _verdicts(validator: str) -> Verdicts:
    name, what = "mtatwist.validator.verdicts", "Verdicts on MAIL, RCPT and header sections; crashed: answered 451"
    return Verdicts(
        *(
            Counter(name, what, "{verdict}", {OUTCOME: outcome, "mtatwist.validator": validator})
            for outcome in ("passed", "refused", "postponed", "crashed")
        )
    )


class Receiving:
    """The metrics of sessions and of those who judge them."""

    def __init__(self) -> None:
        self.sessions, self.sessions_refused = counters(
            "mtatwist.smtp.sessions",
            "Connections; refused: over a limit, or the server drains or stops, answered 421",
            "{session}",
            OUTCOME,
            "accepted",
            "refused",
        )
        self.sessions_open = UpDownCounter("mtatwist.smtp.session.active", "Sessions open now", "{session}")
        self.timeouts = Counter("mtatwist.smtp.timeouts", "Sessions ended because the peer was too slow", "{session}")
        self.replies_2xx, self.replies_3xx, self.replies_4xx, self.replies_5xx = counters(
            "mtatwist.smtp.replies", "Replies to commands", "{reply}", CLASS, "2xx", "3xx", "4xx", "5xx"
        )
        self.accepted, self.refused, self.postponed = counters(
            "mtatwist.smtp.messages",
            "Messages, when all their data was there; accepted: on stable storage before their 250;"
            " postponed: answered 4xx, our own trouble",
            "{message}",
            OUTCOME,
            "accepted",
            "refused",
            "postponed",
        )
        self.accepted_size = Histogram("mtatwist.smtp.message.size", "Octets of accepted messages", OCTETS, "By")
        self.accept_seconds = Histogram("mtatwist.smtp.accept.duration", "End of data to 250", SECONDS, "s")
        self.tls_sessions_12, self.tls_sessions_13 = counters(
            "mtatwist.tls.sessions",
            "Sessions of clients that turned to TLS: their handshake succeeded",
            "{session}",
            VERSION,
            "1.2",
            "1.3",
        )
        self.tls_failures, self.tls_slow = counters(
            "mtatwist.tls.handshake.failures",
            "TLS handshakes with clients that came to nothing; timeout: they took longer than timeouts.handshake",
            "{handshake}",
            ERROR,
            "failed",
            "timeout",
        )
        self.tls_days_left = Gauge(
            "mtatwist.tls.certificate.remaining", "Whole days until the first of the certificates ends", "d"
        )
        self.tls_reloads, self.tls_reloads_failed = counters(
            "mtatwist.tls.certificate.reloads",
            "Certificates that were new while running; failed: could not be used, the old one stays",
            "{certificate}",
            OUTCOME,
            "succeeded",
            "failed",
        )
        self.descriptors_exhausted = Counter(
            "mtatwist.descriptor.shortages",
            "Connections closed at once: no file descriptor was left for them",
            "{connection}",
        )

        # Who and what is let in.
        self.auth_succeeded, self.auth_refused, self.auth_unavailable, self.auth_aborted = counters(
            "mtatwist.auth.logins",
            "AUTH, by how it ended; refused: 535; unavailable: nobody could judge, 454; aborted: nothing to judge",
            "{login}",
            OUTCOME,
            "succeeded",
            "refused",
            "unavailable",
            "aborted",
        )
        self.auth_offline = Counter(
            "mtatwist.auth.offline.logins",
            "Logins that were right by what was remembered, while the directory was away",
            "{login}",
        )
        self.lockout_failures = Counter(
            "mtatwist.auth.lockout.failures", "Wrong names and passwords that the lockout counted", "{login}"
        )
        self.lockout_accounts, self.lockout_pairs, self.lockout_addresses = counters(
            "mtatwist.auth.lockout.locks",
            "Locks that began; pair: on an account for one address that it is known at",
            "{lock}",
            "mtatwist.lock.kind",
            "account",
            "pair",
            "address",
        )
        self.lockout_active = UpDownCounter(
            "mtatwist.auth.lockout.lock.active", "Locks on accounts, pairs and addresses now", "{lock}"
        )
        self.lockout_refused = Counter(
            "mtatwist.auth.lockout.refusals", "Logins refused by a lock, without asking further", "{login}"
        )
        self.validators = {name: _verdicts(name) for name in VALIDATORS}
        self.send_as_refused = Counter(
            "mtatwist.submission.send_as.refusals",
            "Reverse paths and messages refused: their sender is somebody else",
            "{refusal}",
        )
        self.from_mismatches = Counter(
            "mtatwist.submission.from.mismatches",
            "Messages from addresses that their sender may not use",
            "{message}",
        )
        self.submission_limited = Counter(
            "mtatwist.submission.limit.refusals",
            "Messages and recipients answered 450: over a limit of their account",
            "{refusal}",
        )
        self.submission_limits_near = Counter(
            "mtatwist.submission.limit.warnings", "Times that an account came near one of its limits", "{warning}"
        )
        self.fields_added = Counter(
            "mtatwist.submission.field.additions", "Date, Message-ID and Sender fields that messages lacked", "{field}"
        )
        self.recipients_unknown, self.recipients_unchecked, self.aliases_unusable = counters(
            "mtatwist.recipient.refusals",
            "Recipients at our domains that were refused; unknown: nobody has them, 550;"
            " unchecked: the directory could not tell, 451; alias: it is a loop, or too large, 451",
            "{recipient}",
            REASON,
            "unknown",
            "unchecked",
            "alias",
        )
        self.recipients_expanded = Counter(
            "mtatwist.recipient.expansions", "Recipients replaced by those they stand for", "{recipient}"
        )
        self.recipient_files_refused = Counter(
            "mtatwist.recipient.file.failures",
            "Changed files of aliases or recipients that could not be used",
            "{file}",
        )
        self.devices_refused = Counter(
            "mtatwist.device.refusals", "Senders that a device may not use, answered 553", "{refusal}"
        )
        self.directory_search_seconds, self.directory_bind_seconds = (
            Histogram(
                "mtatwist.directory.operation.duration",
                "One operation of the directory, waiting included",
                SECONDS,
                "s",
                {"mtatwist.operation": operation},
            )
            for operation in ("search", "bind")
        )
        (
            self.directory_unreachable,
            self.directory_slow,
            self.directory_untrusted,
            self.directory_refused,
            self.directory_busy,
        ) = counters(
            "mtatwist.directory.failures",
            "Trouble with the directory; unreachable: a server, or it hung up; timeout: it took too long; untrusted: it"
            " has no TLS, or a wrong certificate; refused: it did not understand or permit a request; busy: not put"
            " to it, too many waited",
            "{failure}",
            ERROR,
            "unreachable",
            "timeout",
            "untrusted",
            "refused",
            "busy",
        )
        self.directory_servers_down = UpDownCounter(
            "mtatwist.directory.server.down", "Directory servers left alone after they failed", "{server}"
        )
