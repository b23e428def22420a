"""Every setting is live, so that a server that is told to reload goes by its new value, or named as taking a restart.

The scenarios are those of test_settings_effect; only that the server has started with another value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receive.whole import Whole
from test_settings_effect import EFFECTS, WITH_EFFECT, Effect, directory
from twisted.python.failure import Failure

from mtatwist import describe
from mtatwist.config import ConfigError
from mtatwist.schema.change import RESTART, takes_restart
from mtatwist.wiring.reload import Reloaded

__all__ = ["directory"]

ROOT = Path(__file__).resolve().parents[1]
REAL = "tests/integration/test_reload.py::"

ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(
        [key for key in EFFECTS if key.startswith("auth.ldap.")], f"{REAL}test_the_directory_of_another_configuration"
    ),
    **dict.fromkeys(
        ["auth.ldap.connections", "auth.ldap.offline_cache"],
        f"{REAL}test_a_directory_is_asked_more_at_once_and_remembered",
    ),
    **dict.fromkeys(
        ["auth.ldap.timeout", "auth.ldap.connect_timeout"],
        "tests/wiring/test_current_directory.py::test_the_patience_of_another_configuration",
    ),
    "auth.backend": f"{REAL}test_users_of_another_file_and_of_a_directory",
    "auth.file": f"{REAL}test_users_of_another_file_and_of_a_directory",
    **dict.fromkeys(
        [key for key in EFFECTS if key.startswith("auth.lockout.")], f"{REAL}test_other_thresholds_and_the_same_counts"
    ),
    "log.format": f"{REAL}test_the_log",
    "log.level": f"{REAL}test_the_log",
    "log.redact": f"{REAL}test_the_log",
    "route.transport": f"{REAL}test_a_route_to_somewhere_else",
    "metrics.ca_file": f"{REAL}test_another_collector",
    "server.data_dir": f"{REAL}test_what_takes_a_restart_is_named_and_stays",
    "spool.ballast": f"{REAL}test_what_takes_a_restart_is_named_and_stays",
    "control.socket": f"{REAL}test_what_takes_a_restart_is_named_and_stays",
    "control.mode": f"{REAL}test_what_takes_a_restart_is_named_and_stays",
    "control.group": f"{REAL}test_what_takes_a_restart_is_named_and_stays",
}


def cases() -> Iterator[Any]:
    """Each setting that can be shown in memory: from each value to the next one that makes a difference."""
    for key, effect in EFFECTS.items():
        if key in ELSEWHERE or not isinstance(effect, Effect):
            continue
        values = list(effect.seen)
        for index, value in enumerate(values):
            others = [
                other for other in values[index + 1 :] + values[:index] if effect.seen[other] != effect.seen[value]
            ]
            if others:
                yield pytest.param(key, value, others[0], id=f"{key}: {value} to {others[0]}")


@pytest.mark.parametrize(("key", "before", "after"), list(cases()))
def test_reload(monkeypatch: pytest.MonkeyPatch, directory: Path, key: str, before: str, after: str) -> None:
    effect = EFFECTS[key]
    assert isinstance(effect, Effect)
    try:
        server = Whole(monkeypatch, directory, {**effect.beside, key: before})
    except ConfigError:
        # Such a server is never there to be told anything.
        return
    result = server.reload({**effect.beside, key: after})
    seen = effect.observe(server)
    if isinstance(result, Failure):
        assert isinstance(result.value, ConfigError)
        with pytest.raises(ConfigError):
            Whole(monkeypatch, directory, {**effect.beside, key: after})
        assert seen == effect.seen[before]
    elif takes_restart(key):
        assert result.restart
        assert {name(each) for each in result.restart} == {key}
        assert result.changed == ()
        assert seen == effect.seen[before]
    else:
        assert isinstance(result, Reloaded)
        assert result.restart == ()
        assert key in {name(each) for each in result.changed}
        assert seen == effect.seen[after]


def name(path: str) -> str:
    """A path without the numbers of tables."""
    return path.replace("[0]", "")


def test_every_setting_has_a_scenario() -> None:
    assert {case.values[0] for case in cases()} | set(ELSEWHERE) == WITH_EFFECT


@pytest.mark.parametrize("path", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_stand_elsewhere_exist(path: str) -> None:
    file, _, test = path.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_what_takes_a_restart_is_in_the_schema() -> None:
    paths = [entry.path for entry in describe.select("")]
    for each in RESTART:
        assert any(path == each or path.startswith(f"{each}.") for path in paths), each
