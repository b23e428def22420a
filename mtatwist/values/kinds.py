"""The kinds of values that keys are declared with: parser, inverse and documentation of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mtatwist.values.base import BadItems, Context, Kind, any_of, quoted, wrong_type
from mtatwist.values.names import (
    parse_address,
    parse_dns_server,
    parse_domain,
    parse_endpoint,
    parse_ip_address,
    parse_network,
    parse_route_domain,
    parse_sender,
    parse_url,
    show_host_port,
)
from mtatwist.values.numbers import (
    parse_boolean,
    parse_duration,
    parse_integer,
    parse_rate,
    parse_retry,
    parse_size,
    show_duration,
    show_rate,
    show_retry,
    show_size,
)
from mtatwist.values.strings import (
    Secret,
    parse_base_dn,
    parse_bind_name,
    parse_choice,
    parse_delimiter,
    parse_path,
    parse_recipient_filter,
    parse_secret,
    parse_sha256,
    parse_text,
)

T = TypeVar("T")


def _same(value: object) -> object:
    return value


def plain(
    name: str, example: str, parse: Callable[[object], T], show: Callable[[T], object] = _same, doc: str = ""
) -> Kind[T]:
    """Make a kind whose values depend on their own text only."""
    return Kind(name, example, lambda raw, _: parse(raw), show, doc)


def integer(minimum: int = 1) -> Kind[int]:
    """Make the kind of whole numbers from ``minimum`` up."""
    return plain("number", "20", lambda raw: parse_integer(raw, minimum))


def choice(*choices: str) -> Kind[str]:
    """Make the kind of a string that is one of a few words."""
    return plain(
        any_of(choices),
        f'"{choices[0]}"',
        lambda raw: parse_choice(raw, choices),
    )


def text(example: str, must_contain: str = "") -> Kind[str]:
    """Make the kind of any string, which may have to contain a mark."""
    return plain("string", example, lambda raw: parse_text(raw, must_contain, example))


def url(example: str, *schemes: str) -> Kind[str]:
    """Make the kind of URLs with one of the schemes."""
    return plain("URL", example, lambda raw: parse_url(raw, schemes, example))


def list_of(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """Make the kind of lists of a kind; each wrong item is reported with its index."""

    def parse(raw: object, context: Context) -> tuple[T, ...]:
        if not isinstance(raw, list):
            if isinstance(raw, str):
                raise ValueError(f"expected a list, but found a string: write [{quoted(raw)}]")
            raise wrong_type(raw, "a list", f"[{kind.example}]")
        items: list[T] = []
        reasons: list[tuple[int, str]] = []
        for index, item in enumerate(raw):
            try:
                items.append(kind.parse(item, context))
            except ValueError as error:
                reasons.append((index, str(error)))
        if reasons:
            raise BadItems(reasons)
        return tuple(items)

    name = f"list of: {kind.name}" if kind.name.startswith('"') else f"list of {kind.name}s"
    return Kind(name, f"[{kind.example}]", parse, lambda values: [kind.show(value) for value in values], kind.doc)


_DURATION_DOC = (
    'A number and its unit: "ms", "s", "m" (minutes), "h", "d" or "w", as in "250ms", "5m" or "1h30m". '
    "A number without a unit is refused."
)
BOOLEAN = plain("boolean", "true", parse_boolean)
DURATION = plain("duration", '"5m"', parse_duration, show_duration, _DURATION_DOC)
DURATION_OR_ZERO = plain("duration", '"5m"', lambda raw: parse_duration(raw, zero=True), show_duration, _DURATION_DOC)
_SIZE_DOC = (
    'A number of bytes, alone or with a unit: "KiB", "MiB", "GiB" and "TiB" count in 1024, "kB", "MB", '
    '"GB" and "TB" in 1000.'
)
SIZE = plain("size", '"25MiB"', parse_size, show_size, _SIZE_DOC)
SIZE_OR_ZERO = plain("size", '"25MiB"', lambda raw: parse_size(raw, zero=True), show_size, _SIZE_DOC)
RATE = plain(
    "rate",
    '"100/h"',
    parse_rate,
    show_rate,
    'A count, a slash and a time: "100/h" is at most a hundred in any hour, "20/10m" twenty in any ten minutes.',
)
RETRY = plain(
    "retry schedule",
    '"1m, 5m, 15m, 1h*4, 4h*12"',
    parse_retry,
    show_retry,
    'Durations between commas: the wait before each next attempt. "1h*4" stands for four waits of an hour.',
)
DOMAIN = plain(
    "domain",
    '"example.org"',
    parse_domain,
    doc="A domain name, in ASCII or in its own script, without a final dot. Case does not matter.",
)
ROUTE_DOMAIN = plain("domain pattern", '"example.org"', parse_route_domain)
ADDRESS = plain("mail address", '"admin@example.org"', parse_address)
SENDER = plain("sender", '"printer@example.org"', parse_sender)
NETWORK = plain(
    "network",
    '"192.0.2.0/24"',
    parse_network,
    str,
    'An IPv4 or IPv6 network, such as "192.0.2.0/24" or "2001:db8::/32"; an address alone is that one host. '
    "Bits set beyond the prefix are refused.",
)
ENDPOINT = plain(
    "endpoint",
    '"tcp:25"',
    parse_endpoint,
    doc='A Twisted server endpoint string, such as "tcp:25", "tcp:25:interface=192.0.2.1" or '
    '"systemd:domain=INET:index=0".',
)
DNS_SERVER = plain("DNS server", '"127.0.0.1:5353"', parse_dns_server, show_host_port)
IP_ADDRESS = plain("IP", '"192.0.2.25"', parse_ip_address)
PORT = plain("port", "25", lambda raw: parse_integer(raw, 1, 65535))
DELIMITER = plain("character", '"+"', parse_delimiter)
RECIPIENT_FILTER = plain(
    "recipient filter",
    '"(mail={address})"',
    parse_recipient_filter,
    doc='An LDAP filter in which "{address}", "{local}" and "{domain}" stand for the recipient\'s.',
)
BASE_DN = plain("DN", '"ou=people,dc=example,dc=org"', parse_base_dn)
BIND_NAME = plain("DN", '"cn=mta,dc=example,dc=org"', parse_bind_name)
SHA256 = plain("SHA-256 in hexadecimal", '"' + "0" * 64 + '"', parse_sha256)
PATH: Kind[str] = Kind(
    "path",
    '"/etc/ssl/mx.pem"',
    lambda raw, context: parse_path(raw, context.directory),
    _same,
    "A file or directory. A relative path starts at the directory that the configuration file is in.",
)
DATA_PATH: Kind[str] = Kind(
    "path in data_dir",
    '"users"',
    lambda raw, context: parse_path(raw, context.data_dir),
    _same,
    'A file or directory. A relative path starts at "server.data_dir".',
)
SECRET: Kind[Secret] = Kind(
    "secret",
    '"env:NAME"',
    parse_secret,
    str,
    '"env:NAME" takes it from an environment variable, "file:PATH" from a file (a line end at its end is '
    "dropped; a relative path starts at the directory of the configuration file). Anything else is the "
    "secret itself. There is a warning when others than its owner can read a configuration file with a "
    "secret in it, and when everybody can read a secret's own file.",
)
