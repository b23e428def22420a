"""Checks of [control], [metrics] and [health]: what would let a key out, can't be sent, or lets nobody in."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mtatwist.schema import Config
    from mtatwist.schema.checks import Report


def check_metrics(config: Config, report: Report) -> None:
    """Where metrics are pushed to, and with what."""
    metrics = config.metrics
    if metrics.endpoint is not None and report.good("metrics.endpoint"):
        _check_endpoint(metrics.endpoint, with_key=metrics.api_key is not None, report=report)
    if metrics.api_key is not None and report.good("metrics.api_key"):
        # RFC 9110 §5.5; no message shows what is wrong with which character.
        if not re.fullmatch(r"[\x21-\x7e]+", metrics.api_key.reveal()):
            report.problem(
                "metrics.api_key", "can't be sent: it may only have ASCII letters, digits and marks, in one word"
            )
        if metrics.endpoint is None:
            report.warnings.append("metrics.api_key has no effect without metrics.endpoint")
    for index, attribute in enumerate(metrics.attributes or ()):
        if attribute.startswith("="):
            report.problem(f"metrics.attributes[{index}]", 'has no name: write "name=value"')


def _check_endpoint(endpoint: str, *, with_key: bool, report: Report) -> None:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, 0
    if not host or port == 0:
        report.problem("metrics.endpoint", 'has no host, or no valid port: write "http://127.0.0.1:4318/v1/metrics"')
        return
    if "@" in parts.netloc:
        report.problem(
            "metrics.endpoint", "has a name and a password in it, which logs would show: write metrics.api_key"
        )
    if parts.path in ("", "/"):
        report.warnings.append("metrics.endpoint has no path, and is taken as it is: most collectors want /v1/metrics")
    if with_key and parts.scheme.lower() == "http" and not _is_here(host):
        report.warnings.append(
            "metrics.api_key goes in clear to another machine: write https:// in metrics.endpoint, if the collector can"
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_health(config: Config, report: Report) -> None:
    """Nobody else may have its endpoint."""
    if config.health.endpoint is None or not report.good("health.endpoint", "listen"):
        return
    if re.match(r"tcp6?:0(:|$)", config.health.endpoint):
        # Any port that is free.
        return
    for index, listen in enumerate(config.listen):
        if listen.endpoint == config.health.endpoint:
            report.problem("health.endpoint", f"listen[{index}] has the same endpoint: write another one")


def check_control(config: Config, report: Report) -> None:
    """A mode that goes with the group, and tokens that can be told apart."""
    control = config.control
    if report.good("control.mode", "control.group"):
        if control.mode == "0660" and control.group is None:
            report.problem("control.mode", '"0660" is for the members of a group: write control.group, too, or "0600"')
        if control.mode == "0600" and control.group is not None:
            report.warnings.append('control.group has no effect with the mode "0600": write control.mode = "0660"')
    for key in ("name", "sha256"):
        seen: dict[str, int] = {}
        for index, token in enumerate(control.tokens):
            path = f"control.token[{index}].{key}"
            if report.good(path):
                first = seen.setdefault(getattr(token, key), index)
                if first != index:
                    report.problem(path, f"control.token[{first}] has the same one: give each its own")
