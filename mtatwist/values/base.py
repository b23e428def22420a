"""What every kind of value shares: its context, its errors and the words of its messages."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What a value may depend on besides its own text.

    :ivar directory: where relative paths in the file start (the file's own directory).
    :ivar data_dir: where relative paths of stored things start.
    :ivar hostname: the configured host name.
    :ivar environ: the environment that ``env:NAME`` secrets come from.
    """

    directory: str = ""
    data_dir: str = ""
    hostname: str = "localhost"
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)


class BadItems(ValueError):
    """Several wrong items of one list: ``reasons`` holds ``(index, reason)`` pairs."""

    def __init__(self, reasons: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(f"[{index}]: {reason}" for index, reason in reasons))
        self.reasons = tuple(reasons)


@dataclasses.dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: its name in the documentation, how it is read and how it is written.

    :ivar example: TOML text, used in messages and where a key has no default.
    :ivar parse: raw TOML value to typed value; raises :class:`ValueError` with words for the administrator.
    :ivar show: typed value to what ``tomllib`` would have given.
    :ivar doc: how such a value is written; empty when the name says it all.
    """

    name: str
    example: str
    parse: Callable[[object, Context], T]
    show: Callable[[T], object]
    doc: str = ""


def toml_text(value: object) -> str:
    """Write a string, number, boolean or list of them as TOML."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def quoted(value: object) -> str:
    """Show a value from the file in a message: on one line, and not endlessly."""
    text = toml_text(value)
    return text if len(text) <= 80 else text[:76] + " ..."


def printable(text: str) -> str:
    """Escape what would break a line or a terminal, such as the control characters in a file's name."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def type_words(value: object) -> str:
    """Name the TOML type of a value: "a number", "a list"."""
    if isinstance(value, bool):
        return "a boolean"
    for types, words in (
        ((int, float), "a number"),
        (str, "a string"),
        (list, "a list"),
        (dict, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    ):
        if isinstance(value, types):
            return words
    return type(value).__name__


def any_of(words: Sequence[str]) -> str:
    """Write a choice out: "a", "b" or "c"."""
    *first, last = (f'"{word}"' for word in words)
    return f"{', '.join(first)} or {last}" if first else last


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like ``word``, if any is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def wrong_type(raw: object, expected: str, example: str) -> ValueError:
    """Return the error for a value of the wrong TOML type."""
    shown = "" if isinstance(raw, dict | list) else f" {quoted(raw)}"
    return ValueError(f"expected {expected}, such as {example}, but found {type_words(raw)}{shown}")


def string(raw: object, expected: str, example: str) -> str:
    if not isinstance(raw, str):
        raise wrong_type(raw, expected, example)
    if not raw.strip():
        raise ValueError(f"is empty: expected {expected}, such as {example}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
        raise ValueError(f"{quoted(raw)} contains a control character: remove it")
    return raw
