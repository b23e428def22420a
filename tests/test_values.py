"""Values as people write them."""

from __future__ import annotations

import ipaddress
import os
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.values import names, numbers, strings
from mtatwist.values.base import BadItems, Context, toml_text
from mtatwist.values.kinds import NETWORK, choice, list_of
from mtatwist.values.numbers import Rate
from mtatwist.values.strings import Secret

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("parse", "raw", "expected"),
    [
        (numbers.parse_duration, "5m", 300.0),
        (numbers.parse_duration, "30s", 30.0),
        (numbers.parse_duration, "1h", 3600.0),
        (numbers.parse_duration, "5d", 432000.0),
        (numbers.parse_duration, "250ms", 0.25),
        (numbers.parse_duration, "1h30m", 5400.0),
        (numbers.parse_duration, " 1.5 h ", 5400.0),
        (numbers.parse_duration, "2w", 1209600.0),
        (numbers.parse_size, "25MiB", 25 * MIB),
        (numbers.parse_size, "25MB", 25_000_000),
        (numbers.parse_size, "512KiB", 512 * 1024),
        (numbers.parse_size, "1 kB", 1000),
        (numbers.parse_size, "1.5mib", 3 * MIB // 2),
        (numbers.parse_size, "1024", 1024),
        (numbers.parse_size, 1024, 1024),
        (numbers.parse_size, "2TiB", 2 * MIB * MIB),
        (numbers.parse_rate, "100/h", Rate(100, 3600.0)),
        (numbers.parse_rate, "20 / 10m", Rate(20, 600.0)),
        (numbers.parse_retry, "1m", (60.0,)),
        (numbers.parse_retry, "1m, 5m, 1h*2", (60.0, 300.0, 3600.0, 3600.0)),
        (numbers.parse_integer, 7, 7),
        (numbers.parse_boolean, False, False),
        (names.parse_network, "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        (names.parse_network, "192.0.2.7", ipaddress.ip_network("192.0.2.7/32")),
        (names.parse_network, "2001:db8::/32", ipaddress.ip_network("2001:db8::/32")),
        (names.parse_domain, "Example.ORG", "example.org"),
        (names.parse_domain, "localhost", "localhost"),
        (names.parse_domain, "BÜCHER.example", "xn--bcher-kva.example"),
        (names.parse_domain, "xn--bcher-kva.example", "xn--bcher-kva.example"),
        (names.parse_domain, "a" * 63 + ".example", "a" * 63 + ".example"),
        (names.parse_address, "Root@Example.org", "Root@example.org"),
        (names.parse_address, "a.b+c@example.org", "a.b+c@example.org"),
        (names.parse_endpoint, "tcp:25", "tcp:25"),
        (names.parse_endpoint, r"tcp6:port=25:interface=\:\:1", r"tcp6:port=25:interface=\:\:1"),
        (names.parse_endpoint, "tcp:interface=192.0.2.1:port=0", "tcp:interface=192.0.2.1:port=0"),
        (names.parse_endpoint, "unix:/run/mta.sock:mode=600", "unix:/run/mta.sock:mode=600"),
        (names.parse_endpoint, "systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        (names.parse_route_domain, "*", "*"),
        (names.parse_route_domain, "*.Example.org", "*.example.org"),
        (strings.parse_delimiter, "", ""),
        (strings.parse_delimiter, "-", "-"),
        (strings.parse_sha256, "AB" * 32, "ab" * 32),
        (strings.parse_base_dn, "", ""),
    ],
)
def test_good(parse: Callable[[object], object], raw: object, expected: object) -> None:
    """What people write is read, as the type that the program works with."""
    value = parse(raw)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("text", ["100/h", "1000/d", "20/10m", "1/1500ms", "5/w", "2/90m"])
def test_a_rate_is_shown_as_it_may_be_written(text: str) -> None:
    rate = numbers.parse_rate(text)
    assert numbers.parse_rate(numbers.show_rate(rate)) == rate
    assert text == "5/w" or numbers.show_rate(rate) == text


@pytest.mark.parametrize(
    ("parse", "raw", "reason"),
    [
        (numbers.parse_duration, 300, '300 has no unit: write "300s"'),
        (numbers.parse_duration, 1.5, '"1.5s"'),
        (numbers.parse_duration, "300", '"300s"'),
        (numbers.parse_duration, True, "found a boolean true"),
        (numbers.parse_duration, "5 minutes", "not a duration"),
        (numbers.parse_duration, "-5m", "not a duration"),
        (numbers.parse_duration, "0s", "no time at all"),
        (numbers.parse_duration, "9999w", 'at most "3650d"'),
        (numbers.parse_duration, "9" * 5000 + "s", "not a duration"),
        (numbers.parse_duration, "", "is empty"),
        (numbers.parse_duration, ["5m"], "found a list"),
        (numbers.parse_size, "25M", '"25MiB"'),
        (numbers.parse_size, "25 bananas", '"bananas"'),
        (numbers.parse_size, "-1MiB", "above zero"),
        (numbers.parse_size, -1, "above zero"),
        (numbers.parse_size, 0, "above zero"),
        (numbers.parse_size, "0", "above zero"),
        (numbers.parse_size, 1.5, "expected a size"),
        (numbers.parse_size, True, "found a boolean"),
        (numbers.parse_size, 2**70, "too large"),
        (numbers.parse_size, "big", "not a size"),
        (numbers.parse_rate, "100", "not a rate"),
        (numbers.parse_rate, "100/fortnight", "not a rate"),
        (numbers.parse_rate, "0/h", "at least 1"),
        (numbers.parse_rate, 100, "expected a rate"),
        (numbers.parse_retry, "", "is empty"),
        (numbers.parse_retry, "1m,,5m", "empty step"),
        (numbers.parse_retry, "1m, 5", '"5s"'),
        (numbers.parse_retry, "1h*0", "from 1 to 1000"),
        (numbers.parse_retry, "1h*", "from 1 to 1000"),
        (numbers.parse_retry, "1h*9999999999", "from 1 to 1000"),
        (numbers.parse_retry, ["1m"], "one string"),
        (numbers.parse_integer, "7", "without quotes"),
        (numbers.parse_integer, 0, "at least 1"),
        (numbers.parse_integer, 10**12, "at most"),
        (numbers.parse_integer, 7.0, "whole number"),
        (numbers.parse_integer, True, "found a boolean"),
        (numbers.parse_boolean, "true", "without quotes"),
        (numbers.parse_boolean, 1, "true or false"),
        (names.parse_network, "10.1.2.3/8", '"10.0.0.0/8"'),
        (names.parse_network, "10.0.0.0/33", "not a network"),
        (names.parse_network, "here", "not a network"),
        (names.parse_network, 10, "found a number"),
        (names.parse_domain, "example.org.", 'write "example.org"'),
        (names.parse_domain, "ex ample.org", "letters, digits and inner hyphens"),
        (names.parse_domain, "-a.org", "inner hyphens"),
        (names.parse_domain, "a_b.org", "inner hyphens"),
        (names.parse_domain, "a..org", "nothing between two dots"),
        (names.parse_domain, "a" * 64 + ".org", "longer than 63"),
        (names.parse_domain, "a." * 127 + "org", "longer than 253"),
        (names.parse_domain, "192.0.2.1", "not a domain"),
        (names.parse_domain, "a\nb.org", "control character"),
        (names.parse_domain, "b☃.org", "inner hyphens"),
        (names.parse_domain, "ü-.org", "inner hyphens"),
        (names.parse_address, "root", 'needs an "@"'),
        (names.parse_address, "root@", 'needs an "@"'),
        (names.parse_address, "a b@example.org", "cannot stand before"),
        (names.parse_address, "@example.org", "cannot stand before"),
        (names.parse_address, "root@-x", "not a domain"),
        (names.parse_address, "<root@example.org>", "cannot stand before"),
        (names.parse_endpoint, 25, 'write "tcp:25"'),
        (names.parse_endpoint, "25", 'write "tcp:25"'),
        (names.parse_endpoint, "tcp", "not an endpoint"),
        (names.parse_endpoint, "", "is empty"),
        (names.parse_endpoint, "tcp:99999", "no valid port"),
        (names.parse_endpoint, "tcp:abc", 'no valid port: write a number from 0 to 65535, as in "tcp:25"'),
        (names.parse_endpoint, "tcp:-1", "no valid port"),
        (names.parse_endpoint, "ssl:port=70000:privateKey=key.pem", "no valid port"),
        (names.parse_endpoint, "tpc:3600", 'no plugin provides the type "tpc"; did you mean "tcp:3600"?'),
        (names.parse_endpoint, "carrier-pigeon:25", "write "),
        (names.parse_endpoint, "tcp:25:interface=::1", "a backslash before each colon"),
        (names.parse_endpoint, "tcp:25:interfce=192.0.2.1", "arguments that tcp does not take"),
        (names.parse_endpoint, "unix:/run/mta.sock:mode=rw", 'as in "unix:/run/mta.sock"'),
        (names.parse_route_domain, "mail.*", '"*.example.org"'),
        (strings.parse_delimiter, "++", "one mark"),
        (strings.parse_delimiter, "a", "one mark"),
        (strings.parse_delimiter, 1, "expected one character"),
        (strings.parse_sha256, "abc", "64 hexadecimal digits"),
        (
            strings.parse_base_dn,
            "example.org",
            'is not a DN: write the whole name of an entry, such as "dc=example,dc=org"',
        ),
        (strings.parse_base_dn, "Example", 'such as "dc=example,dc=org"'),
        (strings.parse_base_dn, "mta@example.org", "is not a DN"),
        (strings.parse_base_dn, r"EXAMPLE\mta", "is not a DN"),
        (strings.parse_base_dn, 7, "expected a DN"),
        (strings.parse_bind_name, "mta-example", 'is not a DN: write the whole name of an entry, such as "cn=mta,'),
        (strings.parse_bind_name, "", "expected a DN"),
        (strings.parse_bind_name, "mta@", "is not a DN"),
        (strings.parse_bind_name, r"\mta", "is not a DN"),
        (strings.parse_bind_name, "a@b@c", "is not a DN"),
    ],
)
def test_bad(parse: Callable[[object], object], raw: object, reason: str) -> None:
    """What cannot be read is refused, in one line that names the cause or the cure."""
    with pytest.raises(ValueError) as caught:
        parse(raw)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


DNS = [
    "dc=org",
    "DC=example, DC=org",
    "ou=people+l=here,o=Bücher & Söhne,c=DE",
    r"cn=Doe\, Jane,ou=a\2Cb,o=x=y",
    'cn="Doe, Jane",o=example',
    "1.3.6.1.4.1.1466.0=#04024869;OID.2.5.4.3=me",
    "uid=me@example.org,dc=example",
    "<GUID=7b95f0d5-a3ed-486c-919c-077b8c9731f2>",
    "<WKGUID=a9d1ca15768811d1aded00c04fd8d5cd,dc=Fabrikam,dc=com>",
]
NO_DNS = [
    "example",
    "dc=example,",
    ",dc=example",
    "dc=,dc=org",
    "dc=example,org",
    "=x",
    "dc= ",
    "d c=x",
    'cn="x',
    "cn=x\\",
    "dc=a dc=b,,",
    "<GUID=>",
    "ldap://ldap.example.org/dc=org",
]


@pytest.mark.parametrize("parse", [strings.parse_base_dn, strings.parse_bind_name])
def test_names_of_entries(parse: Callable[[object], str]) -> None:
    for raw in DNS:
        assert parse(raw) == raw
    for raw in NO_DNS:
        with pytest.raises(ValueError, match="is not a DN"):
            parse(raw)


@pytest.mark.parametrize("raw", ["mta@example.org", "mail server@corp.example.org", r"EXAMPLE\mta", r"corp.test\a b"])
def test_names_of_active_directory(raw: str) -> None:
    assert strings.parse_bind_name(raw) == raw


@pytest.mark.parametrize("piece", ["dc=a,", "dc= ", "a", "\\", '"', '"a"', " "])
def test_a_long_dn_is_read_soon(piece: str) -> None:
    """Each character is looked at a few times, whatever stands there: this ends, or the suite does not."""
    with pytest.raises(ValueError, match="is not a DN"):
        strings.parse_base_dn(f"dc={piece * 100_000},")


@pytest.mark.parametrize(
    ("raw", "transport", "expected"),
    [
        ("mx.example.org", "smtp", "mx.example.org:25"),
        ("mx.example.org", "lmtp", "mx.example.org:24"),
        ("MX.example.org:2525", "smtp", "mx.example.org:2525"),
        ("mail_store:24", "lmtp", "mail_store:24"),
        ("192.0.2.1", "smtp", "192.0.2.1:25"),
        ("[2001:DB8::1]:26", "smtp", "[2001:db8::1]:26"),
        ("[::1]", "smtp", "[::1]:25"),
        ("unix:/run/dovecot/lmtp", "lmtp", "unix:/run/dovecot/lmtp"),
        ("mail/{domain}/{local}", "maildir", "/data/mail/{domain}/{local}"),
        ("/srv/mail/{local}", "maildir", "/srv/mail/{local}"),
        ("/srv/{{x}}/{local}", "maildir", "/srv/{{x}}/{local}"),
    ],
)
def test_next_hop(raw: str, transport: str, expected: str) -> None:
    """A next hop has one normal form, which names the port."""
    assert names.parse_next_hop(raw, transport, "/data") == expected
    assert names.parse_next_hop(expected, transport, "/data") == expected


@pytest.mark.parametrize(
    ("raw", "transport", "reason"),
    [
        ("::1", "smtp", '"[::1]:25"'),
        ("mx.example.org:smtp", "smtp", '"smtp" is no number'),
        ("mx.example.org:0", "smtp", "1 to 65535"),
        ("mx.example.org:65536", "smtp", "1 to 65535"),
        ("[mx]:25", "smtp", "not an IP address"),
        ("300.1.1.1:25", "smtp", "not an IP address"),
        ("a b:25", "smtp", "not a domain"),
        ("unix:lmtp", "lmtp", "absolute path"),
        ("mail.example.org:25", "lmtp", "port of SMTP"),
        ("mail/{user}", "maildir", '"{local}"'),
        ("mail/{local", "maildir", '"{local}"'),
        ("mail\0", "maildir", "control character"),
        (25, "smtp", "found a number"),
    ],
)
def test_bad_next_hop(raw: object, transport: str, reason: str) -> None:
    """A next hop that cannot be reached is refused."""
    with pytest.raises(ValueError) as caught:
        names.parse_next_hop(raw, transport, "/data")
    assert reason in str(caught.value)


@given(st.integers(1, numbers.LONGEST * 1000))
def test_duration_there_and_back(milliseconds: int) -> None:
    """What is shown is read as the same duration."""
    assert numbers.parse_duration(numbers.show_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(1, numbers.LARGEST))
def test_size_there_and_back(size: int) -> None:
    """What is shown is read as the same size."""
    assert numbers.parse_size(numbers.show_size(size)) == size


@given(st.lists(st.integers(1, 7), min_size=1).map(lambda hours: tuple(hour * 3600.0 for hour in hours)))
def test_retry_there_and_back(schedule: tuple[float, ...]) -> None:
    """What is shown is read as the same schedule."""
    assert numbers.parse_retry(numbers.show_retry(schedule)) == schedule


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(ANYTHING | st.text(alphabet="0159.:/*@[]{}-_ambhdsKiBMü☃ \n\0"))
def test_nothing_but_value_errors(raw: object) -> None:
    """Whatever stands in the file: a value, or an error for people, never another exception."""
    for parse in (
        numbers.parse_boolean,
        numbers.parse_integer,
        numbers.parse_duration,
        numbers.parse_size,
        numbers.parse_rate,
        numbers.parse_retry,
        names.parse_network,
        names.parse_domain,
        names.parse_address,
        names.parse_endpoint,
        names.parse_route_domain,
        strings.parse_delimiter,
        strings.parse_sha256,
        strings.parse_text,
        lambda value: names.parse_host_port(value, 25),
        lambda value: names.parse_next_hop(value, "maildir", "/data"),
        lambda value: strings.parse_choice(value, ("a", "b")),
        lambda value: strings.parse_path(value, "/data"),
        lambda value: strings.parse_secret(value, Context()),
        lambda value: list_of(NETWORK).parse(value, Context()),
    ):
        try:
            parse(raw)
        except ValueError as error:
            assert str(error)
            assert "\n" not in str(error)


def test_choice_names_the_nearest() -> None:
    """A slip of the pen is answered with the choices and the likeliest one."""
    with pytest.raises(ValueError) as caught:
        strings.parse_choice("smpt", ("smtp", "lmtp", "maildir"))
    assert str(caught.value) == '"smpt" is not known: write "smtp", "lmtp" or "maildir"; did you mean "smtp"?'
    with pytest.raises(ValueError, match="in quotes"):
        strings.parse_choice(1.2, ("1.2", "1.3"))


def test_list_reports_each_item() -> None:
    """All the wrong items of a list are reported, each by its index."""
    with pytest.raises(BadItems) as caught:
        list_of(choice("a", "b")).parse(["a", "x", 1], Context())
    assert [index for index, _ in caught.value.reasons] == [1, 2]
    with pytest.raises(ValueError, match=r'write \["a"\]'):
        list_of(choice("a", "b")).parse("a", Context())


def test_secret_from_the_environment() -> None:
    """env:NAME is looked up in the environment that was given, and must be there."""
    assert strings.parse_secret("env:KEY", Context(environ={"KEY": "s3cret"})).reveal() == "s3cret"
    for environ in ({}, {"KEY": ""}):
        with pytest.raises(ValueError, match='"KEY" is not set'):
            strings.parse_secret("env:KEY", Context(environ=environ))


def test_secret_from_a_file(tmp_path: Path) -> None:
    """file:PATH is read from the configuration's directory on, without the line end at its end."""
    context = Context(directory=str(tmp_path))
    for content, expected in (("s3cret\n", "s3cret"), ("two\nlines\r\n", "two\nlines"), (" x \n\n", " x \n")):
        (tmp_path / "secret").write_bytes(content.encode())
        secret = strings.parse_secret("file:secret", context)
        assert secret.reveal() == expected
        assert not secret.literal
    assert strings.parse_secret(f"file:{tmp_path / 'secret'}", Context()).reveal() == " x \n"


def test_unusable_secret_file(tmp_path: Path) -> None:
    """A secret that cannot be had is an error that names the file."""
    context = Context(directory=str(tmp_path))
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "long").write_bytes(b"x" * 70000)
    for name, reason in (
        ("absent", "No such file"),
        ("empty", "is empty"),
        ("binary", "not UTF-8"),
        ("long", "longer than"),
        ("nul\0", "not a path"),
        ("", "directory"),
    ):
        with pytest.raises(ValueError, match=reason):
            strings.parse_secret(f"file:{name}", context)


def test_secret_is_not_shown() -> None:
    """No way to print a secret by accident."""
    secret = strings.parse_secret("hunter2", Context())
    assert secret.literal
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    assert len({secret, Secret("hunter2")}) == 1
    with pytest.raises(ValueError) as caught:
        strings.parse_secret(["hunter2"], Context())
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))


def test_paths_start_where_told(tmp_path: Path) -> None:
    """A relative path starts at the directory given; an absolute one stays."""
    assert strings.parse_path("a/../b", str(tmp_path)) == os.path.join(str(tmp_path), "b")
    assert strings.parse_path("/etc/mx.pem", str(tmp_path)) == "/etc/mx.pem"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_toml_text_is_toml(text: str) -> None:
    """Any string can be written as TOML."""
    assert tomllib.loads(f"key = {toml_text(text)}")["key"] == text


def test_a_type_of_a_plugin_is_good_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_types_of_plugins", lambda: ["onion"])
    assert names.parse_endpoint("onion:25") == "onion:25"
    monkeypatch.setattr(names, "_types_of_plugins", list)
    with pytest.raises(ValueError, match="needs the package txtorcon: install it"):
        names.parse_endpoint("onion:25")
