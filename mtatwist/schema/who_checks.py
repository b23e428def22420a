"""Checks over several keys about who may relay, and who gets mail."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from mtatwist.schema import Config
from mtatwist.values.names import Network

if TYPE_CHECKING:
    from mtatwist.schema.checks import Report

# A server may see an IPv4 client as ::ffff:192.0.2.1, so this network is all of IPv4.
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

_EVERYBODY = "everybody, which makes an open relay: write the networks that are yours"


def check_networks(config: Config, report: Report) -> None:
    """Nobody may let everybody relay."""
    if not report.good("relay.networks", "relay.device"):
        return
    places = {f"relay.networks[{index}]": network for index, network in enumerate(config.relay.networks)}
    places |= {f"relay.device[{index}].network": device.network for index, device in enumerate(config.relay.devices)}
    everybody = {path: network for path, network in places.items() if _is_everybody(network)}
    for path, network in everybody.items():
        report.problem(path, f'"{network}" is {_EVERYBODY}')
    networks = list(places.values())
    if not everybody:
        # Two halves of the internet are the internet, too.
        four = ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv4Network))
        six = ipaddress.collapse_addresses(each for each in networks if isinstance(each, ipaddress.IPv6Network))
        if any(net.prefixlen == 0 for net in four) or any(net.prefixlen == 0 for net in six):
            with_devices = " with those of [[relay.device]]" if config.relay.devices else ""
            report.problem("relay.networks", f"together{with_devices} these are {_EVERYBODY}")
    onions = [index for index, each in enumerate(config.listen) if (each.endpoint or "").startswith("onion:")]
    loopback = next((path for path, network in places.items() if network.is_loopback), None)
    if onions and loopback is not None:
        report.warnings.append(
            f"{loopback.partition('[')[0]} has loopback addresses, and the clients of listen[{onions[0]}], an onion "
            "service, come from such: all of them may relay"
        )


def _is_everybody(network: Network) -> bool:
    return network.prefixlen == 0 or (isinstance(network, ipaddress.IPv6Network) and MAPPED.subnet_of(network))


def check_devices(config: Config, report: Report) -> None:
    """A device sends from somewhere, and somebody looks at that."""
    if not report.good("relay.device"):
        return
    seen: dict[Network, int] = {}
    for index, device in enumerate(config.relay.devices):
        path = f"relay.device[{index}]"
        first = seen.setdefault(device.network, index)
        if first != index:
            report.problem(f"{path}.network", f"relay.device[{first}] has the same network: write all senders there")
        if not device.senders:
            report.problem(f"{path}.senders", 'is empty, so it may send nothing: write addresses, or "@example.org"')
    if config.relay.devices and report.good("validators.order") and "device" not in config.validators.order:
        report.problem("validators.order", 'lacks "device", so [[relay.device]] would bind nobody: add "device"')


def check_recipients(config: Config, report: Report) -> None:
    """A search needs a server, and whom it is for."""
    if not report.good("auth.ldap", "relay"):
        return
    ldap, relay = config.auth.ldap, config.relay
    filters = {f"auth.ldap.{key}": getattr(ldap, key) for key in ("recipient_filter", "alias_filter")}
    for path, value in filters.items():
        if value is not None and not ldap.uris:
            report.problem(path, "needs a directory: write auth.ldap.uris, or leave the filter out")
    for path, value in {"relay.aliases": relay.aliases, "relay.recipients": relay.recipients, **filters}.items():
        if value is not None and not relay.domains:
            report.warnings.append(f"{path} has no effect while relay.domains is empty: write your domains there")
