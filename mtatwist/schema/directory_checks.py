"""What no single value of ``[auth.ldap]`` can tell."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mtatwist.schema.pair_checks import check_pair
from mtatwist.values.base import quoted

if TYPE_CHECKING:
    from mtatwist.schema import Config
    from mtatwist.schema.checks import Report


def check_directory(config: Config, report: Report) -> None:
    """Is all there to reach the directory, and to find somebody in it?"""
    ldap = config.auth.ldap
    if not report.good("auth.ldap"):
        return
    if config.auth.backend == "ldap" and not ldap.uris:
        report.problem("auth.ldap.uris", 'is missing: auth.backend is "ldap", so write where the directory is')
    if ldap.uris and ldap.base_dn is None:
        report.problem(
            "auth.ldap.base_dn", 'is missing: write below which entry people are, such as "dc=example,dc=org"'
        )
    check_pair(ldap, "auth.ldap", "bind_dn", "bind_password", report)
    for index, uri in enumerate(ldap.uris):
        _check_uri(f"auth.ldap.uris[{index}]", uri, ldap.start_tls, report)
    _check_filters(config, report)
    if ldap.connect_timeout > ldap.timeout:
        report.problem("auth.ldap.connect_timeout", "is longer than auth.ldap.timeout: make it the shorter of the two")


def _check_uri(path: str, uri: str, start_tls: bool, report: Report) -> None:
    try:
        parts = urlsplit(uri)
        known = parts.hostname and not parts.username and parts.path in ("", "/") and not parts.query
        port = parts.port
    except ValueError:
        known, port = False, None
    if not known or port == 0:
        report.problem(path, f'{quoted(uri)} has more or less than a host and a port: write "ldap://ldap.example.org"')
    elif parts.scheme.lower() == "ldap" and not start_tls and not _is_here(parts.hostname or ""):
        report.warnings.append(
            f"{path} is another machine, and auth.ldap.start_tls is off: passwords go there for everybody to read"
        )


def _is_here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _check_filters(config: Config, report: Report) -> None:
    """Does the library that asks the directory understand them?"""
    ldap = config.auth.ldap
    if ldap.group_filter is not None and not {"{dn}", "{user}"} & _places(ldap.group_filter):
        report.problem("auth.ldap.group_filter", f'{quoted(ldap.group_filter)} has neither "{{dn}}" nor "{{user}}"')
    if not ldap.uris:
        return
    # Who has no directory need not wait for it to load.
    from ldap3.operation.search import parse_filter

    for name in ("user_filter", "group_filter", "recipient_filter", "alias_filter", "member_filter"):
        text = getattr(ldap, name)
        if text is None:
            continue
        for place in _places(text):
            text = text.replace(place, "x")
        try:
            parse_filter(text, None, False, False, None, False)
        except Exception:
            # ldap3 raises all kinds of exceptions.
            report.problem(f"auth.ldap.{name}", f"{quoted(getattr(ldap, name))} is not a filter such as (uid={{user}})")


def _places(text: str) -> set[str]:
    return {place for place in ("{user}", "{dn}", "{address}", "{local}", "{domain}") if place in text}
