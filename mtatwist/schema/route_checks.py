"""Checks over several keys about where mail goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtatwist.schema import Config
    from mtatwist.schema.checks import Report

_LOOPBACK = re.compile(r"unix:|.*:interface=(?:127\.[0-9.]+|localhost|\\:\\:1)(?::|$)")


def check_routes(config: Config, report: Report) -> None:
    """Each route gets some mail, and all of its keys do something."""
    seen: dict[str, int] = {}
    for index, route in enumerate(config.routes):
        path = f"route[{index}]"
        if report.good(f"{path}.domain"):
            first = seen.setdefault(route.domain, index)
            covering = next((earlier for earlier in seen if _covers(earlier, route.domain)), None)
            if first != index:
                report.problem(f"{path}.domain", f"route[{first}] has the same domain: remove one of them")
            elif covering is not None:
                report.warnings.append(
                    f"{path} is never used: route[{seen[covering]}] comes first and takes all of its mail"
                )
        if route.tls == "verify" and (route.next_hop or "").startswith("unix:"):
            report.problem(f"{path}.tls", '"verify" needs a name, which a UNIX socket does not have: write "none"')
        if route.next_hop is not None and (route.mx_port, route.mx_loopback) != (25, False):
            report.warnings.append(f"{path} has a next_hop, so its mx_port and mx_loopback have no effect")


def check_mailboxes(config: Config, report: Report) -> None:
    """Strangers should not decide which Maildirs there are."""
    if not report.good("listen", "route", "relay", "auth.ldap"):
        return
    relay = config.relay
    if relay.recipients is not None or config.auth.ldap.recipient_filter is not None:
        return
    if all(listen.role != "mx" or _LOOPBACK.match(listen.endpoint) for listen in config.listen):
        return
    ours: dict[int, str] = {}
    for domain in relay.domains:
        index = next((index for index, route in enumerate(config.routes) if _takes(route.domain, domain)), None)
        if index is not None:
            ours.setdefault(index, domain)
    for index, domain in sorted(ours.items()):
        route = config.routes[index]
        if route.transport == "maildir" and "{local}" in re.sub(r"\{\{|\}\}", "", route.next_hop or ""):
            report.warnings.append(
                f'route[{index}].next_hop has "{{local}}", and nothing says who there is at {domain}: anybody can make '
                "up names there, and a Maildir is made for each; write relay.recipients or auth.ldap.recipient_filter"
            )


def _takes(pattern: str, domain: str) -> bool:
    return pattern == domain or _covers(pattern, domain)


def _covers(pattern: str, domain: str) -> bool:
    """Tell whether an earlier route's pattern leaves nothing for another one."""
    if pattern == domain:
        return False
    return pattern == "*" or (pattern.startswith("*.") and domain.endswith(pattern[1:]))
