"""The tables about mail itself: what is received, how, and where it goes."""

# The calls in the class bodies declare dataclass fields; none of them makes a shared value.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses
import socket

from mtatwist.schema.declare import computed, key, optional, required, table, tables
from mtatwist.values import kinds as v
from mtatwist.values.names import parse_domain, parse_host_port

VALIDATOR_NAMES = ("parameters", "size", "relay", "device", "send_as", "rate", "loop")


def local_hostname() -> str:
    """Return this machine's own name, without asking the DNS, which may be slow, down or wrong."""
    try:
        return parse_domain(socket.gethostname())
    except ValueError:
        return "localhost"


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
        '"mx" takes mail from other servers, "submission" from people, who have to log in first (see "auth").',
    )
    tls: str = key(
        v.choice("none", "starttls", "implicit"),
        "none",
        '"starttls" offers STARTTLS, "implicit" starts with the handshake, "none" does neither. The first '
        'two need "tls.certificate" and "tls.private_key".',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsName:
    """One more certificate, for clients that ask for a name that it has (SNI).

    The names are the certificate's own (subject alternative names; ``*`` stands for one label). Where two certificates
    have the same name, the earlier one is shown; who asks for a name that none of them has gets "tls.certificate".
    """

    certificate: str = required(v.PATH, "As tls.certificate.", example='"/etc/ssl/mail.example.net.pem"')
    private_key: str = required(v.PATH, "As tls.private_key.", example='"/etc/ssl/mail.example.net.key"')


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What this server shows to clients that use TLS.

    Files are read again when they change, and on SIGHUP: new sessions get the new certificate, the others go on. The
    user the server runs as must be allowed to read them for that, not only root.
    """

    certificate: str | None = optional(
        v.PATH,
        "The certificate, then its intermediate certificates, in PEM. Given together with the private key "
        "or not at all.",
        example='"/etc/ssl/mx.pem"',
    )
    private_key: str | None = optional(v.PATH, "The certificate's private key, in PEM.", example='"/etc/ssl/mx.key"')
    minimum: str = key(v.choice("1.2", "1.3"), "1.2", "The oldest TLS version that is accepted.")
    reload: float = key(
        v.DURATION, "30s", "How often the files are looked at. What is broken in them changes nothing, and is logged."
    )
    client_certificates: str = key(
        v.choice("none", "ask", "require"),
        "none",
        'Whether clients are to show a certificate of an authority in "tls.client_ca_file". "ask" takes those without '
        'one, or with another, all the same; "require" ends their handshake, on every listener with TLS: other mail '
        "servers could deliver nothing any more. Who has shown one is logged; it does not allow anything by itself.",
    )
    client_ca_file: str | None = optional(
        v.PATH,
        'The authorities of clients\' certificates, in PEM; for "tls.client_certificates".',
        example='"/etc/ssl/clients-ca.pem"',
    )
    names: tuple[TlsName, ...] = tables(TlsName, "name")

    @property
    def pairs(self) -> list[tuple[str, str, str]]:
        """Certificate, private key and the table that names them: the default first; none without that."""
        if self.certificate is None or self.private_key is None:
            return []
        more = [(each.certificate, each.private_key, f"tls.name[{i}]") for i, each in enumerate(self.names)]
        return [(self.certificate, self.private_key, "tls"), *more]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where mail goes: the first table whose domain matches the recipient's decides.

    Mail for other domains goes to the exchanges that the DNS names for them (MX), with "tls" "may".
    """

    domain: str = required(
        v.ROUTE_DOMAIN,
        'Which recipients: "example.org" for that domain, "*.example.org" for its subdomains, "*" for all.',
    )
    transport: str = required(
        v.choice("smtp", "lmtp", "maildir"),
        '"smtp" sends to another mail server, "maildir" stores in a directory, "lmtp" hands to a mail '
        "store, such as Dovecot.",
    )
    next_hop: str | None = optional(
        v.text('"smart.example.net:25"'),
        'A smart host, for "smtp"; without it, mail goes to the exchanges of each domain (MX). For "smtp" '
        'and "lmtp": "host:port", "[v6]:port" or "unix:/path"; without a port it is 25 for "smtp" and 24 for '
        '"lmtp". For "maildir": the directory, in which "{local}" and "{domain}" stand for those of the '
        "recipient, in lower case and without the detail, unless the address exists with it; a relative one starts at "
        '"server.data_dir".',
    )
    tls: str = key(
        v.choice("none", "may", "require", "verify"),
        "may",
        '"may" uses TLS when the next hop offers it, "require" insists on it, "verify" insists on a valid '
        'certificate too, "none" never uses it. Over a UNIX socket, "may" does not use it either.',
    )
    connections: int = key(v.integer(1), 20, "The most connections at the same time to one next hop.")
    mx_port: int = key(v.PORT, 25, "The port of exchanges, for delivery by MX.")
    mx_loopback: bool = key(
        v.BOOLEAN,
        False,
        "Whether exchanges may have loopback addresses, for delivery by MX. Mail to such would go to this machine "
        "itself, so it is returned otherwise.",
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of the next hop, or ``None`` when it is a UNIX socket, a directory, or by MX."""
        return None if self.next_hop is None or self.path is not None else parse_host_port(self.next_hop, 25)

    @property
    def path(self) -> str | None:
        """The UNIX socket, or the Maildir as a ``str.format`` template; ``None`` for a host and port."""
        if self.transport == "maildir" or self.next_hop is None:
            return self.next_hop
        return self.next_hop.removeprefix("unix:") if self.next_hop.startswith("unix:") else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one client, or all of them, can ask for."""

    message_size: int = key(v.SIZE, "25MiB", "The largest message that is accepted; larger ones get 552.")
    recipients: int = key(v.integer(1), 100, "The most recipients of one message; further ones get 452.")
    connections: int = key(v.integer(1), 1000, "The most connections at the same time; further ones get 421.")
    connections_per_address: int = key(
        v.integer(1),
        50,
        "The most connections at the same time from one IPv4 address, or one /64 of IPv6; further ones get 421.",
    )
    hops: int = key(
        v.integer(1),
        50,
        "The most Received fields a message can have: with more it is in a loop, and gets 554.",
    )
    errors: int = key(v.integer(1), 20, "How many refused commands end a session with 421.")
    data_rate: int = key(
        v.SIZE,
        "1KiB",
        "The octets a second that message data must come with, on average, once timeouts.data_block is over;"
        " slower clients get 421.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """How long to wait for other servers when delivering. The defaults are those of RFC 5321.

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

    handshake: float = key(v.DURATION, "30s", "For a TLS handshake, from its beginning to its end.")
    command: float = key(v.DURATION, "5m", "For the next command.")
    data_init: float = key(v.DURATION, "2m", "For the first byte of a message, after the 354.")
    data_block: float = key(v.DURATION, "3m", "For the next piece of a message.")
    data_done: float = key(v.DURATION, "10m", "For this server to store a message, before it says 421 and closes.")
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
        'from being an open relay. "send_as" and "rate" apply to those who have logged in; see [submission].',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """The storage for messages on their way."""

    minimum_free: int = key(
        v.SIZE,
        "100MiB",
        'Mail is refused with 452 while the disk of "server.data_dir" has less room than this, or than twice the '
        "message and 32 MiB for the database's log, whichever is more.",
    )
    ballast: int = key(
        v.SIZE_OR_ZERO,
        "32MiB",
        "The size of a file that only takes room. It is deleted when the disk is full all the same, so that the queue "
        "can drain, and made again when there is room for it and for new mail; until then mail is refused with 452. "
        '"0" for no such file.',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the server says about its work."""

    format: str = key(
        v.choice("auto", "json", "text"),
        "auto",
        '"text" is for people, "json" is one JSON object a line, "auto" is text on a terminal and JSON otherwise.',
    )
    level: str = key(
        v.choice("debug", "info", "warn", "error"),
        "info",
        'From which level on events are written: with "warn" there is nothing about single messages. What was done '
        "over the control socket, and what is critical, is always written.",
    )
    redact: bool = key(
        v.BOOLEAN,
        False,
        "Whether pseudonyms are written instead of people: of mail addresses the domain stays, of the user names, IP "
        "addresses and HELO names of clients nothing. The same one has the same pseudonym until the server restarts.",
    )
