"""What concerns all tests."""

from __future__ import annotations

import pytest

FIRST = (
    "tests/test_readme.py",
    "tests/test_packaging.py",
    "tests/test_dialogues.py",
    "tests/integration/test_admin_session.py",
    "tests/integration/test_slow_peers.py",
    "tests/integration/test_backlog.py",
    "tests/integration/",
    "tests/control/test_spool_cli.py",
    "tests/control/test_users_manual.py",
    "tests/spool/test_any_order.py",
    "tests/spool/test_crash_states.py",
    "tests/spool/test_salvage.py",
    "tests/relay/test_administration_races.py",
)
"""Where several processes share the tests, file by file: these take longest, and none of them should be the last."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long; the many short ones even out the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.nodeid))


def _rank(name: str) -> int:
    return next((rank for rank, prefix in enumerate(FIRST) if name.startswith(prefix)), len(FIRST))
