"""The configuration's schema: every key, once, with its type, default and documentation.

The classes below are at the same time what :func:`mtatwist.config.load` returns and what it reads by; the
commented ``conf/mtatwist.toml``, ``docs/configuration.rst`` and ``mtactl config describe`` are written from
them too. To add a key, add one line here and one to the table in ``tests/test_config.py``, then generate the
two files again.
"""

# The calls in the class bodies declare dataclass fields; none of them makes a shared value.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mtatwist.schema.declare import Key, Table, items, table, tables
from mtatwist.schema.mail import (
    VALIDATOR_NAMES,
    ClientTimeouts,
    Limits,
    Listen,
    Log,
    Route,
    Server,
    Spool,
    Timeouts,
    Tls,
    TlsName,
    Validators,
)
from mtatwist.schema.relay import Device, Relay
from mtatwist.schema.services import (
    Auth,
    Control,
    Dns,
    Health,
    Ldap,
    Lockout,
    Metrics,
    Override,
    Token,
)
from mtatwist.schema.submission import Submission

__all__ = [
    "VALIDATOR_NAMES",
    "Auth",
    "ClientTimeouts",
    "Config",
    "Control",
    "Device",
    "Dns",
    "Entry",
    "Health",
    "Ldap",
    "Limits",
    "Listen",
    "Lockout",
    "Log",
    "Metrics",
    "Override",
    "Relay",
    "Route",
    "Server",
    "Spool",
    "Submission",
    "Timeouts",
    "Tls",
    "TlsName",
    "Token",
    "Validators",
    "items",
    "walk",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration.

    :ivar source: the file it came from, as it was named; ``None`` for the embedded set-up.
    :ivar embedded: whether there was no file.
    :ivar warnings: what the administrator should know at start, one line each.
    """

    server: Server = table(Server)
    listen: tuple[Listen, ...] = tables(Listen, "listen")
    tls: Tls = table(Tls)
    relay: Relay = table(Relay)
    routes: tuple[Route, ...] = tables(Route, "route")
    limits: Limits = table(Limits)
    timeouts: Timeouts = table(Timeouts)
    submission: Submission = table(Submission)
    validators: Validators = table(Validators)
    spool: Spool = table(Spool)
    log: Log = table(Log)
    auth: Auth = table(Auth)
    control: Control = table(Control)
    metrics: Metrics = table(Metrics)
    health: Health = table(Health)
    dns: Dns = table(Dns)
    warnings: tuple[str, ...] = ()
    embedded: bool = False
    source: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A key or table with its place: ``path`` is like "auth.lockout.window"."""

    path: str
    item: Key | Table


def walk(cls: type[Any] | None = None, path: str = "") -> Iterator[Entry]:
    """Yield every key and table of the schema; a table comes before what it holds, its keys first."""
    entries = [Entry(f"{path}.{name}" if path else name, item) for name, (_, item) in items(cls or Config).items()]
    yield from (entry for entry in entries if isinstance(entry.item, Key))
    for entry in entries:
        if isinstance(entry.item, Table):
            yield entry
            yield from walk(entry.item.cls, entry.path)
