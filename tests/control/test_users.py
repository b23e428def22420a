"""mtactl users: what it makes of the file, what it prints, and its exit codes."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import stat
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from passlib import hash as passlib
from rigs.pump import Pump

from mtatwist.auth import hashes, user_change, user_file
from mtatwist.auth.credentials import Login
from mtatwist.auth.passwd import PasswordFile
from mtatwist.control.cli import main
from mtatwist.transaction import Account

QUICK: str = passlib.ldap_salted_sha1.hash("quick")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A password file that somebody has written, with comments."""
    path = tmp_path / "users"
    path.write_bytes(
        f"# Ours\r\nalice:{QUICK}:alice@example.org , team@example.org\r\n\n  # Theirs\nBob:{QUICK}".encode()
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time."""
    monkeypatch.setattr(hashes, "make", passlib.ldap_salted_sha1.hash)


def mtactl(*arguments: str | Path, password: str | bytes | None = None) -> Result:
    """Run the command; the password is on standard input."""
    result = CliRunner().invoke(main, [str(each) for each in arguments], input=password)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def login(path: Path, name: str, password: str) -> Account | None:
    """As the server does it."""
    user = user_file.read(str(path)).users.get(name)
    right = user is not None and hashes.verify(password, user.hash)
    return user.account(["example.org"]) if user and right else None


def test_who_is_added_can_log_in(tmp_path: Path) -> None:
    """With the password as the server prepares it, and what is made is argon2."""
    path = tmp_path / "users"
    result = mtactl("users", "add", "--file", path, "Amélie", password="pa\u0308ss wörd\n")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: added amélie\n"
    pump = Pump()
    checker = PasswordFile(str(path), domains=["example.org"], reactor=pump)
    checker.start()
    try:
        account = pump.wait(checker.requestAvatarId(Login("amélie", "päss wörd")))
    finally:
        checker.stop()
    assert account == Account("amélie", frozenset({"amélie@example.org"}))
    assert path.read_text().startswith("amélie:$argon2id$")
    assert "wörd" not in result.output


@pytest.mark.usefixtures("quick")
def test_addresses_stand_in_the_file_as_they_are_compared(users: Path) -> None:
    addresses = ("--address", "Carol@Bücher.example", "--address", "team@example.org")
    assert mtactl("users", "add", "carol", "--file", users, *addresses, password="x").exit_code == 0
    account = login(users, "carol", "x")
    assert account is not None
    assert account.addresses == {"Carol@xn--bcher-kva.example", "team@example.org"}


@pytest.mark.usefixtures("quick")
def test_a_change_leaves_all_else_as_it_is(users: Path) -> None:
    before = users.read_bytes()
    head, theirs = before.split(b"\r\n\n")
    assert mtactl("users", "add", "carol", "--file", users, password="x").exit_code == 0
    added = users.read_bytes()
    assert added.startswith(before + b"\ncarol:{SSHA}")
    assert added.endswith(b"\n")
    assert mtactl("users", "remove", "carol", "--file", users).exit_code == 0
    assert users.read_bytes() == before + b"\n"
    assert mtactl("users", "passwd", "alice", "--file", users, password="new").exit_code == 0
    assert login(users, "alice", "new")
    changed = users.read_bytes()
    assert changed.replace(changed.splitlines()[1].split(b":")[1], QUICK.encode()) == before + b"\n"
    assert mtactl("users", "remove", "ALICE", "--file", users).exit_code == 0
    assert users.read_bytes() == head.splitlines()[0] + b"\r\n\n" + theirs + b"\n"
    assert [each.name for each in users.parent.iterdir()] == ["users"], "and nothing is left beside it"


@pytest.mark.usefixtures("quick")
def test_a_new_hash_on_a_short_line_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(f"alice:{QUICK}\r\nbob:{QUICK}\r\n".encode())
    assert mtactl("users", "passwd", "alice", "--file", path, password="new").exit_code == 0
    assert path.read_bytes().count(b"\r\n") == 2
    assert login(path, "alice", "new")
    assert login(path, "bob", "quick")


def test_list(users: Path) -> None:
    with users.open("a") as file:
        file.write("\ncarol@example.org:secret\n")
    result = mtactl("users", "list", "--file", users)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == ["alice  {SSHA}  alice@example.org  team@example.org", "bob  {SSHA}"]
    assert result.stdout.splitlines()[2].startswith("carol@example.org  (there is no hash that is known here")
    assert "secret" not in result.output
    assert QUICK not in result.output
    objects = [json.loads(line) for line in mtactl("--json", "users", "list", "--file", users).stdout.splitlines()]
    assert objects[0] == {
        "user": "alice",
        "scheme": "{SSHA}",
        "addresses": ["alice@example.org", "team@example.org"],
        "fault": "",
    }
    assert [each["user"] for each in objects] == ["alice", "bob", "carol@example.org"]
    assert objects[2]["fault"]


def test_without_options_it_is_the_file_of_the_server_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mtatwist-data" / "users"
    listed = mtactl("users", "list")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert listed.stderr == f"{path}: there is no such file, and so there are no users\n"
    added = mtactl("users", "add", "me", password="x")
    assert added.stdout == f"{path}: added me, who may send as me@localhost\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert mtactl("users", "list").stdout == "me  argon2  me@localhost\n"


@pytest.mark.usefixtures("quick")
def test_a_configuration_names_the_file_and_the_domains(tmp_path: Path) -> None:
    config = tmp_path / "mta.toml"
    text = '[server]\ndata_dir = "data"\n[[listen]]\nendpoint = "tcp:25"\n[relay]\ndomains = ["example.org"]\n'
    config.write_text(f'{text}[auth]\nfile = "people"\n')
    missing = mtactl("users", "add", "me", "--config", config, password="x")
    assert missing.exit_code == 74
    assert "its directory is missing: make it, for the user that the server runs as" in missing.stderr
    (tmp_path / "data").mkdir()
    result = mtactl("--json", "users", "add", "me", "--config", config, password="x")
    assert json.loads(result.stdout) == {
        "level": "added",
        "file": str(tmp_path / "data" / "people"),
        "user": "me",
        "scheme": "{SSHA}",
        "addresses": ["me@example.org"],
        "fault": "",
    }
    config.write_text(
        f'{text}[auth]\nbackend = "ldap"\n[auth.ldap]\nuris = ["ldaps://ldap.example.org"]\n'
        'base_dn = "dc=example,dc=org"\n'
    )
    for verb in ("list",), ("add", "me"), ("remove", "me"), ("passwd", "me"):
        refused = mtactl("users", *verb, "--config", config, password="x")
        assert refused.exit_code == 78
        assert "auth.backend" in refused.stderr
    config.write_text("nonsense")
    assert mtactl("users", "list", "--config", config).exit_code == 78
    assert mtactl("users", "list", "--config", config, "--file", config).exit_code == 2


def test_who_is_there_or_not(users: Path) -> None:
    before = users.read_bytes()
    result = mtactl("users", "add", "Alice", "--file", users, password="x")
    assert (result.exit_code, result.stdout) == (73, "")
    assert "mtactl users passwd" in result.stderr
    for verb in ("remove", "passwd"):
        result = mtactl("users", verb, "nobody", "--file", users, password="x")
        assert (result.exit_code, result.stdout) == (67, "")
        assert "mtactl users list" in result.stderr
        assert mtactl("users", verb, "nobody", "--file", users.parent / "absent", password="x").exit_code == 67
    assert users.read_bytes() == before


@pytest.mark.parametrize("name", ["", " alice", "a:b", "#alice", "a\u0007", "a\nb", "x" * 2000, "\udcff"])
def test_names_that_nobody_could_log_in_with(users: Path, name: str) -> None:
    before = users.read_bytes()
    result = mtactl("users", "add", "--file", users, "--", name, password="x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "NAME" in result.stderr
    assert users.read_bytes() == before


@pytest.mark.parametrize(
    "address", ["", "me", "me@", "@example.org", "a@b.c,d@e.f", "a@b.c>", "<>", '"a,b"@c.d', '"a:b"@c']
)
def test_addresses_that_are_none(users: Path, address: str) -> None:
    before = users.read_bytes()
    result = mtactl("users", "add", "me", "--file", users, "--address", address, password="x")
    assert (result.exit_code, result.stdout) in ((2, ""), (65, ""))
    assert "address" in result.stderr
    assert users.read_bytes() == before


@pytest.mark.parametrize("password", ["", "\n", "\r\n", "a\0b\n", b"\xff\n", "x" * 20000, "a\u0007"])
def test_passwords_that_are_none(users: Path, password: str | bytes) -> None:
    before = users.read_bytes()
    for verb in ("add", "new"), ("passwd", "alice"):
        result = mtactl("users", *verb, "--file", users, password=password)
        assert (result.exit_code, result.stdout) == (65, "")
        assert "give it on standard input, or run this in a terminal" in result.stderr
    assert users.read_bytes() == before


def test_there_is_no_way_to_give_a_password_as_an_argument(users: Path) -> None:
    for option in ("--password", "--password=x", "-p"):
        assert mtactl("users", "add", "me", "--file", users, option, "x").exit_code == 2
    assert mtactl("users", "add", "me", "secret", "--file", users).exit_code == 2


def test_a_broken_file_is_not_touched(users: Path) -> None:
    users.write_text(f"alice:{QUICK}\nbob\n")
    for verb in ("list",), ("add", "me"), ("remove", "alice"), ("passwd", "alice"):
        result = mtactl("users", *verb, "--file", users, password="x")
        assert (result.exit_code, result.stdout) == (78, "")
        assert result.stderr == f"{users}:2: write name:hash or name:hash:address,address\n"
    assert users.read_text() == f"alice:{QUICK}\nbob\n"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("mode", "after"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o640), (0o666, 0o660)])
def test_others_lose_their_access_and_nobody_else_does(users: Path, mode: int, after: int) -> None:
    users.chmod(mode)
    assert mtactl("users", "add", "me", "--file", users, password="x").exit_code == 0
    assert stat.S_IMODE(users.stat().st_mode) == after


@pytest.mark.usefixtures("quick")
def test_a_link_stays_a_link(users: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "link"
    link.symlink_to(users)
    assert mtactl("users", "add", "me", "--file", link, password="x").exit_code == 0
    assert link.is_symlink()
    assert login(users, "me", "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
@pytest.mark.usefixtures("quick")
def test_the_owner_stays_when_root_does_it(users: Path) -> None:
    nobody = 65534
    os.chown(users, nobody, nobody)
    assert mtactl("users", "add", "me", "--file", users, password="x").exit_code == 0
    assert (users.stat().st_uid, users.stat().st_gid) == (nobody, nobody)
    os.chown(users.parent, nobody, nobody)
    users.unlink()
    assert mtactl("users", "add", "me", "--file", users, password="x").exit_code == 0
    assert (users.stat().st_uid, users.stat().st_gid) == (nobody, nobody)


@pytest.mark.usefixtures("quick")
def test_a_file_of_somebody_else_is_left_to_them(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in the directory could replace the file; but then its owner could not read it."""
    before = users.read_bytes()
    monkeypatch.setattr(user_change.os, "geteuid", lambda: 12345)
    result = mtactl("users", "add", "me", "--file", users, password="x")
    assert result.exit_code == 77
    assert "it belongs to " in result.stderr
    assert users.read_bytes() == before


def test_two_at_the_same_time_lose_nothing(users: Path) -> None:
    def add(number: int) -> None:
        user_change.change(str(users), lambda lines: lines.add(f"user{number}", QUICK, []))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    names = list(user_file.read(str(users)).users)
    assert names[:2] == ["alice", "bob"]
    assert sorted(names[2:]) == sorted(f"user{number}" for number in range(40))


def test_who_holds_the_file_for_too_long_is_not_waited_for(users: Path) -> None:
    times = itertools.count(0.0, user_change.LOCK_SECONDS / 2)
    held = os.open(users.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(user_change.Busy, match="try again"):
            user_change.change(str(users), lambda lines: lines.remove("bob"), clock=lambda: next(times))
    finally:
        os.close(held)


def test_a_full_disk_changes_nothing(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = users.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(user_change.os, "fsync", full)
    result = mtactl("users", "remove", "bob", "--file", users)
    assert result.exit_code == 74
    assert "No space left on device: nothing was changed" in result.stderr
    assert users.read_bytes() == before
    assert [each.name for each in users.parent.iterdir()] == ["users"]


class Terminal:
    """The command with a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self._master, slave = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtatwist.control.cli", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = b""

    def read_until(self, words: bytes) -> None:
        while words not in self.shown:
            self.shown += os.read(self._master, 4096)

    def type(self, text: str) -> None:
        self.shown = b""
        os.write(self._master, text.encode())

    def end(self) -> int:
        code = self.process.wait(30)
        os.close(self._master)
        return code


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(users: Path) -> None:
    terminal = Terminal("users", "add", "--file", users, "carol")
    terminal.read_until(b"Password: ")
    terminal.type("sesame\n")
    terminal.read_until(b"The same again: ")
    terminal.type("mistyped\n")
    terminal.read_until(b"Password: ")
    terminal.type("sesame\n")
    terminal.read_until(b"The same again: ")
    assert b"sesame" not in terminal.shown
    terminal.type("sesame\n")
    terminal.read_until(b"added carol")
    assert b"sesame" not in terminal.shown
    assert terminal.end() == 0
    assert login(users, "carol", "sesame")
