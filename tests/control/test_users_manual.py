"""docs/users.rst tells no lies: its commands are run, and the file that it shows is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from mtatwist.auth import user_file
from mtatwist.control.users_cli import users_group

PAGE = (Path(__file__).parents[2] / "docs" / "users.rst").read_text("utf-8")
BLOCK = re.compile(r"^\.\. runs: (\S+)\n\n\.\. code-block:: sh\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
BLOCKS = {name: textwrap.dedent(text).strip().splitlines() for name, text in BLOCK.findall(PAGE)}
PASSWORD = "correct horse battery staple"


def run(directory: Path, command: str) -> str:
    """A command of the page, with a password for whoever asks."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=directory,
        env={**os.environ, "PATH": path},
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    seen = {command: run(tmp_path, command) for command in BLOCKS["users"]}
    listed = seen["mtactl users list"].splitlines()
    assert listed == ["alice  argon2  alice@localhost", "bob  argon2  bob@example.org  sales@example.org"]
    assert list(user_file.read(str(tmp_path / "mtatwist-data" / "users")).users) == ["alice"]


def test_the_commands_for_other_files_do_what_they_say(tmp_path: Path) -> None:
    config, data = "/etc/mtatwist/mtatwist.toml", "/var/lib/mtatwist"
    (tmp_path / "data").mkdir()
    text = '[server]\ndata_dir = "data"\n[[listen]]\nendpoint = "tcp:25"\n'
    (tmp_path / "mtatwist.toml").write_text(text)
    commands = [each.replace(config, "mtatwist.toml").replace(data, "data") for each in BLOCKS["elsewhere"]]
    *_, listed = [run(tmp_path, each) for each in commands]
    assert [json.loads(line)["user"] for line in listed.splitlines()] == ["carol", "dave"]


def test_the_file_that_is_shown_is_right() -> None:
    (shown,) = re.findall(r"code-block:: text\n\n((?: {4}.*\n)+)", PAGE)
    users = user_file.parse(textwrap.dedent(shown).encode(), "shown")
    assert {name: user.fault for name, user in users.items()} == {"alice": "", "bob": ""}
    assert users["bob"].addresses == ("bob@example.org", "sales@example.org")


def test_all_is_told() -> None:
    """Every verb, every exit code and every event has its place on the page."""
    sources = "".join(
        (Path(user_file.__file__).parents[1] / name).read_text("utf-8")
        for name in ("auth/passwd.py", "auth/user_file.py", "control/users_cli.py")
    )
    for event in re.findall(r'_log\.\w+\(\s*"(\w+)"', sources):
        assert f"``{event}``" in PAGE or event == "users_check_failed", event
    for code in set(re.findall(r"os\.(EX_\w+)", sources)):
        assert re.search(rf"\b{getattr(os, code)}\b", PAGE), code
    verbs = users_group(lambda context, file: None, lambda context: None, lambda it: it).commands  # type: ignore
    for verb in verbs:
        assert f"mtactl users {verb}" in PAGE
