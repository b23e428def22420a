"""mtactl: what it prints where, and its exit codes."""

from __future__ import annotations

import errno
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rigs import certificates

from mtatwist import describe, regular_file, schema
from mtatwist.control.cli import main
from mtatwist.schema.declare import Key

GOOD = '[[listen]]\nendpoint = "tcp:25"\n[control]\nsocket = "control"\n[metrics]\napi_key = "hunter2"\n'
BAD = '[[listen]]\nendpoint = "tcp:25"\n[limits]\nhops = 0\nerors = 1\n'

LOCKOUT = [f"auth.lockout.{name}" for name in ("threshold", "address_threshold", "window", "duration")]


def mtactl(*arguments: str, **options: Any) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, arguments, **options)


@pytest.fixture
def good(tmp_path: Path) -> str:
    """A right file, with a secret and something to warn about."""
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    return str(file)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """A file with two problems."""
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    return str(file)


def test_check_good(good: str) -> None:
    """A right file is ok; what there is to warn about is on standard error."""
    result = mtactl("config", "check", good)
    assert result.exit_code == 0
    assert result.stdout == f"{good}: ok\n"
    assert f"{good}: warning: metrics.api_key has no effect without metrics.endpoint" in result.stderr
    assert "hunter2" not in result.output


def test_check_bad(bad: str) -> None:
    """All problems are on standard error, one a line, and the exit code says configuration."""
    result = mtactl("config", "check", bad)
    assert result.exit_code == 78
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2
    assert f"{bad}: limits.hops: must be at least 1, not 0\n" in result.stderr


def with_certificate(directory: Path, certificate: Path, key: Path) -> str:
    """A file that names a certificate."""
    file = directory / "tls.toml"
    file.write_text(f'[[listen]]\nendpoint = "tcp:25"\n[tls]\ncertificate = "{certificate}"\nprivate_key = "{key}"\n')
    return str(file)


def test_check_certificate(tmp_path: Path) -> None:
    """The certificate is tried, too: what the server would refuse at its start is an error here."""
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    ours, other = certificates.make(tmp_path / "ours"), certificates.make(tmp_path / "other")
    assert mtactl("config", "check", with_certificate(tmp_path, ours.certificate, ours.key)).exit_code == 0
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    for certificate, key, reason in (
        (missing, ours.key, f"tls.certificate: {missing}: No such file or directory"),
        (text, ours.key, f"tls.certificate: {text} is not a certificate in PEM form"),
        (ours.certificate, missing, f"tls.private_key: {missing}: No such file or directory"),
        (ours.certificate, other.key, f"tls.private_key: {other.key} is not the key of {ours.certificate}"),
    ):
        file = with_certificate(tmp_path, certificate, key)
        result = mtactl("config", "check", file)
        assert (result.exit_code, result.stdout) == (78, "")
        assert result.stderr.startswith(f"{file}: {reason}")


def test_check_certificate_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that only the server's user may read can't be checked, which is worth a warning."""
    ours = certificates.make(tmp_path)

    def locked(path: str, *arguments: Any, **options: Any) -> Any:
        if path == str(ours.key):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open(path, *arguments, **options)

    monkeypatch.setattr(regular_file, "open", locked, raising=False)
    result = mtactl("config", "check", with_certificate(tmp_path, ours.certificate, ours.key))
    assert result.exit_code == 0
    assert f"warning: tls.private_key: {ours.key}: Permission denied; it was not checked: run this as" in result.stderr


LDAPS = '[auth.ldap]\nuris = ["ldaps://ldap.test"]\nbase_dn = "dc=test"\nca_file = "{}"\n'
START_TLS = LDAPS.replace("ldaps:", "ldap:")
COLLECTOR = '[metrics]\nendpoint = "https://collector.test/v1/metrics"\nca_file = "{}"\n'


def with_authority(directory: Path, table: str, authority: Path) -> str:
    """A file that names an authority."""
    file = directory / "authority.toml"
    file.write_text('[[listen]]\nendpoint = "tcp:25"\n' + table.format(authority))
    return str(file)


@pytest.mark.parametrize(
    ("table", "key"), [(LDAPS, "auth.ldap"), (START_TLS, "auth.ldap"), (COLLECTOR, "metrics")], ids=str
)
def test_check_authorities(tmp_path: Path, table: str, key: str) -> None:
    """So are the authorities that others are known by."""
    good, missing, text, broken = (tmp_path / name for name in ("good", "missing", "text", "broken"))
    good.write_bytes(certificates.make(tmp_path).certificate.read_bytes())
    text.write_text("no certificate")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    result = mtactl("config", "check", with_authority(tmp_path, table, good))
    assert (result.exit_code, result.stderr) == (0, "")
    for authority, reason in (
        (missing, "No such file or directory"),
        (tmp_path, "Is a directory"),
        (text, "has no certificates in PEM form"),
        (broken, "has no certificates in PEM form, or a broken one"),
    ):
        file = with_authority(tmp_path, table, authority)
        result = mtactl("config", "check", file)
        assert (result.exit_code, result.stdout) == (78, "")
        assert result.stderr == f"{file}: {key}.ca_file: {authority}: {reason}\n"


def test_check_authorities_that_nobody_asks_for(tmp_path: Path) -> None:
    """The server does not read them either."""
    for table in (START_TLS + "start_tls = false\n", COLLECTOR.replace("endpoint", "#")):
        assert mtactl("config", "check", with_authority(tmp_path, table, tmp_path / "missing")).exit_code == 0


def test_check_authorities_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the server's user may read can't be checked."""

    def locked(path: str, *arguments: Any, **options: Any) -> Any:
        if path == str(tmp_path / "ca"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open(path, *arguments, **options)

    monkeypatch.setattr(regular_file, "open", locked, raising=False)
    result = mtactl("config", "check", with_authority(tmp_path, LDAPS, tmp_path / "ca"))
    assert result.exit_code == 0
    assert f"warning: auth.ldap.ca_file: {tmp_path}/ca: Permission denied; it was not checked" in result.stderr


def test_check_a_group_that_does_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "mta.toml"
    file.write_text('[[listen]]\nendpoint = "tcp:25"\n[control]\nmode = "0660"\ngroup = "no-such-group"\n')
    result = mtactl("config", "check", str(file))
    assert result.exit_code == 78
    assert 'control.group: there is no group "no-such-group" on this machine' in result.stderr


def test_check_recipients(tmp_path: Path) -> None:
    """So are aliases and recipients: each wrong line of both."""
    (tmp_path / "aliases").write_text("a: b\nc: |d\ne\n")
    (tmp_path / "people").write_text("x@away.test\n")
    file = tmp_path / "mta.toml"
    listen = '[[listen]]\nendpoint = "tcp:25"\n'
    file.write_text(listen + '[relay]\naliases = "aliases"\nrecipients = "people"\ndomains = ["here.test"]\n')
    result = mtactl("config", "check", str(file))
    assert result.exit_code == 78
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [
        ["relay.aliases", f"{tmp_path}/aliases:2"],
        ["relay.aliases", f"{tmp_path}/aliases:3"],
        ["relay.recipients", f"{tmp_path}/people:1"],
    ]
    (tmp_path / "aliases").write_text("a: b\n")
    (tmp_path / "people").write_text("x\n")
    assert mtactl("config", "check", str(file)).exit_code == 0


def test_check_users(tmp_path: Path) -> None:
    """So is the password file, where users log in by it."""
    users = tmp_path / "users"
    users.write_text("alice:x\nbob:\ncarol\n")
    users.chmod(0o644)
    file = tmp_path / "mta.toml"
    text = f'[[listen]]\nendpoint = "tcp:587"\nrole = "submission"\ntls = "none"\n[auth]\nfile = "{users}"\n'
    file.write_text(text)
    result = mtactl("config", "check", str(file))
    assert (result.exit_code, result.stdout) == (78, "")
    assert [line.partition(": ")[2][:30] for line in result.stderr.splitlines()] == [
        f"auth.file: {users}:2: "[:30],
        f"auth.file: {users}:3: "[:30],
    ]
    users.write_text("alice:x\n")
    result = mtactl("config", "check", str(file))
    assert result.exit_code == 0
    assert f"warning: auth.file: {users}: everybody may read or write it: chmod o= {users}\n" in result.stderr
    assert f"warning: auth.file: {users}:1: there is no hash that is known here" in result.stderr
    users.write_text("alice\n")
    file.write_text(text.replace('"submission"', '"mx"'))
    assert mtactl("config", "check", str(file)).exit_code == 0


@pytest.mark.parametrize("before", [True, False])
def test_check_json(bad: str, good: str, before: bool) -> None:
    """With --json, on either side of the verb, there is one JSON object a line, on standard output."""

    def check(file: str) -> Result:
        return mtactl("--json", "config", "check", file) if before else mtactl("config", "check", "--json", file)

    result = check(bad)
    assert result.exit_code == 78
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["level"], each["file"]) for each in objects] == [("error", bad)] * 2
    assert {each["key"] for each in objects} == {"limits.hops", "limits.erors"}
    result = check(good)
    assert result.exit_code == 0
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert objects[-1] == {"level": "ok", "file": good, "warnings": len(objects) - 1}
    assert {each["level"] for each in objects[:-1]} == {"warning"}
    assert result.stderr == ""


@pytest.mark.parametrize("verb", ["check", "show"])
@pytest.mark.parametrize("name", ["", "absent.toml", "no\ndirectory/x.toml", "\udcff.toml", "latin1.toml"])
def test_unreadable(verb: str, name: str, tmp_path: Path) -> None:
    """A file that cannot be read is a problem like any other."""
    (tmp_path / "latin1.toml").write_bytes(b"\xe9")
    result = mtactl("config", verb, f"{tmp_path}/{name}")
    assert result.exit_code == 78
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1


def test_show_embedded() -> None:
    """Without a file, the embedded set-up is shown, as TOML."""
    result = mtactl("config", "show")
    assert result.exit_code == 0
    shown = tomllib.loads(result.stdout)
    assert shown["server"]["hostname"] == "localhost"
    assert shown["limits"]["message_size"] == "25MiB"
    assert shown["route"][0]["next_hop"].endswith("/mtatwist-data/maildir/{local}")


def test_show_hides_secrets(good: str, bad: str) -> None:
    """Secrets are stars, in both forms; a wrong file is not shown."""
    result = mtactl("config", "show", good)
    assert tomllib.loads(result.stdout)["metrics"]["api_key"] == "***"
    assert "hunter2" not in result.output
    result = mtactl("--json", "config", "show", good)
    assert json.loads(result.stdout)["metrics"]["api_key"] == "***"
    assert json.loads(result.stdout)["tls"]["certificate"] is None
    assert "hunter2" not in result.output
    assert mtactl("config", "show", bad).exit_code == 78


def test_describe_every_key() -> None:
    """Every key is described: name, type, default and meaning."""
    result = mtactl("config", "describe")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    objects = [json.loads(line) for line in mtactl("--json", "config", "describe").stdout.splitlines()]
    entries = [entry for entry in schema.walk() if isinstance(entry.item, Key)]
    assert [each["key"] for each in objects] == [entry.path for entry in entries]
    for entry, shown in zip(entries, objects, strict=True):
        assert isinstance(entry.item, Key)
        assert entry.item.doc in text
        assert shown["doc"] == entry.item.doc
        assert f"{entry.path} ({shown['type']}; default: {shown['default_words']})" in text


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("auth.lockout", LOCKOUT),
        ("auth.lockout.", LOCKOUT),
        ("limits.hops", ["limits.hops"]),
    ],
)
def test_describe_prefix(prefix: str, keys: list[str]) -> None:
    """A prefix picks a key, or all in a table."""
    result = mtactl("config", "describe", prefix, "--json")
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == keys


def test_describe_unknown() -> None:
    """A prefix that nothing has is wrong usage."""
    result = mtactl("config", "describe", "limit")
    assert result.exit_code == 2
    assert "There is no key" in result.stderr
    assert mtactl("config", "describe", "limits", "--rst").exit_code == 2


def test_describe_generates() -> None:
    """The two generated files come out of it as they are."""
    assert mtactl("config", "describe", "--rst").stdout == describe.rst()
    assert mtactl("config", "describe", "--toml").stdout == describe.commented_toml()


def test_global_options(good: str) -> None:
    """--socket and --token are accepted before the verb, or from the environment; neither is printed."""
    result = mtactl("--socket", "/run/x.sock", "--token", "t0ken", "--json", "config", "check", good)
    assert result.exit_code == 0
    help_text = mtactl("--help", env={"MTACTL_TOKEN": "t0ken"}).output
    for word in ("--socket", "--token", "--json", "--version", "MTACTL_SOCKET", "MTACTL_TOKEN"):
        assert word in help_text
    assert "t0ken" not in result.output + help_text


def test_version() -> None:
    """--version names the command and its version."""
    result = mtactl("--version")
    assert result.exit_code == 0
    assert result.output.startswith("mtactl, version ")
