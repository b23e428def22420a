"""What is relayed and for whom, who gets mail here, and how long delivery is tried."""

# The calls in the class bodies declare dataclass fields; none of them makes a shared value.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtatwist.schema.declare import computed, key, optional, required, tables
from mtatwist.values import kinds as v
from mtatwist.values.base import Context
from mtatwist.values.names import Network


def _default_postmaster(so_far: Mapping[str, Any], context: Context) -> str:
    domains = so_far.get("domains") or (context.hostname,)
    return f"postmaster@{domains[0]}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A printer, a scanner or an old program that has to send mail and cannot authenticate: one table for each network.

    Clients in the network may send to any domain, as those in "relay.networks" may, but only from the addresses listed
    here; they need not be in "relay.networks", too. Of several networks that a client is in, those in
    "relay.networks" included, the smallest decides.
    """

    network: Network = required(v.NETWORK, "Where the device is.", example='"192.0.2.17"')
    senders: tuple[str, ...] = required(
        v.list_of(v.SENDER),
        'The addresses it may send from: "printer@example.org", "@lab.example.org" for all of that domain, "<>" for '
        "the empty one of reports. Other MAIL commands get 553.",
        example='["printer@example.org"]',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What mail is accepted, and how long delivery is tried."""

    networks: tuple[Network, ...] = key(
        v.list_of(v.NETWORK),
        [],
        "Clients in these networks may send to any domain without authentication. Everybody in them can "
        'use this server, so all of the internet is refused here. Do not list "127.0.0.0/8" if an onion '
        "service or a proxy connects from there.",
        example='["127.0.0.0/8", "::1/128"]',
    )
    domains: tuple[str, ...] = key(
        v.list_of(v.DOMAIN),
        [],
        "Mail for these domains is accepted from everyone.",
        example='["example.org"]',
    )
    postmaster: str = computed(
        v.ADDRESS,
        'postmaster at the first of "relay.domains", else at "server.hostname"',
        _default_postmaster,
        'Who gets mail for "postmaster" without a domain and for postmaster at every domain of "relay.domains".',
    )
    recipient_delimiter: str = key(
        v.DELIMITER,
        "+",
        'What divides a user\'s name from a detail, as in "user+detail@example.org"; "" for nothing.',
    )
    recipients: str | None = optional(
        v.PATH,
        'A file with those who get mail at "relay.domains", one a line: an address, a local part for all of these '
        'domains, or "@example.org" for everybody at that domain. Others are refused with 550. It is read again when '
        'it changes. Without it and without "auth.ldap.recipient_filter", everybody at these domains is accepted.',
        example='"/etc/mtatwist/recipients"',
    )
    aliases: str | None = optional(
        v.PATH,
        "A file that says which addresses stand for which others, in the form of /etc/aliases, addresses only. It is "
        "read again when it changes.",
        example='"/etc/aliases"',
    )
    expansion: int = key(
        v.integer(1),
        1000,
        "The most recipients that one message may have once aliases and groups have become their members; what would "
        "be more gets 451 or, next to other recipients, 452.",
    )
    retry: tuple[float, ...] = key(
        v.RETRY,
        "1m, 5m, 15m, 1h*4, 4h*12",
        'How long to wait after each failed attempt; the last wait repeats until "relay.max_age".',
    )
    max_age: float = key(v.DURATION, "5d", "How long delivery is tried before the message goes back to its sender.")
    connections: int = key(
        v.integer(2),
        500,
        "The most connections at the same time to all next hops together. No next hop gets more than half of them, "
        "and when many want some, they share.",
    )
    warn_after: float = key(
        v.DURATION_OR_ZERO,
        "4h",
        'When the sender is told that delivery is late, once for each recipient; "0s" for never.',
    )
    return_size: int = key(
        v.SIZE,
        "1MiB",
        "The largest message that goes back whole with the report that it failed, if its sender asked for that "
        "(RET=FULL). Of others, only the header section does.",
    )
    devices: tuple[Device, ...] = tables(Device, "device")
