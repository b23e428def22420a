"""Bad configurations, each with the errors it must give.

To add one, write ``bad_configs/NAME.toml`` and ``bad_configs/NAME.error``: one line for each problem, holding a
piece of its message.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtatwist.config import ConfigError, load

ROOT = Path(__file__).resolve().parents[1]
BAD = sorted((Path(__file__).parent / "bad_configs").glob("*.toml"))


def expected(file: Path) -> list[str]:
    """Return the pieces of messages that belong to a file."""
    return file.with_suffix(".error").read_text(encoding="utf-8").splitlines()


def test_every_file_has_its_errors() -> None:
    """No file without errors, and no errors without a file."""
    errors = sorted((Path(__file__).parent / "bad_configs").glob("*.error"))
    assert [file.stem for file in errors] == [file.stem for file in BAD]
    assert len(BAD) >= 30


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_config(file: Path) -> None:
    """Each problem is reported once, in the words that were expected, and no other is."""
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    messages = [str(problem) for problem in caught.value.problems]
    for piece in expected(file):
        assert any(piece in message for message in messages), f"{piece!r} is in none of {messages}"
    assert len(messages) == len(expected(file)), messages
    for message in messages:
        assert message.startswith(f"{file}: ")
        assert "\n" not in message


@pytest.mark.parametrize("name", ["several", "syntax", "secret_file"])
def test_the_real_command(name: str) -> None:
    """mtactl says the same, on standard error, with the exit code for that and no traceback."""
    file = ROOT / "tests" / "bad_configs" / f"{name}.toml"
    run = subprocess.run(
        [sys.executable, "-m", "mtatwist.control.cli", "config", "check", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert run.returncode == 78
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == len(expected(file))
    for piece in expected(file):
        assert any(piece in line for line in lines)
