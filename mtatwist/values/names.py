"""Domains, addresses, networks, endpoints and next hops."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import idna
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from mtatwist.values.base import any_of, nearest, quoted, string

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LDH_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ATOM = r"[^\x00-\x20\x7f-\x9f()<>\[\]:;@\\,.\"\s]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)", re.DOTALL)
_ENDPOINT_TYPES = ("tcp", "tcp6", "unix", "ssl", "systemd")
_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,9}))?")


def parse_domain(raw: object) -> str:
    """Read a domain name of LDH labels or U-labels: lower case, A-labels, as the DNS knows it (RFC 5890 §2.3.2.1)."""
    text = string(raw, "a domain", '"example.org"')
    if text.endswith("."):
        raise ValueError(f"{quoted(raw)} ends with a dot: write {quoted(text.rstrip('.'))}")
    labels = text.lower().split(".")
    wire = []
    for label in labels:
        if not label:
            raise ValueError(f"{quoted(raw)} is not a domain: there is nothing between two dots")
        encoded = _wire_label(label)
        if encoded is None:
            raise ValueError(
                f"{quoted(raw)} is not a domain: {quoted(label)} must be letters, digits and inner hyphens, "
                'as in "mail-1.example.org"'
            )
        if len(encoded) > 63:
            raise ValueError(f"{quoted(raw)} is not a domain: {quoted(label)} is longer than 63 characters")
        wire.append(encoded)
    domain = ".".join(wire)
    if len(domain) > 253:
        raise ValueError(f"{quoted(raw)} is not a domain: it is longer than 253 characters")
    if labels[-1].isdecimal():
        raise ValueError(f"{quoted(raw)} is an address or a number, not a domain: write a name")
    return domain


def _wire_label(label: str) -> str | None:
    """The label as it goes over the wire; ``None`` when it is none."""
    if label.isascii():
        return label if _LDH_LABEL.fullmatch(label) else None
    try:
        return idna.encode(label, uts46=True).decode("ascii")
    except idna.IDNAError:
        return None


def parse_address(raw: object) -> str:
    """Read a mail address, and lower-case its domain."""
    text = string(raw, "a mail address", '"postmaster@example.org"')
    local, at, domain = text.rpartition("@")
    if not at or not domain:
        raise ValueError(f'{quoted(raw)} is not a mail address: it needs an "@" and a domain')
    if not _DOT_ATOM.fullmatch(local) or len(local.encode()) > 64:
        raise ValueError(f'{quoted(raw)} is not a mail address: {quoted(local)} cannot stand before the "@"')
    return f"{local}@{parse_domain(domain)}"


def parse_sender(raw: object) -> str:
    """Read which reverse paths are meant: an address, "@" and a domain for all of it, or "<>"."""
    text = string(raw, "a sender", '"printer@example.org"')
    if text == "<>":
        return text
    return f"@{parse_domain(text[1:])}" if text.startswith("@") else parse_address(text)


def parse_network(raw: object) -> Network:
    """Read an IP network, or a single address as the network of just that."""
    text = string(raw, "a network", '"192.0.2.0/24"').strip()
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        right = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f'{quoted(raw)} is not a network: write an address and a prefix length, such as "192.0.2.0/24" '
            'or "2001:db8::/32"'
        ) from None
    raise ValueError(
        f'{quoted(raw)} has bits set beyond its prefix: write "{right}" (or the address alone, for one host)'
    )


def parse_endpoint(raw: object) -> str:
    """Read a Twisted server endpoint string: of a type that Twisted or an installed plugin provides.

    The arguments are checked too, where that takes neither a plugin nor a file.
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        raise ValueError(f'expected an endpoint string, but found a number: write "tcp:{raw}"')
    text = string(raw, "an endpoint", '"tcp:25"')
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        cure = f'"tcp:{text}"' if text.isdecimal() else 'a type, a colon and its arguments, such as "tcp:25"'
        raise ValueError(f"{quoted(raw)} is not an endpoint: write {cure}")
    kind, arguments = match.groups()
    if kind not in _ENDPOINT_TYPES:
        installed = sorted({*_ENDPOINT_TYPES, *_types_of_plugins()})
        if kind not in installed:
            if kind == "onion":
                raise ValueError(f"{quoted(raw)} needs the package txtorcon: install it")
            close = nearest(kind, installed)
            cure = f"did you mean {quoted(f'{close}:{arguments}')}?" if close else f"write {any_of(installed)}"
            raise ValueError(f"{quoted(raw)} is not an endpoint: no plugin provides the type {quoted(kind)}; {cure}")
    if kind in ("tcp", "tcp6", "ssl"):
        _check_port(raw, kind, arguments)
    if kind in ("tcp", "tcp6", "unix"):
        try:
            # Making one of these touches no reactor.
            serverFromString(cast(Any, None), text)
        except (ValueError, TypeError, LookupError):
            example = "unix:/run/mta.sock" if kind == "unix" else f"{kind}:25:interface=ADDRESS"
            raise ValueError(
                f"{quoted(raw)} has arguments that {kind} does not take: write them as in {quoted(example)}, "
                "with a backslash before each colon of an address"
            ) from None
    return text


def _check_port(raw: object, kind: str, arguments: str) -> None:
    parts = re.split(r"(?<!\\):", arguments)
    port = next((part.removeprefix("port=") for part in parts if part.startswith("port=")), parts[0])
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f'{quoted(raw)} has no valid port: write a number from 0 to 65535, as in "{kind}:25"')


@lru_cache(maxsize=1)
def _types_of_plugins() -> frozenset[str]:
    """Endpoint types that are there besides those of Twisted, such as onion."""
    return frozenset(plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser))


def parse_host_port(raw: object, default_port: int) -> tuple[str, int]:
    """Read "host:port", "[v6]:port" or a host alone, which gets ``default_port``."""
    text = string(raw, "a host and port", f'"mx.example.org:{default_port}"')
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        pass
    else:
        raise ValueError(f"{quoted(raw)} is ambiguous: write {_in_brackets(text, default_port)}")
    match = _HOST_PORT.fullmatch(text)
    named = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]+):([^:\[\]]*)", text)
    if match is None and named:
        raise ValueError(
            f"{quoted(raw)} has no valid port: {quoted(named[2])} is no number, write one from 1 to 65535, "
            f'such as "{named[1]}:{default_port}"'
        )
    if match is None:
        raise ValueError(
            f'{quoted(raw)} is not a host and port: write "host:port" or "[v6]:port", '
            f'such as "mx.example.org:{default_port}"'
        )
    port = int(match[2]) if match[2] else default_port
    if not 1 <= port <= 65535:
        raise ValueError(f"{quoted(raw)} has no valid port: ports are 1 to 65535")
    host = match[1]
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1])), port
        if re.fullmatch(r"[0-9.]+", host):
            return str(ipaddress.IPv4Address(host)), port
    except ValueError:
        raise ValueError(f"{quoted(raw)}: {quoted(host)} is not an IP address") from None
    # Container networks give their services names with underscores.
    parse_domain(host.replace("_", "x"))
    return host.lower(), port


def _in_brackets(text: str, default_port: int) -> str:
    """How an IPv6 address without brackets may have been meant: its last group may be a port."""
    whole = f'"[{text}]:{default_port}"'
    address, _, port = text.rpartition(":")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return whole
    if not port.isdecimal():
        return whole
    return f'"[{address}]:{port}", or {whole} if all of it is the address'


def parse_ip_address(raw: object) -> str:
    """Read an IPv4 or IPv6 address, and return it in its normal form."""
    text = string(raw, "an IP address", '"192.0.2.25"')
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(
            f'{quoted(raw)} is not an IP address: write one such as "192.0.2.25" or "2001:db8::25"'
        ) from None


def parse_dns_server(raw: object) -> tuple[str, int]:
    """Read "address", "address:port" or "[v6]:port"; a name would have to be looked up by the server it names."""
    address, port = parse_host_port(raw, 53)
    try:
        return str(ipaddress.ip_address(address)), port
    except ValueError:
        raise ValueError(f'{quoted(raw)} is a name: write an address, such as "127.0.0.1" or "[::1]:5353"') from None


def show_host_port(address: tuple[str, int]) -> str:
    """Write "host:port", or "[v6]:port"."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_next_hop(raw: object, transport: str, data_dir: str) -> str:
    """Read where a route leads, and return it in its one normal form.

    That form is "host:port", "[v6]:port" or "unix:/path" for smtp and lmtp; for maildir it is an absolute directory
    path for :meth:`str.format`, with "{local}" and "{domain}", and any other brace doubled.
    """
    if transport == "maildir":
        text = string(raw, "a directory", '"maildir/{local}"')
        if re.search(r"[{}]", re.sub(r"\{(?:local|domain)\}|\{\{|\}\}", "", text)):
            raise ValueError(
                f'{quoted(raw)}: only "{{local}}" and "{{domain}}" may stand in braces; double a brace that is just one'
            )
        return os.path.normpath(os.path.join(re.sub(r"[{}]", r"\g<0>\g<0>", data_dir), text))
    default_port = 24 if transport == "lmtp" else 25
    text = string(raw, "a next hop", f'"mx.example.org:{default_port}"')
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError(f'{quoted(raw)} needs an absolute path, such as "unix:/run/dovecot/lmtp"')
        return text
    host, port = parse_host_port(text, default_port)
    if transport == "lmtp" and port == 25:
        raise ValueError(f'{quoted(raw)} is the port of SMTP, where LMTP must not be spoken: write "{host}:24"')
    return show_host_port((host, port))


def parse_route_domain(raw: object) -> str:
    """Read "example.org", "*.example.org" or "*"."""
    text = string(raw, "a domain", '"example.org", "*.example.org" or "*"')
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + parse_domain(text[2:])
    if "*" in text:
        raise ValueError(f'{quoted(raw)} is not a domain: write "*" alone or in front, as in "*.example.org"')
    return parse_domain(text)


def parse_url(raw: object, schemes: Sequence[str], example: str) -> str:
    """Read a URL with one of the schemes and a host."""
    text = string(raw, "a URL", example)
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in schemes or not separator or not rest.strip("/") or " " in text:
        wanted = any_of([f"{name}://" for name in schemes])
        raise ValueError(f"{quoted(raw)} is not such a URL: write {wanted} and a host, such as {example}")
    return text
