"""Who is asked about logins: what ``[auth] backend`` and the listeners make of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from receive.whole import toml
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.internet.task import Clock

from mtatwist.auth.gate import Gate
from mtatwist.auth.user_file import UserFileError
from mtatwist.config import load
from mtatwist.metrics.instruments import Instruments
from mtatwist.wiring.auth import Users, make_logins


def users(directory: Path, settings: dict[str, str]) -> Users:
    file = directory / "mta.toml"
    file.write_text(toml({"auth.require_tls": "false", **settings}))
    unused: Any = object()
    return Users(load(file), Clock(), Instruments(), directory=unused, submit=unused, queue_time=lambda: 0.0)


def test_without_submission_there_is_nobody_to_ask(tmp_path: Path) -> None:
    """Such a server needs neither the file nor threads: it may be as broken as it likes."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "users").write_text("broken\n")
    made = users(tmp_path, {})
    assert [type(each) for each in made.checkers] == [AllowAnonymousAccess]
    made.start()
    made.stop()


@pytest.mark.parametrize("backend", ["file", "ldap"])
def test_the_lockout_stands_before_each_backend(tmp_path: Path, backend: str) -> None:
    settings = {
        "listen.role": '"submission"',
        "auth.backend": f'"{backend}"',
        "auth.ldap.uris": '["ldap://127.0.0.1:1"]',
        "auth.ldap.base_dn": '"dc=test"',
    }
    assert [type(each) for each in users(tmp_path, settings).checkers] == [AllowAnonymousAccess, Gate]


def test_a_broken_file_is_told_of_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "users").write_text("broken\n")
    with pytest.raises(UserFileError, match="users:1"):
        users(tmp_path, {"listen.role": '"submission"'}).start()


def test_what_is_offered_is_what_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "mta.toml"
    file.write_text(toml({"auth.mechanisms": '["LOGIN"]', "auth.failures": "2"}))
    logins = make_logins(load(file))
    assert (list(logins.challengers), logins.require_tls, logins.failures) == ([b"LOGIN"], True, 2)
