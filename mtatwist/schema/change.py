"""What differs between two readings of the configuration, and which of it takes a restart: the one table of that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mtatwist.schema import Config, items
from mtatwist.schema.declare import Key, Table

RESTART: Mapping[str, str] = {
    "server.data_dir": "the queue lies there",
    "listen": "ports are bound while the process still has the right to",
    "spool": "it is opened once, when the server starts",
    "control.socket": "it is made when the server starts",
    "control.mode": "the socket is made with it",
    "control.group": "the socket is made with it",
    "health.endpoint": "ports are bound while the process still has the right to",
}
"""The keys, and tables of keys, that a running server keeps as they were at its start; and why. All others it takes
from the file when it is told to read that again."""


def takes_restart(path: str) -> bool:
    """Whether the key at this path, be it within an array of tables, is kept as it was."""
    plain = re.sub(r"\[\d+\]", "", path)
    return any(plain == each or plain.startswith(f"{each}.") for each in RESTART)


def differences(one: Config, other: Config) -> tuple[str, ...]:
    """The paths of keys with different values; an array of tables that has become longer or shorter is one of them."""
    return tuple(_differences(one, other, ""))


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    for name, (attribute, item) in items(type(one)).items():
        where = f"{path}.{name}" if path else name
        before, after = getattr(one, attribute), getattr(other, attribute)
        if isinstance(item, Key):
            if before != after:
                yield where
        elif not item.many:
            yield from _differences(before, after, where)
        elif len(before) != len(after):
            yield where
        else:
            for index, pair in enumerate(zip(before, after, strict=True)):
                yield from _differences(*pair, f"{where}[{index}]")


def keep(document: dict[str, Any], running: Config) -> None:
    """Put what takes a restart into a document as it is in the running server. There are no secrets among it."""
    for path in RESTART:
        *tables, name = path.split(".")
        there, values = document, running
        for table in tables:
            there, values = there.setdefault(table, {}), getattr(values, items(type(values))[table][0])
        attribute, item = items(type(values))[name]
        shown = _shown(item, getattr(values, attribute))
        if shown is None:
            there.pop(name, None)
        else:
            there[name] = shown


def _shown(item: Key | Table, value: Any) -> Any:
    if isinstance(item, Key):
        return None if value is None else item.kind.show(value)
    if item.many:
        return [_document(each) for each in value]
    return _document(value)


def _document(table: Any) -> dict[str, Any]:
    shown = {name: _shown(item, getattr(table, attribute)) for name, (attribute, item) in items(type(table)).items()}
    return {name: value for name, value in shown.items() if value is not None}
