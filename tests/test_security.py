"""docs/security.rst: each mitigation names a test that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.rst").read_text("utf-8")

NAMED = sorted(set(re.findall(r"``(tests/[\w/.-]+(?:::\w+)?)``", PAGE)) - {"tests/test_security.py"})
ROW = re.compile(
    r"^   \* - (?!threat$)(.*(?:\n {7}.*)*)\n     - (.*(?:\n {7}.*)*)\n     - (.*(?:\n {7}.*)*)", re.MULTILINE
)


@pytest.mark.parametrize("name", NAMED)
def test_it_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_threat_has_one() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == PAGE.count("\n   * - ") - PAGE.count("   * - threat\n")
    assert len(rows) >= 30
    without = [threat for threat, _, shown in rows if "``tests/" not in shown]
    assert not without
