"""What no single value can tell: checks that look at several keys at once."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Sequence
from typing import Protocol

from mtatwist.schema import Config
from mtatwist.schema.directory_checks import check_directory
from mtatwist.schema.pair_checks import check_pair
from mtatwist.schema.route_checks import check_mailboxes, check_routes
from mtatwist.schema.watching_checks import check_control, check_health, check_metrics
from mtatwist.schema.who_checks import check_devices, check_networks, check_recipients
from mtatwist.values.names import parse_next_hop, show_host_port
from mtatwist.values.numbers import show_duration


class Report(Protocol):
    """Where checks say what they find. What is wrong already is ``None`` in what they look at."""

    warnings: list[str]

    def problem(self, path: str, reason: str) -> None:
        """Note that the value at ``path`` is wrong."""

    def good(self, *paths: str) -> bool:
        """Tell whether nothing is wrong so far at these paths or, of a list or table, in it."""


def _check_listen(config: Config, report: Report) -> None:
    seen: dict[str, int] = {}
    if not config.listen and report.good("listen"):
        report.problem("listen", 'no [[listen]]: nothing would receive mail; write one, with endpoint = "tcp:25"')
    for index, listen in enumerate(config.listen):
        path = f"listen[{index}]"
        if report.good(f"{path}.endpoint"):
            first = seen.setdefault(listen.endpoint, index)
            if first != index:
                report.problem(f"{path}.endpoint", f"listen[{first}] has the same endpoint: remove one of them")
            if listen.endpoint.startswith("ssl:"):
                report.problem(
                    f"{path}.endpoint",
                    '"ssl:" does TLS of its own, without the policy of [tls]: write "tcp:" and tls = "implicit"',
                )
        without = config.tls.certificate is None and config.tls.private_key is None
        if listen.tls in ("starttls", "implicit") and without and report.good("tls"):
            report.problem(
                f"{path}.tls",
                f'"{listen.tls}" needs a certificate: write tls.certificate and tls.private_key, or tls = "none" here',
            )
        if listen.role == "submission":
            _check_submission(config, path, listen.tls, report)


def _check_submission(config: Config, path: str, tls: str, report: Report) -> None:
    """Somebody should be able to log in."""
    if tls == "none" and config.auth.require_tls:
        report.warnings.append(
            f'{path}.tls is "none" and auth.require_tls is true, so nobody can log in: write "starttls" or '
            '"implicit", or auth.require_tls = false where the way to us is secret without TLS'
        )
    if not config.auth.mechanisms:
        report.warnings.append(f'{path}.role is "submission", but auth.mechanisms is empty: nobody can log in')


def _check_tls(config: Config, report: Report) -> None:
    if not report.good("tls.certificate", "tls.private_key"):
        return
    tls = config.tls
    check_pair(tls, "tls", "certificate", "private_key", report)
    if tls.names and tls.certificate is None and tls.private_key is None:
        report.problem(
            "tls.certificate", "is missing: [[tls.name]] is for names that it does not have, so write it too"
        )
    if not report.good("tls.client_certificates", "tls.client_ca_file"):
        return
    if tls.client_certificates != "none" and tls.client_ca_file is None:
        report.problem(
            "tls.client_ca_file",
            f'is missing: tls.client_certificates is "{tls.client_certificates}", so write whose certificates count',
        )
    if tls.client_certificates == "none" and tls.client_ca_file is not None:
        report.warnings.append('tls.client_ca_file has no effect while tls.client_certificates is "none"')
    _check_demanding(config, report)


def _check_demanding(config: Config, report: Report) -> None:
    if config.tls.client_certificates != "require":
        return
    for index, listen in enumerate(config.listen):
        if listen.role == "mx" and listen.tls in ("starttls", "implicit"):
            report.warnings.append(
                f'listen[{index}] is for other mail servers, and with tls.client_certificates = "require" their TLS '
                "fails: they deliver in clear, or not at all"
            )


def _check_relay(config: Config, report: Report) -> None:
    relay = config.relay
    if report.good("relay.retry", "relay.max_age") and relay.max_age < relay.retry[0]:
        report.problem(
            "relay.max_age",
            f'"{show_duration(relay.max_age)}" is shorter than the first wait of relay.retry, '
            f'"{show_duration(relay.retry[0])}": nothing would be tried twice; write "5d" or so',
        )


def _check_validators(config: Config, report: Report) -> None:
    if not report.good("validators.order"):
        return
    order = config.validators.order
    if "relay" not in order:
        report.problem("validators.order", 'lacks "relay", which makes an open relay: add "relay"')
    if "send_as" not in order and any(listen.role == "submission" for listen in config.listen):
        report.warnings.append('validators.order lacks "send_as": who has logged in may send as anybody')
    if "rate" not in order and (config.submission.messages or config.submission.recipients):
        report.warnings.append('validators.order lacks "rate", so the limits in [submission] have no effect')
    for index, name in enumerate(order):
        if name in order[:index]:
            report.problem(f"validators.order[{index}]", f'"{name}" is in the list twice: remove one of them')


def _check_dns(config: Config, report: Report) -> None:
    if not report.good("dns"):
        return
    if config.dns.minimum_ttl > config.dns.maximum_ttl:
        report.problem("dns.minimum_ttl", "is longer than dns.maximum_ttl: make it the shorter of the two")
    away = [server for server in config.dns.servers if not ipaddress.ip_address(server[0]).is_loopback]
    if config.dns.trust_ad and away:
        report.warnings.append(
            f"dns.trust_ad is on, and {show_host_port(away[0])} is another machine: whoever sits on the way to it can "
            "make up what is called authentic"
        )
    seen: dict[str, int] = {}
    for index, override in enumerate(config.dns.overrides):
        path = f"dns.override[{index}]"
        first = seen.setdefault(override.domain, index)
        if first != index:
            report.problem(f"{path}.domain", f"dns.override[{first}] has the same domain: remove one of them")
        if not override.addresses and not override.servers:
            report.problem(path, "says nothing: write its addresses, or the servers that know it")


def _check_lockout(config: Config, report: Report) -> None:
    lockout = config.auth.lockout
    if not report.good("auth.lockout.threshold", "auth.lockout.address_threshold"):
        return
    for name in ("threshold", "address_threshold"):
        if getattr(lockout, name) > 1000:
            report.problem(f"auth.lockout.{name}", "must be at most 1000: more are as good as none")
    if lockout.address_threshold < lockout.threshold:
        report.problem(
            "auth.lockout.address_threshold",
            "is less than auth.lockout.threshold: one person's mistakes would lock out everybody at the same address",
        )


CHECKS: Sequence[Callable[[Config, Report], None]] = (
    _check_listen,
    _check_tls,
    _check_relay,
    check_networks,
    check_devices,
    check_recipients,
    check_routes,
    check_mailboxes,
    _check_validators,
    _check_dns,
    check_metrics,
    check_health,
    check_control,
    _check_lockout,
    check_directory,
)


def with_next_hops(config: Config, report: Report) -> Config:
    """Return the configuration with next hops in the normal form of their transports."""
    routes = []
    for index, route in enumerate(config.routes):
        path = f"route[{index}]"
        if route.next_hop is None:
            if route.transport in ("lmtp", "maildir") and report.good(f"{path}.next_hop"):
                example = "unix:/run/dovecot/lmtp" if route.transport == "lmtp" else "maildir/{local}"
                report.problem(f"{path}.next_hop", f'is missing: write it, such as next_hop = "{example}"')
        elif report.good(f"{path}.transport", f"{path}.next_hop"):
            try:
                next_hop = parse_next_hop(route.next_hop, route.transport, config.server.data_dir or "")
                route = dataclasses.replace(route, next_hop=next_hop)
            except ValueError as error:
                report.problem(f"{path}.next_hop", str(error))
        routes.append(route)
    return dataclasses.replace(config, routes=tuple(routes))
