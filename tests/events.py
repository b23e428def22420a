"""Every event that the source can log, with its level and its fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "mtatwist"
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "error": "error",
    "failure": "critical",
    "critical": "critical",
}

NAMED_ELSEWHERE = {
    "result.state.name.lower()": ("delivered", "deferred", "failed"),
}
"""Names that are worked out, and what they come to."""


class Event(NamedTuple):
    """One place that logs it. ``more``: there are fields that the source doesn't spell out there."""

    name: str
    levels: frozenset[str]
    fields: frozenset[str]
    more: bool
    where: str


def _is_log(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("_log", "log")


def _levels(function: ast.expr, outer: ast.AST) -> frozenset[str] | None:
    """Of a call of a logger's method, or of a name that such a method was given."""
    if isinstance(function, ast.Attribute):
        return frozenset((LEVELS[function.attr],)) if _is_log(function.value) and function.attr in LEVELS else None
    if isinstance(function, ast.Name) and function.id in ("log", "say"):
        methods = [
            LEVELS[node.attr]
            for assignment in ast.walk(outer)
            if isinstance(assignment, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == function.id for target in ast.walk(assignment))
            for node in ast.walk(assignment.value)
            if isinstance(node, ast.Attribute) and _is_log(node.value) and node.attr in LEVELS
        ]
        return frozenset(methods) or None
    return None


def _names(format: ast.expr) -> Iterator[str]:
    if isinstance(format, ast.Constant):
        yield str(format.value)
    elif isinstance(format, ast.IfExp):
        yield from (*_names(format.body), *_names(format.orelse))
    else:
        yield from NAMED_ELSEWHERE[ast.unparse(format)]


def events() -> Iterator[Event]:
    """All of them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        seen: set[ast.Call] = set()
        # The inner ones first: a call belongs to the function that is nearest.
        for outer in [*reversed(functions), tree]:
            for call in ast.walk(outer):
                if not isinstance(call, ast.Call) or call in seen:
                    continue
                levels = _levels(call.func, outer)
                if levels is None or not call.args:
                    continue
                seen.add(call)
                fields = frozenset(keyword.arg for keyword in call.keywords if keyword.arg)
                more = any(keyword.arg is None for keyword in call.keywords)
                where = f"{path.relative_to(PACKAGE.parent)}:{call.lineno}"
                for name in _names(call.args[0]):
                    yield Event(name, levels, fields, more, where)
