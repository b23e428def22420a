"""Loading the configuration: every key, the embedded set-up, warnings, and the files made from the schema."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtatwist import describe, schema
from mtatwist.config import PROBLEMS, VALIDATOR_NAMES, Config, ConfigError, Limits, Route, Secret, load
from mtatwist.schema import Entry
from mtatwist.schema.declare import Key
from mtatwist.validators import REGISTRY
from mtatwist.values import names
from mtatwist.values.base import Context, toml_text
from mtatwist.values.numbers import Rate

ROOT = Path(__file__).resolve().parents[1]

# For every key: what to write, and what must come out. "{here}" is the directory of the file.
SETTINGS: dict[str, tuple[str, object]] = {
    "server.hostname": ('"MX.example.org"', "mx.example.org"),
    "server.data_dir": ('"spool"', "{here}/spool"),
    "listen.endpoint": ('"tcp:2526"', "tcp:2526"),
    "listen.role": ('"submission"', "submission"),
    "listen.tls": ('"starttls"', "starttls"),
    "tls.certificate": ('"mx.pem"', "{here}/mx.pem"),
    "tls.private_key": ('"/etc/ssl/mx.key"', "/etc/ssl/mx.key"),
    "tls.minimum": ('"1.3"', "1.3"),
    "auth.backend": ('"ldap"', "ldap"),
    "auth.mechanisms": ('["LOGIN"]', ("LOGIN",)),
    "auth.require_tls": ("false", False),
    "auth.failures": ("2", 2),
    "auth.file": ('"people"', "{here}/mtatwist-data/people"),
    "auth.ldap.uris": (
        '["ldap://ldap1.example.org", "ldaps://ldap2.example.org"]',
        ("ldap://ldap1.example.org", "ldaps://ldap2.example.org"),
    ),
    "auth.ldap.start_tls": ("false", False),
    "auth.ldap.ca_file": ('"/etc/ssl/ca.pem"', "/etc/ssl/ca.pem"),
    "auth.ldap.bind_dn": ('"cn=mta,dc=example,dc=org"', "cn=mta,dc=example,dc=org"),
    "auth.ldap.bind_password": ('"env:PASSWORD"', Secret("from the environment")),
    "auth.ldap.base_dn": ('"ou=people,dc=example,dc=org"', "ou=people,dc=example,dc=org"),
    "auth.ldap.user_filter": ('"(mail={user})"', "(mail={user})"),
    "auth.ldap.address_attributes": ('["mail", "alias"]', ("mail", "alias")),
    "auth.ldap.group_filter": ('"(member={dn})"', "(member={dn})"),
    "auth.ldap.connections": ("2", 2),
    "auth.ldap.connect_timeout": ('"1s"', 1.0),
    "auth.ldap.timeout": ('"5s"', 5.0),
    "auth.ldap.offline_cache": ('"1h"', 3600.0),
    "auth.ldap.recipient_filter": ('"(mail={address})"', "(mail={address})"),
    "auth.ldap.alias_filter": ('"(uid={local})"', "(uid={local})"),
    "auth.ldap.alias_attributes": ('["forward"]', ("forward",)),
    "auth.ldap.member_attributes": ('["uniqueMember"]', ("uniqueMember",)),
    "auth.ldap.member_filter": ('"(distinguishedName={dn})"', "(distinguishedName={dn})"),
    "auth.lockout.threshold": ("3", 3),
    "auth.lockout.address_threshold": ("80", 80),
    "auth.lockout.window": ('"1h"', 3600.0),
    "auth.lockout.duration": ('"2h"', 7200.0),
    "relay.networks": ('["192.0.2.0/24"]', (ipaddress.ip_network("192.0.2.0/24"),)),
    "relay.domains": ('["Example.org", "example.net"]', ("example.org", "example.net")),
    "relay.postmaster": ('"admin@example.org"', "admin@example.org"),
    "relay.recipient_delimiter": ('"-"', "-"),
    "relay.recipients": ('"people"', "{here}/people"),
    "relay.aliases": ('"/etc/aliases"', "/etc/aliases"),
    "relay.expansion": ("50", 50),
    "relay.device.network": ('"192.0.2.16/30"', ipaddress.ip_network("192.0.2.16/30")),
    "relay.device.senders": (
        '["printer@Example.org", "@lab.example.org", "<>"]',
        ("printer@example.org", "@lab.example.org", "<>"),
    ),
    "relay.retry": ('"1m, 1h*2"', (60.0, 3600.0, 3600.0)),
    "relay.max_age": ('"2d"', 172800.0),
    "relay.connections": ("50", 50),
    "relay.warn_after": ('"1h"', 3600.0),
    "relay.return_size": ('"5MiB"', 5 * 2**20),
    "route.domain": ('"*.Example.org"', "*.example.org"),
    "route.transport": ('"lmtp"', "lmtp"),
    "route.next_hop": ('"[2001:db8::1]:26"', "[2001:db8::1]:26"),
    "route.tls": ('"verify"', "verify"),
    "route.connections": ("3", 3),
    "route.mx_port": ("26", 26),
    "route.mx_loopback": ("true", True),
    "tls.reload": ('"5s"', 5.0),
    "tls.client_certificates": ('"ask"', "ask"),
    "tls.client_ca_file": ('"/etc/ssl/clients.pem"', "/etc/ssl/clients.pem"),
    "tls.name.certificate": ('"/etc/ssl/two.pem"', "/etc/ssl/two.pem"),
    "tls.name.private_key": ('"/etc/ssl/two.key"', "/etc/ssl/two.key"),
    "limits.message_size": ('"1MiB"', 1024 * 1024),
    "limits.recipients": ("7", 7),
    "limits.connections": ("8", 8),
    "limits.connections_per_address": ("9", 9),
    "limits.hops": ("10", 10),
    "limits.data_rate": ('"2KiB"', 2048),
    "limits.errors": ("11", 11),
    "timeouts.handshake": ('"16s"', 16.0),
    "timeouts.command": ('"11s"', 11.0),
    "timeouts.data_init": ('"12s"', 12.0),
    "timeouts.data_block": ('"13s"', 13.0),
    "timeouts.data_done": ('"14s"', 14.0),
    "timeouts.session": ('"15s"', 15.0),
    "timeouts.shutdown": ('"0s"', 0.0),
    "timeouts.client.connect": ('"17s"', 17.0),
    "timeouts.client.greeting": ('"18s"', 18.0),
    "timeouts.client.ehlo": ('"19s"', 19.0),
    "timeouts.client.mail": ('"20s"', 20.0),
    "timeouts.client.rcpt": ('"21s"', 21.0),
    "timeouts.client.data_init": ('"22s"', 22.0),
    "timeouts.client.data_block": ('"23s"', 23.0),
    "timeouts.client.data_done": ('"24s"', 24.0),
    "timeouts.client.quit": ('"250ms"', 0.25),
    "submission.from_mismatch": ('"reject"', "reject"),
    "submission.received_user": ("true", True),
    "submission.messages": ('["100/h", "1000/d"]', (Rate(100, 3600.0), Rate(1000, 86400.0))),
    "submission.recipients": ('["20/10m"]', (Rate(20, 600.0),)),
    "control.socket": ('"/run/mtatwist/control.sock"', "/run/mtatwist/control.sock"),
    "control.mode": ('"0660"', "0660"),
    "control.group": ('"mtaadmin"', "mtaadmin"),
    "control.token.name": ('"night watch"', "night watch"),
    "control.token.role": ('"admin"', "admin"),
    "control.token.sha256": (f'"{"AB" * 32}"', "ab" * 32),
    "metrics.endpoint": ('"http://127.0.0.1:4318/v1/metrics"', "http://127.0.0.1:4318/v1/metrics"),
    "metrics.api_key": ('"file:api.key"', Secret("from-a-file")),
    "metrics.interval": ('"1m"', 60.0),
    "metrics.ca_file": ('"ca.pem"', "{here}/ca.pem"),
    "metrics.attributes": ('["a.b=c=d"]', ("a.b=c=d",)),
    "health.endpoint": ('"tcp:8080:interface=127.0.0.1"', "tcp:8080:interface=127.0.0.1"),
    "health.queue_limit": ("5", 5),
    "dns.servers": ('["127.0.0.1:5353", "[::1]"]', (("127.0.0.1", 5353), ("::1", 53))),
    "dns.trust_ad": ("true", True),
    "dns.timeout": ('"5s"', 5.0),
    "dns.minimum_ttl": ('"5s"', 5.0),
    "dns.maximum_ttl": ('"2h"', 7200.0),
    "dns.maximum_stale": ('"0s"', 0.0),
    "dns.cache_entries": ("12", 12),
    "dns.override.domain": ('"Corp.example.org"', "corp.example.org"),
    "dns.override.addresses": ('["192.0.2.7", "2001:DB8::7"]', ("192.0.2.7", "2001:db8::7")),
    "dns.override.servers": ('["192.0.2.53:5353"]', (("192.0.2.53", 5353),)),
    "log.format": ('"json"', "json"),
    "log.level": ('"warn"', "warn"),
    "log.redact": ("true", True),
    "validators.order": ('["relay", "device", "size"]', ("relay", "device", "size")),
    "spool.minimum_free": ('"1GiB"', 1024**3),
    "spool.ballast": ('"0"', 0),
}
# What has to stand beside a key for the file to be right.
NEEDED = {
    "listen": {"endpoint": '"tcp:25"'},
    "route": {"domain": '"*"', "transport": '"smtp"', "next_hop": '"smart.example.net"'},
    "control.token": {"name": '"ops"', "sha256": f'"{"0" * 64}"'},
    "tls.name": {"certificate": '"name.pem"', "private_key": '"name.key"'},
    "relay.device": {"network": '"192.0.2.17"', "senders": '["scanner@example.org"]'},
    "dns.override": {"domain": '"other.example.org"', "addresses": '["192.0.2.9"]'},
}
DIRECTORY = {"auth.ldap.uris": '["ldap://ldap.example.org"]', "auth.ldap.base_dn": '"dc=example,dc=org"'}
COMPANIONS = {
    "auth.backend": DIRECTORY,
    "auth.ldap.uris": {"auth.ldap.base_dn": '"dc=example,dc=org"'},
    "auth.ldap.bind_dn": {"auth.ldap.bind_password": '"x"'},
    "auth.ldap.bind_password": {"auth.ldap.bind_dn": '"cn=mta"'},
    "auth.ldap.recipient_filter": DIRECTORY,
    "auth.ldap.alias_filter": DIRECTORY,
    "control.mode": {"control.group": '"mtaadmin"'},
    "control.group": {"control.mode": '"0660"'},
    "tls.certificate": {"tls.private_key": '"mx.key"'},
    "tls.private_key": {"tls.certificate": '"mx.pem"'},
    "listen.tls": {"tls.certificate": '"mx.pem"', "tls.private_key": '"mx.key"'},
    "tls.client_certificates": {"tls.client_ca_file": '"clients.pem"'},
    "tls.client_ca_file": {"tls.client_certificates": '"ask"'},
    "tls.name.certificate": {"tls.certificate": '"mx.pem"', "tls.private_key": '"mx.key"'},
    "tls.name.private_key": {"tls.certificate": '"mx.pem"', "tls.private_key": '"mx.key"'},
}
KEYS = [entry for entry in schema.walk() if isinstance(entry.item, Key)]


def written(settings: dict[str, str]) -> str:
    """Make the text of a file from key paths and TOML values, with what has to stand beside them."""
    tables: dict[str, dict[str, str]] = {name: dict(NEEDED[name]) for name in ("listen", "route")}
    for path, value in settings.items():
        table, _, key = path.rpartition(".")
        tables.setdefault(table, dict(NEEDED.get(table, {})))[key] = value
    lines = []
    for table, keys in tables.items():
        lines.append(f"[[{table}]]" if table in NEEDED else f"[{table}]")
        lines += [f"{key} = {value}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def configure(directory: Path, text: str, **arguments: Any) -> Config:
    """Load a file with this text."""
    file = directory / "mta.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return load(file, **arguments)


def problems(directory: Path, text: str, **arguments: Any) -> list[tuple[str, str]]:
    """Load a file with this text, which must fail, and return keys and reasons."""
    with pytest.raises(ConfigError) as caught:
        configure(directory, text, **arguments)
    return [(problem.key, problem.reason) for problem in caught.value.problems]


def value_at(config: object, path: str) -> object:
    """Find a value by its key path; of an array of tables the first is meant."""
    for name in path.split("."):
        attribute, _ = schema.items(type(config))[name]
        config = getattr(config, attribute)
        if (
            isinstance(config, tuple)
            and config
            and dataclasses.is_dataclass(config[0])
            and not isinstance(config[0], Rate)
        ):
            config = config[0]
    return config


# --- every key ----------------------------------------------------------------------------------------------


def test_the_table_covers_every_key() -> None:
    """A key without a line in SETTINGS is a key that no test changes."""
    assert {entry.path for entry in KEYS} == set(SETTINGS)


@pytest.mark.parametrize("path", SETTINGS)
def test_setting(path: str, tmp_path: Path) -> None:
    """Writing the key changes the value, and nothing is said about it but that it may have no effect."""
    text, expected = SETTINGS[path]
    (tmp_path / "api.key").write_text("from-a-file\n")
    if isinstance(expected, str):
        expected = expected.replace("{here}", str(tmp_path))
    environ = {"PASSWORD": "from the environment"}
    config = configure(tmp_path, written({path: text} | COMPANIONS.get(path, {})), environ=environ)
    assert value_at(config, path) == expected
    assert type(value_at(config, path)) is type(expected)
    default = configure(tmp_path, written({}))
    if not path.startswith(("control.token", "dns.override", "relay.device", "tls.name")):
        assert value_at(default, path) != expected, "the test must change the default"
    entry = next(entry for entry in KEYS if entry.path == path)
    assert isinstance(entry.item, Key)
    place = path.replace("token.", "token[0].").replace("device.", "device[0].")
    told = [warning for warning in config.warnings if warning.startswith(f"{place} has no effect yet")]
    assert len(told) == (0 if entry.item.effect else 1)
    assert all(entry.item.doc in warning for warning in told)


@pytest.mark.parametrize("entry", KEYS, ids=lambda entry: entry.path)
def test_default(entry: Entry) -> None:
    """A default is what its text in the documentation means, and shown as it; an example can be read."""
    key = entry.item
    assert isinstance(key, Key)
    assert key.doc[-1] == "."
    if isinstance(key.default, str | int | list):
        value = key.default_value({}, Context())
        assert key.kind.show(value) == key.default
    assert tomllib.loads(f"key = {key.example}")["key"] is not None


def test_types_of_the_defaults(tmp_path: Path) -> None:
    """What is not written has the documented default."""
    config = configure(tmp_path, '[[listen]]\nendpoint = "tcp:25"\n')
    assert config.source == str(tmp_path / "mta.toml")
    assert not config.embedded
    assert config.server.data_dir == str(tmp_path / "mtatwist-data")
    assert config.relay.networks == ()
    assert config.relay.max_age == 432000.0
    assert config.limits == Limits()
    assert config.routes == ()
    assert config.validators.order == VALIDATOR_NAMES
    assert config.auth.file == str(tmp_path / "mtatwist-data" / "users")
    assert config.control.socket == str(tmp_path / "mtatwist-data" / "control.sock")


def test_validators_are_those_there_are() -> None:
    """What the schema allows is what the registry has."""
    assert set(VALIDATOR_NAMES) == set(REGISTRY)


def test_values_are_frozen() -> None:
    """Nobody changes the configuration of a running server by accident."""
    config = load(None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.limits.hops = 1  # type: ignore[misc]
    assert not hasattr(config.limits, "__dict__")
    assert hash(config) == hash(load(None))


# --- the embedded set-up ------------------------------------------------------------------------------------


def test_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file there is a server to try out, which does not reach beyond this machine."""
    monkeypatch.chdir(tmp_path)
    config = load(None)
    data_dir = str(tmp_path / "mtatwist-data")
    assert config.embedded
    assert config.source is None
    assert config.warnings == ()
    assert config.server.hostname == "localhost"
    assert config.server.data_dir == data_dir
    assert [(each.endpoint, each.role, each.tls) for each in config.listen] == [
        ("tcp:2525:interface=127.0.0.1", "mx", "none"),
        ("tcp:2587:interface=127.0.0.1", "submission", "starttls"),
    ]
    assert config.auth.backend == "file"
    assert config.auth.file == f"{data_dir}/users"
    assert config.tls.certificate == f"{data_dir}/tls/localhost.pem"
    assert config.tls.private_key == f"{data_dir}/tls/localhost.key"
    assert config.relay.domains == ("localhost",)
    assert [str(network) for network in config.relay.networks] == ["127.0.0.0/8", "::1/128"]
    assert config.relay.postmaster == "postmaster@localhost"
    assert config.routes == (
        Route(domain="localhost", transport="maildir", next_hop=f"{data_dir}/maildir/{{local}}"),
        Route(domain="*", transport="maildir", next_hop=f"{data_dir}/maildir/{{local}}@{{domain}}"),
    )


def test_embedded_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--data-dir moves the embedded set-up, whatever signs its path has."""
    monkeypatch.chdir(tmp_path)
    config = load(None, data_dir="{odd} place")
    assert config.server.data_dir == str(tmp_path / "{odd} place")
    assert config.routes[0].path is not None
    assert config.routes[0].path.format(local="you", domain="localhost") == str(
        tmp_path / "{odd} place" / "maildir" / "you"
    )
    for wrong in ("", "a\0b"):
        with pytest.raises(ConfigError, match=r"server\.data_dir"):
            load(None, data_dir=wrong)


def test_data_dir_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--data-dir starts at the current directory, the file's own data_dir at the file's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = written({"server.data_dir": '"from-file"'})
    assert configure(tmp_path, text).server.data_dir == str(tmp_path / "from-file")
    assert configure(tmp_path, text, data_dir="given").server.data_dir == str(elsewhere / "given")
    assert configure(tmp_path, written({}), data_dir="/given").auth.file == "/given/users"
    assert problems(tmp_path, "server = 1\n" + written({}), data_dir="/given")[0][0] == "server"


# --- defaults that are computed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Mail-1", "mail-1"), ("mx.example.org", "mx.example.org"), ("my_box", "localhost"), ("", "localhost")],
)
def test_hostname(name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own name, or one that is right anywhere; the DNS is not asked."""

    def refuse(*arguments: object) -> str:
        raise AssertionError("asked the DNS")

    monkeypatch.setattr(socket, "gethostname", lambda: name)
    for function in ("getfqdn", "gethostbyname", "getaddrinfo", "gethostbyaddr"):
        monkeypatch.setattr(socket, function, refuse)
    assert configure(tmp_path, written({})).server.hostname == expected


def test_postmaster(tmp_path: Path) -> None:
    """The postmaster is at the first domain, else at the host."""
    host = {"server.hostname": '"mx.example.org"'}
    assert configure(tmp_path, written(host)).relay.postmaster == "postmaster@mx.example.org"
    domains = {"relay.domains": '["Example.net", "example.org"]'}
    assert configure(tmp_path, written(host | domains)).relay.postmaster == "postmaster@example.net"


# --- errors -------------------------------------------------------------------------------------------------


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Every problem is reported, in one go, with file, place and reason."""
    text = written({"limits.hops": "0", "limits.erors": "1", "auth.lockout.window": "5", "listen.role": '"mix"'})
    with pytest.raises(ConfigError) as caught:
        configure(tmp_path, text)
    found = {problem.key for problem in caught.value.problems}
    assert found == {"limits.hops", "limits.erors", "auth.lockout.window", "listen[0].role"}
    lines = str(caught.value).split("\n")
    assert len(lines) == 4
    assert all(line.startswith(f"{tmp_path}/mta.toml: ") for line in lines)
    assert any('limits.erors: there is no such key; did you mean "errors"?' in line for line in lines)


def test_no_problem_follows_from_another(tmp_path: Path) -> None:
    """Who has one thing to mend is told one thing."""
    for path, value in (
        ("relay.max_age", '"soon"'),
        ("relay.retry", '"often"'),
        ("validators.order", '["rely"]'),
        ("listen.endpoint", "25"),
        ("tls.certificate", "1"),
        ("route.transport", '"smpt"'),
        ("route.domain", '"a b"'),
        ("server.data_dir", "1"),
        ("server.hostname", "1"),
        ("dns.minimum_ttl", "1"),
        ("relay.domains", "1"),
    ):
        assert len(problems(tmp_path, written({path: value}))) == 1, path
    assert problems(tmp_path, "listen = 1\n") == [
        (
            "listen",
            "expected an array of tables, but found a number: write [[listen]], with two brackets on "
            "each side, before the keys of each",
        )
    ]


def test_unreadable(tmp_path: Path) -> None:
    """A file that cannot be read ends in the same form as any other problem."""
    (tmp_path / "latin1.toml").write_bytes(b"# caf\xe9\n")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "long.toml").write_text("a = " + "1" * 10_000)
    # A running server that waited for somebody to write into it would never end.
    os.mkfifo(tmp_path / "pipe.toml")
    with (tmp_path / "endless.toml").open("wb") as endless:
        endless.truncate(1 << 40)
    for name, reason in (
        ("absent.toml", "no such file"),
        ("", "Is a directory"),
        ("latin1.toml", "not UTF-8"),
        ("deep.toml", "nested too deeply"),
        ("long.toml", "not valid TOML"),
        ("pipe.toml", "is not a file"),
        ("endless.toml", "is larger than"),
        ("nul\0", "not valid TOML"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(os.path.join(tmp_path, name))
        (problem,) = caught.value.problems
        assert reason in problem.reason
        assert problem.key == ""
    assert problems(tmp_path, "[server\n")[0][1].endswith("(at line 1, column 8)")


NAMES = st.sampled_from(sorted({"a\nb"} | {name for entry in schema.walk() for name in entry.path.split(".")}))
SCALARS = st.sampled_from(
    [
        1,
        -1,
        True,
        1.5,
        "",
        "x",
        "5m",
        "tcp:25",
        "*",
        "smtp",
        "lmtp",
        "maildir",
        "starttls",
        "relay",
        "0.0.0.0/0",
        "a\0",
    ]
)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
        max_leaves=12,
    ),
    max_size=6,
)


def inline(value: object) -> str:
    """Write any document as an inline TOML value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_text(key)} = {inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return toml_text(value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS)
def test_any_document(tmp_path: Path, document: dict[str, object]) -> None:
    """Whatever TOML holds, it is a configuration or a list of problems of one line each."""
    file = tmp_path / "mta.toml"
    file.write_text("".join(f"{toml_text(key)} = {inline(value)}\n" for key, value in document.items()))
    try:
        load(file, environ={})
    except ConfigError as error:
        assert error.problems
        assert len(str(error).split("\n")) == len(error.problems)


# --- warnings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_secret_in_a_file_that_everybody_can_read(tmp_path: Path, mode: int, warned: int) -> None:
    """So is one in a file of its own; its group may be the server's."""
    key = tmp_path / "key"
    key.write_text("hunter2")
    key.chmod(mode)
    (tmp_path / "c.toml").write_text(written({"metrics.api_key": '"file:key"', "metrics.endpoint": '"http://[::1]/x"'}))
    warnings = load(tmp_path / "c.toml").warnings
    told = f"metrics.api_key: everybody on this machine can read {key}: take that right away from others (chmod o-r)"
    assert list(warnings) == [told] * warned


def test_the_problems_of_a_file_have_a_bound(tmp_path: Path) -> None:
    told = problems(tmp_path, "".join(f"[[route]]\nbogus{number} = 1\n" for number in range(20_000)))
    assert len(told) == PROBLEMS + 1
    assert told[-1] == ("", "there is more, which is told once this is mended")


def test_a_secret_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("x" * 70_000)
    for name, words in (("pipe", "is not a file"), ("long", "is longer than 65536 bytes")):
        settings = {"metrics.api_key": f'"file:{name}"', "metrics.endpoint": '"http://[::1]/x"'}
        ((key, reason),) = problems(tmp_path, written(settings))
        assert key == "metrics.api_key"
        assert words in reason


def test_literal_secret(tmp_path: Path) -> None:
    """A secret that others can read is warned about, without being shown."""
    file = tmp_path / "mta.toml"
    file.write_text(written({"metrics.api_key": '"hunter2"'}))
    for mode, count in ((0o600, 0), (0o640, 1), (0o604, 1), (0o644, 1)):
        file.chmod(mode)
        config = load(file)
        told = [warning for warning in config.warnings if "others can read" in warning]
        assert len(told) == count
        assert "hunter2" not in repr(config)
    file.write_text(written({"metrics.api_key": '"env:KEY"'}))
    assert not [warning for warning in load(file, environ={"KEY": "x"}).warnings if "others can read" in warning]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            written({"dns.trust_ad": "true", "dns.servers": '["127.0.0.1", "[2001:db8::1]"]'}),
            "[2001:db8::1]:53 is another",
        ),
        (written({"route.mx_port": "26"}), "its mx_port and mx_loopback have no effect"),
        (written({"listen.role": '"submission"'}), "so nobody can log in"),
        *(
            (written({path: value, **DIRECTORY}), f"{path} has no effect while relay.domains is empty")
            for path, value in (
                ("relay.aliases", '"aliases"'),
                ("relay.recipients", '"recipients"'),
                ("auth.ldap.recipient_filter", '"(mail={address})"'),
                ("auth.ldap.alias_filter", '"(mail={address})"'),
            )
        ),
        (written({"listen.role": '"submission"', "auth.mechanisms": "[]"}), "auth.mechanisms is empty: nobody can"),
        (
            written({"listen.role": '"submission"', "validators.order": '["relay"]'}),
            'validators.order lacks "send_as": who has logged in may send as anybody',
        ),
        (written({"submission.messages": '["1/h"]', "validators.order": '["relay"]'}), 'lacks "rate", so the limits'),
        (
            written({}) + '[[route]]\ndomain = "example.org"\ntransport = "smtp"\nnext_hop = "mx"\n',
            "route[1] is never used: route[0]",
        ),
        (written({"metrics.api_key": '"a"'}), "metrics.api_key has no effect without"),
        (written({"metrics.endpoint": '"http://127.0.0.1:4318"'}), "metrics.endpoint has no path"),
        (written({"metrics.endpoint": '"http://a.test/v1/metrics"', "metrics.api_key": '"a"'}), "goes in clear"),
    ],
)
def test_warning(text: str, words: str, tmp_path: Path) -> None:
    """What works, but not as one may think, is said at start."""
    assert [warning for warning in configure(tmp_path, text).warnings if words in warning]


MAILDIRS = {
    "relay.domains": '["here.test", "a.here.test"]',
    "route.domain": '"here.test"',
    "route.transport": '"maildir"',
    "route.next_hop": '"{{x}}/{local}"',
}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "route[0]"),
        ({"route.domain": '"*"'}, "route[0]"),
        ({"route.domain": '"*.here.test"'}, "route[0]"),
        ({"listen.endpoint": '"tcp:25:interface=192.0.2.1"'}, "route[0]"),
        # Not ours; not made up by strangers; one for all; from this machine only.
        ({"route.domain": '"away.test"'}, ""),
        ({"relay.recipients": '"people"'}, ""),
        ({"auth.ldap.recipient_filter": '"(mail={address})"', **DIRECTORY}, ""),
        ({"route.next_hop": '"all/{domain}/{{local}}"'}, ""),
        ({"route.transport": '"smtp"', "route.next_hop": '"next.test"'}, ""),
        ({"listen.endpoint": '"tcp:25:interface=127.0.0.1"'}, ""),
        ({"listen.endpoint": r"'tcp:25:interface=\:\:1'"}, ""),
        ({"listen.role": '"submission"'}, ""),
    ],
)
def test_strangers_are_not_to_make_maildirs(settings: dict[str, str], told: str, tmp_path: Path) -> None:
    (tmp_path / "people").write_text("ann\n")
    warnings = configure(tmp_path, written({**MAILDIRS, **settings})).warnings
    found = [warning for warning in warnings if "a Maildir is made for each" in warning]
    assert [warning.partition(".")[0] for warning in found] == ([told] if told else [])


def test_only_routes_that_take_mail_of_ours_make_maildirs(tmp_path: Path) -> None:
    more = '[[route]]\ndomain = "*"\ntransport = "maildir"\nnext_hop = "{local}@{domain}"\n'
    settings = {"relay.domains": '["here.test"]', "route.domain": '"here.test"'}
    for domain, count in (("here.test", 0), ("*.here.test", 1)):
        text = written({**settings, "route.domain": f'"{domain}"'}) + more
        assert len([each for each in configure(tmp_path, text).warnings if "a Maildir is made" in each]) == count


def test_clients_of_an_onion_service_come_from_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever trusts loopback would trust all of them."""
    monkeypatch.setattr(names, "_types_of_plugins", lambda: frozenset({"onion"}))
    text = written({"listen.endpoint": '"onion:25"', "relay.networks": '["127.0.0.0/8"]'})
    words = "clients of listen[0], an onion service"
    assert [warning for warning in configure(tmp_path, text).warnings if words in warning]


def test_no_warning_without_cause(tmp_path: Path) -> None:
    """A plain relay has nothing to be warned about."""
    config = configure(tmp_path, written({"relay.networks": '["127.0.0.0/8"]', "relay.domains": '["example.org"]'}))
    assert config.warnings == ()


# --- routes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "next_hop", "address", "path"),
    [
        ("smtp", "mx.example.org", ("mx.example.org", 25), None),
        ("lmtp", "[::1]", ("::1", 24), None),
        ("lmtp", "unix:/run/lmtp", None, "/run/lmtp"),
        ("maildir", "/srv/{local}", None, "/srv/{local}"),
    ],
)
def test_where_a_route_leads(
    transport: str, next_hop: str, address: tuple[str, int] | None, path: str | None, tmp_path: Path
) -> None:
    """A route says its next hop as what a connection needs."""
    text = written({"route.transport": f'"{transport}"', "route.next_hop": f'"{next_hop}"'})
    (route,) = configure(tmp_path, text).routes
    assert (route.address, route.path) == (address, path)


def test_first_of_two_wildcards(tmp_path: Path) -> None:
    """A narrower route before a wider one is how it should be."""
    more = '[[route]]\ndomain = "*"\ntransport = "smtp"\nnext_hop = "mx"\n'
    assert configure(tmp_path, written({"route.domain": '"*.example.org"'}) + more).warnings == ()


# --- the files made from the schema -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "make"),
    [
        ("conf/mtatwist.toml", "toml", describe.commented_toml),
        ("docs/configuration.rst", "rst", describe.rst),
    ],
)
def test_generated_file(name: str, form: str, make: Any) -> None:
    """The committed file is what the schema says."""
    committed = (ROOT / name).read_text(encoding="utf-8")
    assert committed == make(), f"{name} is out of date; run: mtactl config describe --{form} > {name}"


def test_example_file_is_the_defaults(tmp_path: Path) -> None:
    """The example file is right as it stands, and changes nothing."""
    config = configure(tmp_path, describe.commented_toml())
    plain = configure(tmp_path, '[[listen]]\nendpoint = "tcp:25"\n')
    assert config == plain


def paths(document: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every key in a document."""
    for name, value in document.items():
        tables = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
        for table in tables:
            yield from paths(table, f"{path}{name}.")
        if not tables:
            yield path + name


def test_example_file_has_every_key(tmp_path: Path) -> None:
    """With its comment signs removed, the example file is a right one with every key."""
    lines = describe.commented_toml().split("\n")
    text = "\n".join(line[1:] if line.startswith("#") and line[1:2] not in ("", " ") else line for line in lines)
    assert set(paths(tomllib.loads(text))) == set(SETTINGS)
    (tmp_path / "ldap").write_text("secret")
    text = text.replace("/run/secrets/ldap", str(tmp_path / "ldap"))
    # Its default, no server, goes with no search.
    text = text.replace("uris = []", 'uris = ["ldap://ldap.example.org"]')
    configure(tmp_path, text, environ={"METRICS_API_KEY": "key"})


def anywhere(config: Config) -> Config:
    """Forget where a configuration came from."""
    return dataclasses.replace(config, source=None, warnings=(), embedded=False)


def test_effective_values_load_again(tmp_path: Path) -> None:
    """What "config show" prints is a file that means the same."""
    for original in (load(None), configure(tmp_path, written({}))):
        again = configure(tmp_path, describe.effective_toml(original))
        assert anywhere(again) == anywhere(original)


def test_everything_at_once(tmp_path: Path) -> None:
    """A full file, with every table, is read without an error."""
    (tmp_path / "api.key").write_text("key")
    everything: dict[str, str] = {path: text for path, (text, _) in SETTINGS.items()}
    config = configure(tmp_path, written(everything), environ={"PASSWORD": "from the environment"})
    assert config.auth.ldap.bind_password == Secret("from the environment")
    assert config.control.tokens[0].name == "night watch"
