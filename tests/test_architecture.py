"""Imports point down only, and modules stay small: docs/architecture.rst has the picture this enforces."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "mtatwist"

#: What is done with the instruments.
METRICS = tuple(
    f"metrics.{name}" for name in ("collector", "exchange", "otlp", "process", "push", "queue", "reference", "text")
)

#: The rooms of the house, top floor first. Rooms on one floor don't import each other, but for the ground floors:
#: what SHARED names is used by its neighbours too.
FLOORS = (
    ("tap", "wiring"),
    ("receive", "relay", "control", "health", *METRICS),
    ("validators", "auth", "directory", "recipients", "spool", "transports", "tls", "dns"),
    (
        "authorities",
        "store",
        "domain",
        "envelope",
        "transaction",
        "interfaces",
        "log",
        "notify",
        "redaction",
        "metrics.instruments",
        "output",
        "bound",
        "descriptors",
        "regular_file",
    ),
    ("smtp",),
)
SHARED = (
    "wiring",
    "domain",
    "envelope",
    "transaction",
    "interfaces",
    "log",
    "metrics.instruments",
    "output",
    "regular_file",
    *METRICS,
)

#: The configuration stands beside the house: it is read by two modules, and reads nothing but files.
CONFIGURATION = ("config", "describe", "reread", "schema", "values")
#: control.live only prints as they do, and control.queue_selectors reads durations as they are written there.
READERS = (
    "tap",
    "wiring",
    "control.config_cli",
    "control.config_files",
    "control.configured",
    "control.live",
    "control.queue_selectors",
)

LONGEST = 350
#: Modules that may be longer, each with its reason.
LONG_MODULES: dict[str, str] = {}


class Import(NamedTuple):
    line: int
    module: str
    at_module_level: bool


def module_name(path: Path) -> str:
    """``mtatwist/spool/sqlite.py`` is ``spool.sqlite``; ``mtatwist/__init__.py`` is the empty string."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    """The room a module of ours stands in: ``metrics`` has two, of different floors."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "metrics" else parts[0]


def floor_of(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def imports(source: str, package: str) -> Iterator[Import]:
    """Every import in ``source``, a module of ``package``; those for type checking and in functions too.

    ``from mtatwist.spool import sqlite`` counts as ``mtatwist.spool.sqlite``: the last name may be no module at all,
    which does no harm, as only its room matters.
    """
    tree = ast.parse(source)
    inner = {
        node
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, node not in inner)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                base = package.split(".")
                origin = ".".join([*base[: len(base) - node.level + 1], *([origin] if origin else [])])
            for alias in node.names:
                yield Import(node.lineno, f"{origin}.{alias.name}", node not in inner)


def why_not(module: str, imported: str) -> str | None:
    """Why ``module`` must not import ``imported`` (both without the leading "mtatwist."), or None if it may."""
    room, other = room_of(module), room_of(imported)
    if other in ("", "__version__") or (room == other and room not in CONFIGURATION):
        return None
    if room in CONFIGURATION:
        may = other in CONFIGURATION or other == "regular_file"
        return None if may else "the configuration reads nothing of ours"
    if other in CONFIGURATION:
        return None if module in READERS or room in READERS else f"only {' and '.join(READERS)} read the configuration"
    ours, theirs = floor_of(room), floor_of(other)
    if ours is None:
        return f"{room!r} stands on no floor: add it to FLOORS"
    if theirs is None:
        return f"{other!r} stands on no floor: add it to FLOORS"
    if theirs < ours:
        return "it points up"
    if theirs == ours and other not in SHARED:
        return "neighbours meet through what is passed in"
    return None


def faults(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of one module of ours, a line each."""
    found = []
    full = f"mtatwist.{module}".rstrip(".")
    package = full if is_package else full.rpartition(".")[0]
    for line, imported, at_module_level in imports(source, package):
        top, _, rest = imported.partition(".")
        reason = None
        if top == "mtatwist":
            reason = why_not(module, rest)
        elif room_of(module) == "smtp" and top not in sys.stdlib_module_names:
            reason = "smtp is pure: standard library only"
        elif imported == "twisted.internet.reactor" and at_module_level and module != "tap":
            reason = "the reactor is passed in"
        if reason:
            found.append(f"{module}:{line}: imports {imported}: {reason}")
    return found


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_point_down() -> None:
    found = [
        fault
        for path in modules()
        for fault in faults(module_name(path), path.read_text("utf-8"), is_package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("spool.sqlite", "from mtatwist.relay.manager import Manager", "points up"),
        ("smtp.reply", "import mtatwist.envelope", "points up"),
        ("smtp.reply", "from twisted.python import failure", "standard library"),
        ("relay.manager", "from mtatwist.receive import factory", "neighbours"),
        ("relay.manager", "from ..receive import factory", "neighbours"),
        ("relay.manager", "from .. import receive", "neighbours"),
        ("spool.sqlite", "from mtatwist.transports import smtp", "neighbours"),
        ("receive.factory", "from mtatwist.config import Listen", "read the configuration"),
        ("control.responders", "import mtatwist.config", "read the configuration"),
        ("config", "from mtatwist.smtp import address", "reads nothing"),
        ("metrics.instruments", "from mtatwist.metrics import push", "points up"),
        ("cellar.rats", "from mtatwist import smtp", "no floor"),
        ("relay.retry", "from twisted.internet import reactor", "reactor"),
        ("store.writer", "if True:\n    import twisted.internet.reactor", "reactor"),
        ("store.writer", "def later():\n    from mtatwist import tap", "points up"),
        (
            "log",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mtatwist.spool import sqlite",
            "points up",
        ),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str, reason: str) -> None:
    (fault,) = faults(module, source)
    assert reason in fault


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tap", "from twisted.internet import reactor\nfrom mtatwist import config, receive"),
        ("control.config_cli", "import mtatwist\nfrom mtatwist import __version__\nfrom mtatwist.config import load"),
        ("config", "from mtatwist.values import duration"),
        ("relay.manager", "from mtatwist.relay import retry\nfrom . import route\nfrom mtatwist.spool import sqlite"),
        ("interfaces", "from mtatwist.envelope import Envelope"),
        ("metrics.push", "from .instruments import ALL"),
        ("control.client", "def main():\n    from twisted.internet import reactor"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert faults(module, source) == []


def test_there_is_something_to_walk() -> None:
    assert "smtp.reply" in map(module_name, modules())


def test_modules_are_small() -> None:
    lengths = {module_name(path): len(path.read_text("utf-8").splitlines()) for path in modules()}
    long = {module: length for module, length in lengths.items() if length > LONGEST and module not in LONG_MODULES}
    assert not long, f"over {LONGEST} lines: {long}"
    stale = [module for module in LONG_MODULES if lengths.get(module, 0) <= LONGEST]
    assert not stale, f"no longer long: take {stale} out of LONG_MODULES"
