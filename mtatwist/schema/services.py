"""The tables about what stands around the mail: users, administration, metrics, health and the DNS."""

# The calls in the class bodies declare dataclass fields; none of them makes a shared value.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses

from mtatwist.schema.declare import key, optional, required, table, tables
from mtatwist.values import kinds as v
from mtatwist.values.strings import Secret


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ldap:
    """The directory that knows the users, when "auth.backend" is "ldap"."""

    uris: tuple[str, ...] = key(
        v.list_of(v.url('"ldap://ldap.example.org"', "ldap", "ldaps")),
        [],
        "The directory's servers, in the order they are tried.",
    )
    start_tls: bool = key(v.BOOLEAN, True, "Whether to start TLS on ldap:// connections before any password.")
    ca_file: str | None = optional(
        v.PATH,
        "The certificate authorities that sign the directory's certificate, in PEM; without it, the system's.",
        example='"/etc/ssl/ca.pem"',
    )
    bind_dn: str | None = optional(
        v.BIND_NAME,
        'Who to search the directory as; without it, anonymously. Active Directory also takes "mta@example.org".',
    )
    bind_password: Secret | None = optional(v.SECRET, 'The password of "bind_dn".', example='"file:/run/secrets/ldap"')
    base_dn: str | None = optional(
        v.BASE_DN,
        'Below which entry the users are, and groups and aliases; "" is the root of the directory.',
    )
    user_filter: str = key(
        v.text('"(uid={user})"', must_contain="{user}"),
        "(&(objectClass=inetOrgPerson)(uid={user}))",
        'The search that finds a user; "{user}" stands for the name given, with special characters escaped.',
    )
    address_attributes: tuple[str, ...] = key(
        v.list_of(v.text('"mail"')),
        ["mail"],
        "Which attributes hold the addresses that the user may send as.",
    )
    group_filter: str | None = optional(
        v.text('"(member={dn})"'),
        "The search that finds the groups and shared mailboxes whose addresses the user may send as, too; "
        '"{dn}" stands for the DN of the user\'s entry, "{user}" for the account\'s name.',
        example='"(&(objectClass=groupOfNames)(member={dn}))"',
    )
    connections: int = key(
        v.integer(1),
        4,
        "How many searches and logins are under way at the directory at the same time. More than a few are of use only "
        "where it is far away, or takes its time over passwords.",
    )
    connect_timeout: float = key(v.DURATION, "3s", "How long a connection to one of the directory's servers may take.")
    timeout: float = key(
        v.DURATION,
        "9s",
        "How long the directory may take for a login in all, over all of its servers; after that the client is told to "
        "try again later.",
    )
    offline_cache: float = key(
        v.DURATION_OR_ZERO,
        "0s",
        'How long a login that was right is remembered for times when the directory is away; with "0s", not at all.',
    )
    recipient_filter: str | None = optional(
        v.RECIPIENT_FILTER,
        'The search that finds somebody who gets mail at "relay.domains"; recipients that it does not find are refused '
        "with 550. The address stands for itself in it, in lower case and with special characters escaped.",
    )
    alias_filter: str | None = optional(
        v.RECIPIENT_FILTER,
        "The search that finds what an address stands for: an entry with addresses to forward to, or a group.",
        example='"(|(mailAlternateAddress={address})(&(objectClass=groupOfNames)(mail={address})))"',
    )
    alias_attributes: tuple[str, ...] = key(
        v.list_of(v.text('"mailForwardingAddress"')),
        ["mailForwardingAddress"],
        "Which attributes of such an entry hold the addresses that get its mail.",
    )
    member_attributes: tuple[str, ...] = key(
        v.list_of(v.text('"member"')),
        ["member", "uniqueMember"],
        "Which attributes of such an entry name the entries of its members. A member gets its mail at the first "
        'address that its entry has in "address_attributes".',
    )
    member_filter: str = key(
        v.text('"(entryDN={dn})"', must_contain="{dn}"),
        "(entryDN={dn})",
        'The search that finds a member by its name; "(distinguishedName={dn})" for Active Directory.',
    )

    @property
    def uses_tls(self) -> bool:
        """Whether any of the servers has to show a certificate."""
        return any(self.start_tls or uri.lower().startswith("ldaps:") for uri in self.uris)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """When guessing passwords is stopped."""

    threshold: int = key(
        v.integer(1),
        5,
        "How many different wrong passwords lock an account, or lock it at one address that it has logged in from.",
    )
    address_threshold: int = key(
        v.integer(1),
        50,
        "How many wrong names and passwords lock an address (of IPv6 a /64) for all accounts; offices share one.",
    )
    window: float = key(v.DURATION, "15m", "In what time these are counted.")
    duration: float = key(v.DURATION, "30m", "How long a lock stays.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who may send mail through this server, after authentication."""

    backend: str = key(v.choice("ldap", "file"), "file", "Where users and passwords are looked up.")
    mechanisms: tuple[str, ...] = key(
        v.list_of(v.choice("PLAIN", "LOGIN")),
        ["PLAIN", "LOGIN"],
        "The SASL mechanisms that are offered. All of them show us the password, so that it can be looked up.",
    )
    require_tls: bool = key(v.BOOLEAN, True, "Whether AUTH, and MAIL on submission, are refused before TLS.")
    failures: int = key(v.integer(1), 3, "How many failed logins end a session.")
    file: str = key(v.DATA_PATH, "users", 'The users and password hashes of the "file" backend.')
    ldap: Ldap = table(Ldap)
    lockout: Lockout = table(Lockout)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Who may use the control socket: one table for each token. With any, nobody may without one."""

    name: str = required(v.text('"ops"'), "What the log calls the holder of this token.")
    role: str = key(v.choice("admin", "read"), "read", '"admin" may do everything, "read" may only look.')
    sha256: str = required(v.SHA256, "The SHA-256 of the token, in hexadecimal: the token itself is not stored.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Administration of the running server with mtactl."""

    socket: str = key(v.DATA_PATH, "control.sock", "The UNIX socket that mtactl connects to.")
    mode: str = key(
        v.choice("0600", "0660"), "0600", 'The mode of the socket: "0660" lets the members of "group" use it, too.'
    )
    group: str | None = optional(
        v.text('"mtaadmin"'),
        "The group of the socket, by name; its members may use it, as root and the server's user may.",
    )
    tokens: tuple[Token, ...] = tables(Token, "token")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Numbers about the running server, pushed to a collector."""

    endpoint: str | None = optional(
        v.url('"http://127.0.0.1:4318/v1/metrics"', "http", "https"),
        "Where metrics are sent to, as OTLP over HTTP; without it, nowhere.",
    )
    api_key: Secret | None = optional(
        v.SECRET,
        "What authenticates this server to the collector, as a bearer token.",
        example='"env:METRICS_API_KEY"',
    )
    interval: float = key(v.DURATION, "15s", "How often.")
    ca_file: str | None = optional(
        v.PATH,
        "The authorities that may have signed the collector's certificate; without it, those that this machine trusts.",
        example='"/etc/ssl/ca.pem"',
    )
    attributes: tuple[str, ...] = key(
        v.list_of(v.text('"deployment.environment.name=production"', must_contain="=")),
        [],
        "What is said about this server beside its name, version and host: attributes of the OpenTelemetry resource.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An HTTP answer to whether the server is alive and ready."""

    endpoint: str | None = optional(
        v.ENDPOINT,
        "What to listen on for health checks, and for Prometheus; without it, there are none.",
        example='"tcp:8080:interface=127.0.0.1"',
    )
    queue_limit: int = key(
        v.integer(1),
        100000,
        "With more recipients than this waiting in the queue, the server says that it is not ready.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Names that the DNS servers above are not asked about: one table for each."""

    domain: str = required(v.DOMAIN, "The name.", example='"relay.example.org"')
    addresses: tuple[str, ...] | None = optional(
        v.list_of(v.IP_ADDRESS),
        "The addresses of this very name. It has no other records, so mail for it goes to these addresses.",
        example='["192.0.2.25"]',
    )
    servers: tuple[tuple[str, int], ...] | None = optional(
        v.list_of(v.DNS_SERVER),
        "The servers that know this domain, and all names below it. What they say is never taken as authentic.",
        example='["192.0.2.53"]',
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """How names are looked up. The addresses of hosts are looked for in /etc/hosts first."""

    servers: tuple[tuple[str, int], ...] = key(
        v.list_of(v.DNS_SERVER),
        [],
        "The DNS servers to ask, in this order, port 53 unless given; with none, those of /etc/resolv.conf. They "
        "have to resolve names for us, as the system's do: servers that only know zones of their own belong into "
        "a [[dns.override]].",
        example='["127.0.0.1:5353"]',
    )
    trust_ad: bool = key(
        v.BOOLEAN,
        False,
        "Whether these servers validate DNSSEC signatures and the way to them is safe, so that what they call "
        "authentic is believed to be. Right for a validating server on this machine.",
    )
    timeout: float = key(v.DURATION, "15s", "How long one lookup may take, over all servers and tries.")
    minimum_ttl: float = key(v.DURATION_OR_ZERO, "1m", "The shortest time an answer is remembered.")
    maximum_ttl: float = key(v.DURATION, "1h", "The longest time an answer is remembered.")
    maximum_stale: float = key(
        v.DURATION_OR_ZERO,
        "1d",
        "How long after its time an answer is still used when no server has a new one.",
    )
    cache_entries: int = key(v.integer(1), 10000, "How many answers are remembered.")
    overrides: tuple[Override, ...] = tables(Override, "override")
