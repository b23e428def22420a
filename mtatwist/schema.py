"""The configuration's schema: every key, once, with its type, default and documentation.

The classes below are at the same time what :func:`mtatwist.config.load` returns and what it reads by; the
commented ``conf/mtatwist.toml``, ``docs/configuration.rst`` and ``mtactl config describe`` are written from them
too. To add a key, add one line here and one to the table in ``tests/test_config.py``, then generate the two
files again.
"""

# The calls in the class bodies below declare dataclass fields; none of them makes a shared value.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses
import inspect
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from mtatwist import values as v
from mtatwist.values import Context, Kind, Network, Secret

T = TypeVar("T")

VALIDATOR_NAMES = ("parameters", "size", "relay", "loop")


class Required:
    """The default of a key that must be written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Computed:
    """A default that depends on other settings or on the host.

    :ivar words: what it is, for the documentation.
    :ivar compute: given the table's values so far (by attribute) and the context, returns the default.
    """

    words: str
    compute: Callable[[Mapping[str, Any], Context], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    :ivar default: as one would write it in the file; ``None`` for no value, or :class:`Required` or
        :class:`Computed`.
    :ivar effect: false while nothing reads the key; it is warned about when it is set.
    :ivar example: TOML text to show where there is no default.
    """

    kind: Kind[Any]
    default: object
    doc: str
    effect: bool = True
    example: str = ""

    def default_value(self, so_far: Mapping[str, Any], context: Context) -> object:
        """Return the typed default."""
        if isinstance(self.default, Computed):
            return self.default.compute(so_far, context)
        return None if self.default in (None, Required) else self.kind.parse(self.default, context)


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, or (``many``) an array of tables."""

    cls: type[Any]
    many: bool = False

    @property
    def doc(self) -> str:
        """The paragraphs about this table."""
        return inspect.cleandoc(self.cls.__doc__ or "")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A key or table with its place: ``path`` is like "auth.lockout.window"."""

    path: str
    item: Key | Table


def _field(key: Key) -> Any:
    metadata = {"item": key}
    if key.default is Required:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default_factory=lambda: key.default_value({}, Context()), metadata=metadata)


def key(kind: Kind[T], default: object, doc: str, *, effect: bool = True, example: str = "") -> T:
    """Declare a key; ``default`` is what one would write in the file."""
    return cast(T, _field(Key(kind, default, doc, effect, example or kind.example)))


def required(kind: Kind[T], doc: str, *, effect: bool = True, example: str = "") -> T:
    """Declare a key that must be written."""
    return cast(T, _field(Key(kind, Required, doc, effect, example or kind.example)))


def optional(kind: Kind[T], doc: str, *, effect: bool = True, example: str = "") -> T | None:
    """Declare a key that is ``None`` when it is not written."""
    return cast("T | None", _field(Key(kind, None, doc, effect, example or kind.example)))


def computed(
    kind: Kind[T],
    words: str,
    compute: Callable[[Mapping[str, Any], Context], T],
    doc: str,
    *,
    example: str = "",
) -> T:
    """Declare a key whose default depends on other settings or on the host; see :class:`Computed`."""
    return cast(T, _field(Key(kind, Computed(words, compute), doc, example=example or kind.example)))


def table(cls: type[T]) -> T:
    """Declare a table of keys."""
    return dataclasses.field(default_factory=cls, metadata={"item": Table(cls)})


def tables(cls: type[T], name: str) -> tuple[T, ...]:
    """Declare an array of tables, ``[[name]]`` in the file."""
    return cast(
        "tuple[T, ...]", dataclasses.field(default=(), metadata={"item": Table(cls, many=True), "name": name})
    )


def items(cls: type[Any]) -> dict[str, tuple[str, Key | Table]]:
    """Return the keys and tables of a table: name in the file to (attribute, declaration)."""
    return {
        field.metadata.get("name", field.name): (field.name, field.metadata["item"])
        for field in dataclasses.fields(cls)
        if "item" in field.metadata
    }


def walk(cls: type[Any] | None = None, path: str = "") -> Iterator[Entry]:
    """Yield every key and table of the schema; a table comes before what it holds, its keys first."""
    entries = [
        Entry(f"{path}.{name}" if path else name, item) for name, (_, item) in items(cls or Config).items()
    ]
    yield from (entry for entry in entries if isinstance(entry.item, Key))
    for entry in entries:
        if isinstance(entry.item, Table):
            yield entry
            yield from walk(entry.item.cls, entry.path)


def local_hostname() -> str:
    """Return this machine's own name, without asking the DNS, which may be slow, down or wrong."""
    try:
        return v.parse_domain(socket.gethostname())
    except ValueError:
        return "localhost"


def _default_postmaster(so_far: Mapping[str, Any], context: Context) -> str:
    domains = so_far.get("domains") or (context.hostname,)
    return f"postmaster@{domains[0]}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Who this server is, and where it keeps what it must not lose."""

    hostname: str = computed(
        v.DOMAIN,
        "the machine's own name",
        lambda so_far, context: local_hostname(),
        "The name this server gives itself: in its greeting, in EHLO and in Received fields. It should be "
        "the name that the DNS has for the server's address. The default is asked of the machine, never of "
        "the DNS.",
        example='"mx.example.org"',
    )
    data_dir: str = key(
        v.PATH,
        "mtatwist-data",
        "The directory for the spool, certificates and users. It must be on a local disk, and belongs to "
        'one server process at a time. "--data-dir" on the command line goes before it.',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where mail comes in: one table for each listener. At least one is needed."""

    endpoint: str = required(
        v.ENDPOINT, "What to listen on. Two listeners cannot have the same endpoint.", example='"tcp:25"'
    )
    role: str = key(
        v.choice("mx", "submission"),
        "mx",
        '"mx" takes mail from other servers, "submission" from people, who have to authenticate. '
        'Authentication is not there yet, so a "submission" listener refuses every MAIL with 530.',
    )
    tls: str = key(
        v.choice("none", "starttls", "implicit"),
        "none",
        '"starttls" offers STARTTLS, "implicit" starts with the handshake, "none" does neither. The first '
        'two need "tls.certificate" and "tls.private_key".',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What this server shows to clients that use TLS."""

    certificate: str | None = optional(
        v.PATH,
        "The certificate, then its intermediate certificates, in PEM. Given together with the private key "
        "or not at all.",
        example='"/etc/ssl/mx.pem"',
    )
    private_key: str | None = optional(
        v.PATH, "The certificate's private key, in PEM.", example='"/etc/ssl/mx.key"'
    )
    minimum: str = key(v.choice("1.2", "1.3"), "1.2", "The oldest TLS version that is accepted.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ldap:
    """The directory that knows the users, when "auth.backend" is "ldap"."""

    uris: tuple[str, ...] = key(
        v.list_of(v.url('"ldap://ldap.example.org"', "ldap", "ldaps")),
        [],
        "The directory's servers, in the order they are tried.",
        effect=False,
    )
    start_tls: bool = key(
        v.BOOLEAN, True, "Whether to start TLS on ldap:// connections before any password.", effect=False
    )
    ca_file: str | None = optional(
        v.PATH,
        "The certificate authorities that sign the directory's certificate, in PEM; without it, the "
        "system's.",
        effect=False,
        example='"/etc/ssl/ca.pem"',
    )
    bind_dn: str | None = optional(
        v.text('"cn=mta,dc=example,dc=org"'),
        "Who to search the directory as; without it, anonymously.",
        effect=False,
    )
    bind_password: Secret | None = optional(
        v.SECRET, 'The password of "bind_dn".', effect=False, example='"file:/run/secrets/ldap"'
    )
    base_dn: str | None = optional(
        v.text('"ou=people,dc=example,dc=org"'), "Below which entry the users are.", effect=False
    )
    user_filter: str = key(
        v.text('"(uid={user})"', must_contain="{user}"),
        "(&(objectClass=inetOrgPerson)(uid={user}))",
        'The search that finds a user; "{user}" stands for the name given, with special characters escaped.',
        effect=False,
    )
    address_attributes: tuple[str, ...] = key(
        v.list_of(v.text('"mail"')),
        ["mail"],
        "Which attributes hold the addresses that the user may send as.",
        effect=False,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """When guessing passwords is stopped."""

    threshold: int = key(v.integer(1), 5, "How many wrong passwords lock an account.", effect=False)
    window: float = key(v.DURATION, "15m", "In what time these are counted.", effect=False)
    duration: float = key(v.DURATION, "30m", "How long the account stays locked.", effect=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who may send mail through this server, after authentication."""

    backend: str = key(
        v.choice("ldap", "file"), "file", "Where users and passwords are looked up.", effect=False
    )
    require_tls: bool = key(v.BOOLEAN, True, "Whether AUTH is refused before TLS.", effect=False)
    file: str = key(
        v.DATA_PATH, "users", 'The users and password hashes of the "file" backend.', effect=False
    )
    ldap: Ldap = table(Ldap)
    lockout: Lockout = table(Lockout)


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
        'Who gets mail for "postmaster" without a domain and for postmaster at every domain of '
        '"relay.domains".',
    )
    recipient_delimiter: str = key(
        v.DELIMITER,
        "+",
        'What divides a user\'s name from a detail, as in "user+detail@example.org"; "" for nothing.',
        effect=False,
    )
    retry: tuple[float, ...] = key(
        v.RETRY,
        "1m, 5m, 15m, 1h*4, 4h*12",
        'How long to wait after each failed attempt; the last wait repeats until "relay.max_age".',
    )
    max_age: float = key(
        v.DURATION, "5d", "How long delivery is tried before the message goes back to its sender."
    )
    warn_after: float = key(v.DURATION, "4h", "When the sender is told that delivery is late.", effect=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where mail goes: the first table whose domain matches the recipient's decides.

    Mail for other domains waits in the queue until there is a route for it.
    """

    domain: str = required(
        v.ROUTE_DOMAIN,
        'Which recipients: "example.org" for that domain, "*.example.org" for its subdomains, "*" for all.',
    )
    transport: str = required(
        v.choice("smtp", "lmtp", "maildir"),
        '"smtp" sends to another mail server, "maildir" stores in a directory, "lmtp" hands to a mail '
        "store (not available yet).",
    )
    next_hop: str = required(
        v.text('"smart.example.net:25"'),
        'For "smtp" and "lmtp": "host:port", "[v6]:port" or "unix:/path"; without a port it is 25 for "smtp" and 24 '
        'for "lmtp". For "maildir": the directory, in which "{local}" and "{domain}" stand for the recipient\'s; a '
        'relative one starts at "server.data_dir".',
    )
    tls: str = key(
        v.choice("none", "may", "require", "verify"),
        "may",
        '"may" uses TLS when the next hop offers it, "require" insists on it, "verify" insists on a valid '
        'certificate too, "none" never uses it.',
    )
    connections: int = key(v.integer(1), 20, "The most connections at the same time to this next hop.")

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of the next hop, or ``None`` when it is a UNIX socket or a directory."""
        return None if self.path is not None else v.parse_host_port(self.next_hop, 25)

    @property
    def path(self) -> str | None:
        """The UNIX socket, or for maildir the directory with its placeholders; ``None`` for a host and port."""
        if self.transport == "maildir":
            return self.next_hop
        return self.next_hop.removeprefix("unix:") if self.next_hop.startswith("unix:") else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one client, or all of them, can ask for."""

    message_size: int = key(v.SIZE, "25MiB", "The largest message that is accepted; larger ones get 552.")
    recipients: int = key(v.integer(1), 100, "The most recipients of one message; further ones get 452.")
    connections: int = key(v.integer(1), 1000, "The most connections at the same time; further ones get 421.")
    connections_per_address: int = key(
        v.integer(1), 50, "The most connections at the same time from one address; further ones get 421."
    )
    hops: int = key(
        v.integer(1),
        50,
        "The most Received fields a message can have: with more it is in a loop, and gets 554.",
    )
    errors: int = key(v.integer(1), 20, "How many refused commands end a session with 421.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How long to wait for other servers when delivering. The defaults are those of RFC 5321, section 4.5.3.2.

    Shorter times after the end of data make duplicates: the other side may have the message already.
    """

    connect: float = key(v.DURATION, "30s", "For a connection.")
    greeting: float = key(v.DURATION, "5m", "For the greeting.")
    ehlo: float = key(v.DURATION, "5m", "For the reply to EHLO.")
    mail: float = key(v.DURATION, "5m", "For the reply to MAIL.")
    rcpt: float = key(v.DURATION, "5m", "For the reply to RCPT.")
    data_init: float = key(v.DURATION, "2m", "For the reply to DATA.")
    data_block: float = key(v.DURATION, "3m", "For the other side to take a piece of the message.")
    data_done: float = key(v.DURATION, "10m", "For the reply to the end of the message.")
    quit: float = key(v.DURATION, "10s", "For the reply to QUIT; then the connection is cut.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for clients."""

    command: float = key(v.DURATION, "5m", "For the next command.")
    data_init: float = key(v.DURATION, "2m", "For the first byte of a message, after the 354.")
    data_block: float = key(v.DURATION, "3m", "For the next piece of a message.")
    data_done: float = key(v.DURATION, "10m", "For this server to store a message, before it says 451.")
    session: float = key(
        v.DURATION, "30m", "For a whole session. It is checked between transactions, never inside a message."
    )
    shutdown: float = key(
        v.DURATION_OR_ZERO,
        "10s",
        "For open transactions to end when the server is told to stop; then they are cut.",
    )
    client: ClientTimeouts = table(ClientTimeouts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What is asked about each sender and recipient."""

    order: tuple[str, ...] = key(
        v.list_of(v.choice(*VALIDATOR_NAMES)),
        list(VALIDATOR_NAMES),
        'The validators, in the order they are asked. "relay" cannot be left out: it keeps this server '
        "from being an open relay.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """The storage for messages on their way."""

    minimum_free: int = key(
        v.SIZE,
        "100MiB",
        'Mail is refused with 452 while the disk of "server.data_dir" has less room than this.',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Who may use the control socket over the network: one table for each token."""

    name: str = required(v.text('"ops"'), "What the log calls the holder of this token.", effect=False)
    role: str = key(
        v.choice("admin", "read"), "read", '"admin" may do everything, "read" may only look.', effect=False
    )
    sha256: str = required(
        v.SHA256, "The SHA-256 of the token, in hexadecimal: the token itself is not stored.", effect=False
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Administration of the running server with mtactl."""

    socket: str = key(v.DATA_PATH, "control.sock", "The UNIX socket that mtactl connects to.", effect=False)
    tokens: tuple[Token, ...] = tables(Token, "token")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Numbers about the running server, pushed to a collector."""

    endpoint: str | None = optional(
        v.url('"http://127.0.0.1:4318/v1/metrics"', "http", "https"),
        "Where metrics are sent to, as OTLP over HTTP; without it, nowhere.",
        effect=False,
    )
    api_key: Secret | None = optional(
        v.SECRET,
        "What authenticates this server to the collector.",
        effect=False,
        example='"env:METRICS_API_KEY"',
    )
    interval: float = key(v.DURATION, "15s", "How often.", effect=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An HTTP answer to whether the server is alive and ready."""

    endpoint: str | None = optional(
        v.ENDPOINT,
        "What to listen on for health checks; without it, there are none.",
        effect=False,
        example='"tcp:8080:interface=127.0.0.1"',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """How names are looked up."""

    servers: tuple[tuple[str, int], ...] = key(
        v.list_of(v.DNS_SERVER),
        [],
        "The DNS servers to ask, port 53 unless given; with none, those of the system.",
        effect=False,
        example='["127.0.0.1:5353"]',
    )
    minimum_ttl: float = key(
        v.DURATION_OR_ZERO, "60s", "The shortest time an answer is remembered.", effect=False
    )
    maximum_ttl: float = key(v.DURATION, "1h", "The longest time an answer is remembered.", effect=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the server says about its work."""

    format: str = key(
        v.choice("auto", "json", "text"),
        "auto",
        '"text" is for people, "json" is one JSON object a line, "auto" is text on a terminal and JSON '
        "otherwise.",
    )


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
