"""The schema and a configuration as text: what ``mtactl config`` prints, and the two generated files.

:func:`rst` is ``docs/configuration.rst``, :func:`commented_toml` is ``conf/mtatwist.toml``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from mtatwist import schema
from mtatwist.config import Config, Secret
from mtatwist.schema import Entry
from mtatwist.schema.change import takes_restart
from mtatwist.schema.declare import Computed, Key, Required, Table
from mtatwist.values.base import toml_text

WIDTH = 79
GENERATED = "Generated from the package mtatwist/schema by: mtactl config describe"
# A comment cannot make a server that receives nothing, so the example file has this one line in force.
IN_FORCE = "listen.endpoint"


def default_words(key: Key) -> str:
    """Say what the default is: as one would write it, or in words."""
    if key.default is Required:
        return "none, it has to be written"
    if key.default is None:
        return "not set"
    return key.default.words if isinstance(key.default, Computed) else toml_text(key.default)


def as_object(entry: Entry) -> dict[str, object]:
    """Return what there is to say about a key, for JSON."""
    key = entry.item
    assert isinstance(key, Key)
    written = key.default is not None and key.default is not Required and not isinstance(key.default, Computed)
    return {
        "key": entry.path,
        "type": key.kind.name,
        "default": key.default if written else None,
        "default_words": default_words(key),
        "required": key.default is Required,
        "example": key.example,
        "effect": key.effect,
        "restart": takes_restart(entry.path),
        "doc": key.doc,
    }


def select(prefix: str) -> list[Entry]:
    """Return the keys whose path is the prefix or is below it; every key for ""."""
    return [
        entry
        for entry in schema.walk()
        if isinstance(entry.item, Key)
        and (not prefix or entry.path == prefix or entry.path.startswith(prefix.rstrip(".") + "."))
    ]


def plain(entry: Entry) -> str:
    """Describe one key for a terminal."""
    key = entry.item
    assert isinstance(key, Key)
    return "\n".join(
        [
            f"{entry.path}  ({key.kind.name}; default: {default_words(key)})",
            *_wrapped(" ".join([key.doc, *_remarks(entry.path, key)]), "    "),
        ]
    )


def _remarks(path: str, key: Key) -> list[str]:
    """What else there is to know."""
    remarks = [] if key.effect else ["It has no effect yet."]
    return [*remarks, "Another value takes a restart."] if takes_restart(path) else remarks


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


# --- conf/mtatwist.toml -------------------------------------------------------------------------------------


def commented_toml() -> str:
    """Return the commented example: every key with its documentation and default."""
    lines = [
        "# The configuration of mtatwist, with every key.",
        "#",
        *_wrapped(
            'A line that starts with "#" and a key shows the default, or an example where there is none: remove '
            "the sign to set it. Relative paths start at the directory of this file. docs/configuration.rst says "
            'how values are written. "mtactl config check FILE" finds what is wrong with a file.',
            "# ",
        ),
        "#",
        f"# {GENERATED} --toml",
    ]
    for entry in schema.walk():
        lines.append("")
        if isinstance(entry.item, Table):
            header = f"[[{entry.path}]]" if entry.item.many else f"[{entry.path}]"
            lines += [f"# {'-' * 77}"]
            for paragraph in _paragraphs(entry.item.doc):
                lines += _wrapped(paragraph, "# ")
            optional_table = entry.item.many and not IN_FORCE.startswith(f"{entry.path}.")
            lines += ["", "#" + header if optional_table else header]
        else:
            lines += _commented_key(entry.path, entry.item)
    return "\n".join(lines) + "\n"


def _commented_key(path: str, key: Key) -> list[str]:
    lines = _wrapped(" ".join([key.doc, *_remarks(path, key)]), "# ")
    lines += _wrapped(f"Type: {key.kind.name}. Default: {default_words(key)}.", "# ")
    shown = key.example if key.default in (None, Required) or isinstance(key.default, Computed) else ""
    setting = f"{path.rpartition('.')[2]} = {shown or toml_text(key.default)}"
    return [*lines, setting if path == IN_FORCE else f"#{setting}"]


# --- docs/configuration.rst ---------------------------------------------------------------------------------

_INTRODUCTION = """\
Configuration
=============

The server is configured by one TOML_ file, named with ``twistd -n mta --config FILE``. Without one it runs an
embedded set-up, for trying it out: mail for ``localhost``, accepted on 127.0.0.1 port 2525 and delivered
to Maildirs below ``./mtatwist-data`` (or what ``--data-dir`` says). Mail for other domains goes to such, too:
nothing leaves the machine. Port 2587 is for submission, with STARTTLS and the users of ``mtactl users add``.

``mtactl config check FILE`` says everything that is wrong with a file, with the place and the cure of each,
and exits with 78. ``mtactl config show FILE`` prints the effective values, secrets left out.
``mtactl config describe`` prints what is on this page. ``conf/mtatwist.toml`` is a file with every key, ready
to be edited.

A key that is not on this page is an error, so that no typing mistake goes unnoticed. A key marked as having
no effect yet is accepted, and warned about when the server starts.

A running server takes the file again on SIGHUP and on ``mtactl system reload``: all of it, but for what is marked
as taking a restart, or none of it when anything is wrong. See :doc:`operations`.

.. _TOML: https://toml.io/

How values are written
----------------------
"""


def rst() -> str:
    """Return the reference page of the configuration."""
    lines = [f".. {GENERATED} --rst", ""]
    for paragraph in _INTRODUCTION.split("\n\n"):
        block = paragraph.strip("\n").split("\n")
        ruled = len(block) > 1 and set(block[1]) <= set("=-")
        lines += [*(block if ruled else _wrapped(" ".join(block), "")), ""]
    documented: dict[str, str] = {}
    for entry in schema.walk():
        if isinstance(entry.item, Key) and entry.item.kind.doc:
            documented.setdefault(entry.item.kind.name.removeprefix("list of ").removesuffix("s"), entry.item.kind.doc)
    for name in sorted(documented):
        lines += [name, *_wrapped(_inline(documented[name]), "    "), ""]
    for entry in schema.walk():
        lines += _rst_table(entry) if isinstance(entry.item, Table) else _rst_key(entry.path, entry.item)
    return "\n".join(lines).rstrip("\n") + "\n"


def _rst_table(entry: Entry) -> list[str]:
    assert isinstance(entry.item, Table)
    title = f"``[[{entry.path}]]``" if entry.item.many else f"``[{entry.path}]``"
    lines = [title, "-" * len(title), ""]
    for paragraph in _paragraphs(entry.item.doc):
        lines += [*_wrapped(_inline(paragraph), ""), ""]
    return lines


def _rst_key(path: str, key: Key) -> list[str]:
    written = key.default is not None and key.default is not Required and not isinstance(key.default, Computed)
    default = f"``{default_words(key)}``" if written else _inline(default_words(key))
    lines = [f".. confval:: {path}", f"   :type: {_inline(key.kind.name)}", f"   :default: {default}", ""]
    lines += [*_wrapped(_inline(key.doc), "   "), ""]
    if not written:
        lines += [f"   Example: ``{path.rpartition('.')[2]} = {key.example}``", ""]
    for remark in _remarks(path, key):
        lines += [f"   {remark}", ""]
    return lines


def _inline(text: str) -> str:
    """Make reStructuredText of a documentation text: what is in quotes is literal, the rest is plain."""
    parts = re.split(r'("[^"]+")', text)
    return "".join(
        f"``{part[1:-1]}``" if index % 2 else re.sub(r"([\\`*|]|_\b)", r"\\\1", part)
        for index, part in enumerate(parts)
    )


# --- the effective configuration ----------------------------------------------------------------------------


def effective(config: Config) -> dict[str, Any]:
    """Return a configuration as the document for it; secrets are "***", absent values ``None``."""
    return _document(config)


def _document(value: Any) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, (attribute, item) in schema.items(type(value)).items():
        held = getattr(value, attribute)
        if isinstance(item, Table):
            document[name] = [_document(each) for each in held] if item.many else _document(held)
        elif isinstance(held, Secret):
            document[name] = "***"
        else:
            document[name] = None if held is None else item.kind.show(held)
    return document


def effective_toml(config: Config) -> str:
    """Return a configuration as TOML that loads again, but for its secrets; absent values are comments."""
    return "\n".join(_toml_lines(effective(config), "")).strip("\n") + "\n"


def _toml_lines(document: dict[str, Any], path: str) -> Iterator[str]:
    below: list[tuple[str, dict[str, Any]]] = []
    for name, value in document.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            below.append((f"[{where}]", value))
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            below += [(f"[[{where}]]", each) for each in value]
        elif isinstance(value, list) and not value and isinstance(_item(where), Table):
            continue
        else:
            yield f"# {name} is not set" if value is None else f"{name} = {toml_text(value)}"
    for header, table in below:
        yield ""
        yield header
        yield from _toml_lines(table, header.strip("[]"))


def _item(path: str) -> Key | Table | None:
    return next((entry.item for entry in schema.walk() if entry.path == path), None)
