"""How keys and tables are declared, and how a declaration is looked up."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mtatwist.values.base import Context, Kind

T = TypeVar("T")


class Required:
    """The default of a key that must be written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Computed:
    """A default that depends on other settings or on the host.

    :ivar words: what it is, for the documentation.
    :ivar compute: given the table's values so far (by attribute) and the context, returns the default.
    """

    words: str
    compute: Callable[[Mapping[str, Any], Context], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    :ivar default: as one would write it in the file; ``None`` for no value, or :class:`Required` or
        :class:`Computed`.
    :ivar effect: false while nothing reads the key; it is warned about when it is set.
    :ivar example: TOML text to show where there is no default.
    """

    kind: Kind[Any]
    default: object
    doc: str
    effect: bool = True
    example: str = ""

    def default_value(self, so_far: Mapping[str, Any], context: Context) -> object:
        """Return the typed default."""
        if isinstance(self.default, Computed):
            return self.default.compute(so_far, context)
        return None if self.default in (None, Required) else self.kind.parse(self.default, context)


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, or (``many``) an array of tables."""

    cls: type[Any]
    many: bool = False

    @property
    def doc(self) -> str:
        """The paragraphs about this table."""
        return inspect.cleandoc(self.cls.__doc__ or "")


def _field(key: Key) -> Any:
    metadata = {"item": key}
    if key.default is Required:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default_factory=lambda: key.default_value({}, Context()), metadata=metadata)


def key(kind: Kind[T], default: object, doc: str, *, effect: bool = True, example: str = "") -> T:
    """Declare a key; ``default`` is what one would write in the file."""
    return cast(T, _field(Key(kind, default, doc, effect, example or kind.example)))


def required(kind: Kind[T], doc: str, *, effect: bool = True, example: str = "") -> T:
    """Declare a key that must be written."""
    return cast(T, _field(Key(kind, Required, doc, effect, example or kind.example)))


def optional(kind: Kind[T], doc: str, *, effect: bool = True, example: str = "") -> T | None:
    """Declare a key that is ``None`` when it is not written."""
    return cast("T | None", _field(Key(kind, None, doc, effect, example or kind.example)))


def computed(
    kind: Kind[T],
    words: str,
    compute: Callable[[Mapping[str, Any], Context], T],
    doc: str,
    *,
    example: str = "",
) -> T:
    """Declare a key whose default depends on other settings or on the host; see :class:`Computed`."""
    return cast(T, _field(Key(kind, Computed(words, compute), doc, example=example or kind.example)))


def table(cls: type[T]) -> T:
    """Declare a table of keys."""
    return dataclasses.field(default_factory=cls, metadata={"item": Table(cls)})


def tables(cls: type[T], name: str) -> tuple[T, ...]:
    """Declare an array of tables, ``[[name]]`` in the file."""
    return cast("tuple[T, ...]", dataclasses.field(default=(), metadata={"item": Table(cls, many=True), "name": name}))


def items(cls: type[Any]) -> dict[str, tuple[str, Key | Table]]:
    """Return the keys and tables of a table: name in the file to (attribute, declaration)."""
    return {
        field.metadata.get("name", field.name): (field.name, field.metadata["item"])
        for field in dataclasses.fields(cls)
        if "item" in field.metadata
    }
