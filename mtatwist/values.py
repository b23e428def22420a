"""Values as people write them in the configuration file, and back.

Each ``parse_…`` function takes what ``tomllib`` gave and returns the typed value, or raises
:class:`ValueError` whose text names the cause and the cure and is fit for the administrator to read. Each
``show_…`` function is the inverse: what one would write in the file. A :class:`Kind` bundles the two with the
words for the documentation.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import ipaddress
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Generic, TypeVar

__all__ = [
    "BadItems",
    "Context",
    "Kind",
    "Network",
    "Rate",
    "Secret",
    "show_duration",
    "show_retry",
    "show_size",
    "toml_text",
]

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SECONDS = {"ms": Fraction(1, 1000)} | {
    unit: Fraction(seconds)
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 604800))
}
BYTES = {"": 1, "b": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
# Timers a century away are slips of the pen, and larger floats upset the reactor's heap.
LONGEST = 3650 * 86400
LARGEST = 2**63 - 1
SECRET_BYTES = 65536

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_DURATION = re.compile(rf"(?:\s*{_NUMBER}\s*(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|[smhdw])")
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.IGNORECASE)
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*(.+)")
_LDH_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ATOM = r"[^\x00-\x20\x7f-\x9f()<>\[\]:;@\\,.\"\s]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)", re.DOTALL)
_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,9}))?")


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What a value may depend on besides its own text.

    :ivar directory: where relative paths in the file start (the file's own directory).
    :ivar data_dir: where relative paths of stored things start.
    :ivar hostname: the configured host name.
    :ivar environ: the environment that ``env:NAME`` secrets come from.
    """

    directory: str = ""
    data_dir: str = ""
    hostname: str = "localhost"
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)


class BadItems(ValueError):
    """Several wrong items of one list: ``reasons`` holds ``(index, reason)`` pairs."""

    def __init__(self, reasons: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(f"[{index}]: {reason}" for index, reason in reasons))
        self.reasons = tuple(reasons)


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` events in any ``seconds``."""

    count: int
    seconds: float


class Secret:
    """A password or key, which no ``repr``, log line or traceback shows by accident.

    :ivar literal: true when it stood in the configuration file itself.
    """

    __slots__ = ("_value", "literal")

    def __init__(self, value: str, *, literal: bool = False) -> None:
        self._value = value
        self.literal = literal

    def reveal(self) -> str:
        """Return the secret itself; call this only where it is handed to the peer that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclasses.dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: its name in the documentation, how it is read and how it is written.

    :ivar example: TOML text, used in messages and where a key has no default.
    :ivar parse: raw TOML value to typed value; raises :class:`ValueError` with words for the administrator.
    :ivar show: typed value to what ``tomllib`` would have given.
    :ivar doc: how such a value is written; empty when the name says it all.
    """

    name: str
    example: str
    parse: Callable[[object, Context], T]
    show: Callable[[T], object]
    doc: str = ""


# --- words --------------------------------------------------------------------------------------------------


def toml_text(value: object) -> str:
    """Write a string, number, boolean or list of them as TOML."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def quoted(value: object) -> str:
    """Show a value from the file in a message: on one line, and not endlessly."""
    text = toml_text(value)
    return text if len(text) <= 80 else text[:76] + " ..."


def type_words(value: object) -> str:
    """Name the TOML type of a value: "a number", "a list"."""
    if isinstance(value, bool):
        return "a boolean"
    for types, words in (
        ((int, float), "a number"),
        (str, "a string"),
        (list, "a list"),
        (dict, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    ):
        if isinstance(value, types):
            return words
    return type(value).__name__


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like ``word``, if any is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def wrong_type(raw: object, expected: str, example: str) -> ValueError:
    """Return the error for a value of the wrong TOML type."""
    shown = "" if isinstance(raw, dict | list) else f" {quoted(raw)}"
    return ValueError(f"expected {expected}, such as {example}, but found {type_words(raw)}{shown}")


def _string(raw: object, expected: str, example: str) -> str:
    if not isinstance(raw, str):
        raise wrong_type(raw, expected, example)
    if not raw.strip():
        raise ValueError(f"is empty: expected {expected}, such as {example}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
        raise ValueError(f"{quoted(raw)} contains a control character: remove it")
    return raw


# --- numbers ------------------------------------------------------------------------------------------------


def parse_boolean(raw: object) -> bool:
    """Read true or false."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        raise ValueError(
            f"expected a boolean, but found the string {quoted(raw)}: write {raw.lower()}, without quotes"
        )
    raise wrong_type(raw, "a boolean", "true or false")


def parse_integer(raw: object, minimum: int = 1, maximum: int = 10**9) -> int:
    """Read a whole number between ``minimum`` and ``maximum``."""
    if isinstance(raw, bool) or not isinstance(raw, int):
        if isinstance(raw, str) and raw.strip().isdecimal():
            raise ValueError(
                f"expected a whole number, but found the string {quoted(raw)}: write it without quotes"
            )
        raise wrong_type(raw, "a whole number", str(max(minimum, 20)))
    if raw < minimum:
        raise ValueError(f"must be at least {minimum}, not {raw}")
    if raw > maximum:
        raise ValueError(f"must be at most {maximum}")
    return raw


def parse_duration(raw: object, *, zero: bool = False) -> float:
    """Read "5m", "250ms" or "1h30m" as seconds; ``zero`` allows "0s"."""
    units = "ms, s, m, h, d or w"
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raise ValueError(f'{raw} has no unit: write "{raw}s" for seconds, or use another of {units}')
    text = _string(raw, "a duration", '"5m"').strip()
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f'{quoted(raw)} has no unit: write "{text}s" for seconds, or use another of {units}')
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f'{quoted(raw)} is not a duration: write a number and a unit ({units}), such as "5m" or "1h30m"'
        )
    total = sum(Fraction(number) * SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if total > LONGEST:
        raise ValueError(f'{quoted(raw)} is too long: at most "{LONGEST // 86400}d"')
    if total == 0 and not zero:
        raise ValueError(f'{quoted(raw)} is no time at all: write a duration above zero, such as "5m"')
    return float(total)


def show_duration(seconds: float) -> str:
    """Write seconds in the largest unit that divides them: 300.0 as "5m"."""
    for unit in ("d", "h", "m", "s"):
        times = Fraction(seconds) / SECONDS[unit]
        if times and times.denominator == 1:
            return f"{times}{unit}"
    return f"{seconds * 1000:.12g}ms" if seconds else "0s"


def parse_size(raw: object) -> int:
    """Read "25MiB", "25MB", "1024" or 1024 as bytes."""
    units = "KiB, MiB, GiB (1024), kB, MB, GB (1000)"
    if isinstance(raw, int) and not isinstance(raw, bool):
        size = raw
    else:
        text = _string(raw, "a size", '"25MiB"').strip()
        match = _SIZE.fullmatch(text)
        if match is None and text.startswith("-"):
            raise ValueError(f"must be above zero, not {quoted(raw)}")
        if match is None:
            raise ValueError(
                f'{quoted(raw)} is not a size: write a number and a unit ({units}), such as "25MiB"'
            )
        unit = match[2].lower()
        if unit not in BYTES:
            cure = f'"{match[1]}{unit.upper()}iB"' if unit + "ib" in BYTES else f"one of {units}"
            raise ValueError(f"{quoted(raw)} has the unknown unit {quoted(match[2])}: write {cure}")
        size = int(Fraction(match[1]) * BYTES[unit])
    if size <= 0:
        raise ValueError(f"must be above zero, not {quoted(raw)}")
    if size > LARGEST:
        raise ValueError(f"is too large: at most {LARGEST} bytes")
    return size


def show_size(size: int) -> str | int:
    """Write bytes in the largest binary unit that divides them, or as a plain number."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return size


def parse_rate(raw: object) -> Rate:
    """Read "100/h" or "20/10m" as a :class:`Rate`."""
    text = _string(raw, "a rate", '"100/h"').strip()
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'{quoted(raw)} is not a rate: write a count, a slash and a time, such as "100/h"')
    if int(match[1]) < 1:
        raise ValueError(f"{quoted(raw)} would allow nothing: write a count of at least 1")
    interval = match[2].strip()
    try:
        seconds = parse_duration(f"1{interval}" if interval in SECONDS else interval)
    except ValueError as error:
        raise ValueError(f"{quoted(raw)} is not a rate: {error}") from None
    return Rate(int(match[1]), seconds)


def parse_retry(raw: object) -> tuple[float, ...]:
    """Read "1m, 5m, 1h*4" as the waits, in seconds, between one attempt and the next."""
    example = '"1m, 5m, 15m, 1h*4, 4h*12"'
    if isinstance(raw, list):
        raise ValueError(f"expected one string with commas, such as {example}, but found a list")
    schedule: list[float] = []
    for step in _string(raw, "a retry schedule", example).split(","):
        wait, star, times = (part.strip() for part in step.partition("*"))
        if not wait:
            raise ValueError(
                f"{quoted(raw)} has an empty step: write durations between commas, such as {example}"
            )
        if star and not (times.isascii() and times.isdecimal() and 1 <= int(times[:9]) <= 1000):
            raise ValueError(
                f'{quoted(step.strip())}: after * comes how often, from 1 to 1000, such as "1h*4"'
            )
        schedule += [parse_duration(wait)] * (int(times) if star else 1)
    return tuple(schedule)


def show_retry(schedule: tuple[float, ...]) -> str:
    """Write a schedule with equal neighbours joined: "1m, 1h*4"."""
    runs = [(show_duration(wait), len(list(run))) for wait, run in groupby(schedule)]
    return ", ".join(wait if times == 1 else f"{wait}*{times}" for wait, times in runs)


# --- names and addresses ------------------------------------------------------------------------------------


def parse_domain(raw: object) -> str:
    """Read a domain name of LDH labels or U-labels, and lower-case it."""
    text = _string(raw, "a domain", '"example.org"')
    if text.endswith("."):
        raise ValueError(f"{quoted(raw)} ends with a dot: write {quoted(text.rstrip('.'))}")
    domain = unicodedata.normalize("NFC", text.lower())
    labels = domain.split(".")
    wire = [label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in labels]
    for label, encoded in zip(labels, wire, strict=True):
        if not label:
            raise ValueError(f"{quoted(raw)} is not a domain: there is nothing between two dots")
        if len(encoded) > 63:
            raise ValueError(f"{quoted(raw)} is not a domain: {quoted(label)} is longer than 63 characters")
        if not (_LDH_LABEL.fullmatch(label) if label.isascii() else _u_label(label)):
            raise ValueError(
                f"{quoted(raw)} is not a domain: {quoted(label)} must be letters, digits and inner hyphens, "
                'as in "mail-1.example.org"'
            )
    if len(".".join(wire)) > 253:
        raise ValueError(f"{quoted(raw)} is not a domain: it is longer than 253 characters")
    if labels[-1].isdecimal():
        raise ValueError(f"{quoted(raw)} is an address or a number, not a domain: write a name")
    return domain


def _u_label(label: str) -> bool:
    """Tell whether a label outside ASCII has only letters, marks, digits and inner hyphens."""
    if label.startswith("-") or label.endswith("-"):
        return False
    return all(character == "-" or unicodedata.category(character)[0] in "LMN" for character in label)


def parse_address(raw: object) -> str:
    """Read a mail address, and lower-case its domain."""
    text = _string(raw, "a mail address", '"postmaster@example.org"')
    local, at, domain = text.rpartition("@")
    if not at or not domain:
        raise ValueError(f'{quoted(raw)} is not a mail address: it needs an "@" and a domain')
    if not _DOT_ATOM.fullmatch(local) or len(local.encode()) > 64:
        raise ValueError(f'{quoted(raw)} is not a mail address: {quoted(local)} cannot stand before the "@"')
    return f"{local}@{parse_domain(domain)}"


def parse_network(raw: object) -> Network:
    """Read an IP network, or a single address as the network of just that."""
    text = _string(raw, "a network", '"192.0.2.0/24"').strip()
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
    """Read a Twisted server endpoint string; only its outer form is checked, as plugins may add types."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        raise ValueError(f'expected an endpoint string, but found a number: write "tcp:{raw}"')
    text = _string(raw, "an endpoint", '"tcp:25"')
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        cure = f'"tcp:{text}"' if text.isdecimal() else 'a type, a colon and its arguments, such as "tcp:25"'
        raise ValueError(f"{quoted(raw)} is not an endpoint: write {cure}")
    port = re.match(r"(?:port=)?([0-9]+)(?::|$)", match[2])
    if match[1] in ("tcp", "tcp6", "ssl") and port and int(port[1][:9]) > 65535:
        raise ValueError(f"{quoted(raw)} has no valid port: the highest is 65535")
    return text


def parse_host_port(raw: object, default_port: int) -> tuple[str, int]:
    """Read "host:port", "[v6]:port" or a host alone, which gets ``default_port``."""
    text = _string(raw, "a host and port", f'"mx.example.org:{default_port}"')
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        pass
    else:
        raise ValueError(f'{quoted(raw)} is ambiguous: write "[{text}]:{default_port}"')
    match = _HOST_PORT.fullmatch(text)
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


def show_host_port(address: tuple[str, int]) -> str:
    """Write "host:port", or "[v6]:port"."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_next_hop(raw: object, transport: str, data_dir: str) -> str:
    """Read where a route leads, and return it in its one normal form.

    That form is "host:port", "[v6]:port" or "unix:/path" for smtp and lmtp, and an absolute directory path,
    in which "{local}" and "{domain}" may stand, for maildir.
    """
    if transport == "maildir":
        text = _string(raw, "a directory", '"maildir/{local}"')
        if re.search(r"[{}]", re.sub(r"\{(?:local|domain)\}", "", text)):
            raise ValueError(f'{quoted(raw)}: only "{{local}}" and "{{domain}}" may stand in braces')
        return os.path.normpath(os.path.join(data_dir, text))
    default_port = 24 if transport == "lmtp" else 25
    text = _string(raw, "a next hop", f'"mx.example.org:{default_port}"')
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError(f'{quoted(raw)} needs an absolute path, such as "unix:/run/dovecot/lmtp"')
        return text
    return show_host_port(parse_host_port(text, default_port))


def parse_route_domain(raw: object) -> str:
    """Read "example.org", "*.example.org" or "*"."""
    text = _string(raw, "a domain", '"example.org", "*.example.org" or "*"')
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + parse_domain(text[2:])
    if "*" in text:
        raise ValueError(f'{quoted(raw)} is not a domain: write "*" alone or in front, as in "*.example.org"')
    return parse_domain(text)


def parse_url(raw: object, schemes: Sequence[str], example: str) -> str:
    """Read a URL with one of the schemes and a host."""
    text = _string(raw, "a URL", example)
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in schemes or not separator or not rest.strip("/") or " " in text:
        wanted = " or ".join(f'"{name}://"' for name in schemes)
        raise ValueError(f"{quoted(raw)} is not such a URL: write {wanted} and a host, such as {example}")
    return text


# --- other strings ------------------------------------------------------------------------------------------


def parse_choice(raw: object, choices: Sequence[str]) -> str:
    """Read one of a few words."""
    words = " or ".join(f'"{choice}"' for choice in choices)
    if isinstance(raw, str) and raw in choices:
        return raw
    if not isinstance(raw, str):
        if str(raw) in choices:
            raise ValueError(f'expected a string, but found {type_words(raw)}: write "{raw}", in quotes')
        raise wrong_type(raw, words, f'"{choices[0]}"')
    close = nearest(raw, choices)
    hint = f'; did you mean "{close}"?' if close else ""
    raise ValueError(f"{quoted(raw)} is not known: write {words}{hint}")


def parse_text(raw: object, must_contain: str = "", example: str = '"text"') -> str:
    """Read any string that is not empty and, where asked, contains a mark."""
    text = _string(raw, "a string", example)
    if must_contain not in text:
        raise ValueError(
            f'{quoted(raw)} lacks "{must_contain}": write it where its value belongs, such as {example}'
        )
    return text


def parse_delimiter(raw: object) -> str:
    """Read one character, or "" for none."""
    if not isinstance(raw, str):
        raise wrong_type(raw, "one character", '"+"')
    if len(raw) > 1 or (raw and not re.fullmatch(r"[!#$%&'*+\-/=?^_`{|}~]", raw)):
        raise ValueError(
            f'{quoted(raw)} cannot divide a local part: write one mark, such as "+" or "-", or "" for none'
        )
    return raw


def parse_sha256(raw: object) -> str:
    """Read the 64 hexadecimal digits of a SHA-256."""
    text = _string(raw, "a SHA-256 in hexadecimal", '"9f86d0…"').strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("is not a SHA-256: write its 64 hexadecimal digits, as sha256sum prints them")
    return text


def parse_path(raw: object, start: str) -> str:
    """Read a path; a relative one starts at ``start``."""
    return os.path.normpath(os.path.join(start, _string(raw, "a path", '"/var/lib/mtatwist"')))


def parse_secret(raw: object, context: Context) -> Secret:
    """Read "env:NAME", "file:PATH" or a literal secret. No message contains the secret."""
    if not isinstance(raw, str):
        raise ValueError(f'expected a secret, such as "env:NAME" or "file:PATH", but found {type_words(raw)}')
    scheme, _, rest = raw.partition(":")
    if scheme == "env":
        value = context.environ.get(rest, "")
        if not value:
            raise ValueError(
                f"the environment variable {quoted(rest)} is not set, or is empty: set it for this process"
            )
        return Secret(value)
    if scheme == "file":
        return Secret(_secret_file(os.path.join(context.directory, rest)))
    if not raw:
        raise ValueError('is empty: write "env:NAME" or "file:PATH", or leave the key out')
    return Secret(raw, literal=True)


def _secret_file(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            content = stream.read(SECRET_BYTES + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else "not a path"
        raise ValueError(f"cannot read the secret from {quoted(path)}: {words}") from None
    if len(content) > SECRET_BYTES:
        raise ValueError(f"the secret in {quoted(path)} is longer than {SECRET_BYTES} bytes")
    try:
        value = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"the secret in {quoted(path)} is not UTF-8 text") from None
    if not value:
        raise ValueError(f"the file {quoted(path)} is empty: write the secret into it")
    return value


# --- kinds --------------------------------------------------------------------------------------------------


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
        " or ".join(f'"{word}"' for word in choices),
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
    return Kind(
        name, f"[{kind.example}]", parse, lambda values: [kind.show(value) for value in values], kind.doc
    )


_DURATION_DOC = (
    'A number and its unit: "ms", "s", "m" (minutes), "h", "d" or "w", as in "250ms", "5m" or "1h30m". '
    "A number without a unit is refused."
)
BOOLEAN = plain("boolean", "true", parse_boolean)
DURATION = plain("duration", '"5m"', parse_duration, show_duration, _DURATION_DOC)
DURATION_OR_ZERO = plain(
    "duration", '"5m"', lambda raw: parse_duration(raw, zero=True), show_duration, _DURATION_DOC
)
SIZE = plain(
    "size",
    '"25MiB"',
    parse_size,
    show_size,
    'A number of bytes, alone or with a unit: "KiB", "MiB", "GiB" and "TiB" count in 1024, "kB", "MB", '
    '"GB" and "TB" in 1000.',
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
    doc="A domain name, in ASCII or in its own script, without a final dot. Upper and lower case are the same.",
)
ROUTE_DOMAIN = plain("domain pattern", '"example.org"', parse_route_domain)
ADDRESS = plain("mail address", '"admin@example.org"', parse_address)
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
DNS_SERVER = plain("host and port", '"127.0.0.1:5353"', lambda raw: parse_host_port(raw, 53), show_host_port)
DELIMITER = plain("character", '"+"', parse_delimiter)
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
    "secret itself; then the configuration file should be readable by its owner only, or there is a "
    "warning.",
)
