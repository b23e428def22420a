"""The configuration: one TOML file in, frozen and checked values out, or everything that is wrong with it.

:func:`load` is what there is to call. What can stand in the file is declared in :mod:`mtatwist.schema`, how
values are written in :mod:`mtatwist.values`; here the file is read by the one with the help of the other, and
what no single value can tell is checked.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mtatwist import schema
from mtatwist.regular_file import read_regular
from mtatwist.schema import (
    VALIDATOR_NAMES,
    Auth,
    ClientTimeouts,
    Config,
    Control,
    Dns,
    Health,
    Ldap,
    Limits,
    Listen,
    Lockout,
    Log,
    Metrics,
    Relay,
    Route,
    Server,
    Spool,
    Timeouts,
    Tls,
    Token,
    Validators,
    checks,
)
from mtatwist.schema.declare import Key, Required, Table
from mtatwist.values import base as v
from mtatwist.values.numbers import Rate
from mtatwist.values.strings import Secret

__all__ = [
    "VALIDATOR_NAMES",
    "Auth",
    "ClientTimeouts",
    "Config",
    "ConfigError",
    "Control",
    "Dns",
    "Document",
    "Health",
    "Ldap",
    "Limits",
    "Listen",
    "Lockout",
    "Log",
    "Metrics",
    "Problem",
    "Rate",
    "Relay",
    "Route",
    "Secret",
    "Server",
    "Spool",
    "Timeouts",
    "Tls",
    "Token",
    "Validators",
    "load",
]

EMBEDDED_DATA_DIR = "mtatwist-data"

FILE_BYTES = 16 * 1024 * 1024
"""Octets of a file that is read: a running server, too, reads whatever lies there now."""

PROBLEMS = 500
"""What is told at once; a running server, which has other things to do, looks no further."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which file, at which key path ("" for the file as a whole), and why."""

    file: str
    key: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (v.printable(self.file), self.key, self.reason)))


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` says all that is wrong, ``str()`` one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    @classmethod
    def of(cls, config: Config, key: str, *reasons: str) -> ConfigError:
        """What turned out to be wrong with the value of one key, when it was put to use."""
        return cls([Problem(config.source or "", key, reason) for reason in reasons])

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def load(
    path: str | os.PathLike[str] | None,
    *,
    data_dir: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read a configuration file, or make the embedded set-up when ``path`` is ``None``.

    :param data_dir: goes before the file's ``server.data_dir``; relative to the current directory.
    :param environ: where ``env:NAME`` secrets are looked up.
    :raises ConfigError: with all of the problems, also when the file cannot be read or is not TOML.
    """
    return _embedded(data_dir, environ) if path is None else Document(path, data_dir, environ).config()


class Document:
    """A file that has been read. ``tables`` is what it holds, and :meth:`config` what that means."""

    def __init__(
        self, path: str | os.PathLike[str], data_dir: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        """See :func:`load`. Raises ConfigError: there is none, or it is not TOML."""
        self.file = os.fspath(path)
        self.tables, self._readable_by_others = _read(self.file)
        if data_dir is not None:
            server = self.tables.setdefault("server", {})
            if isinstance(server, dict):
                server["data_dir"] = os.path.abspath(data_dir) if data_dir else data_dir
        self._context = v.Context(directory=os.path.dirname(os.path.abspath(self.file)), environ=environ)

    def config(self) -> Config:
        """Read the tables by the schema. Raises ConfigError."""
        reader = _Reader(self.file, self._context, self._readable_by_others)
        config = reader.config(self.tables)
        return dataclasses.replace(config, source=self.file, warnings=tuple(reader.warnings))


def _embedded(data_dir: str | None, environ: Mapping[str, str]) -> Config:
    """Make the set-up that needs no file: mail for localhost, from here, into Maildirs. None leaves this machine."""
    directory = os.path.abspath(EMBEDDED_DATA_DIR if data_dir is None else data_dir) if data_dir != "" else ""
    document = {
        "server": {"hostname": "localhost", "data_dir": directory},
        # The server makes both at its first start.
        "tls": {
            "certificate": os.path.join(directory, "tls", "localhost.pem"),
            "private_key": os.path.join(directory, "tls", "localhost.key"),
        },
        "listen": [
            {"endpoint": "tcp:2525:interface=127.0.0.1"},
            {"endpoint": "tcp:2587:interface=127.0.0.1", "role": "submission", "tls": "starttls"},
        ],
        "relay": {"domains": ["localhost"], "networks": ["127.0.0.0/8", "::1/128"]},
        "route": [
            {"domain": "localhost", "transport": "maildir", "next_hop": "maildir/{local}"},
            {"domain": "*", "transport": "maildir", "next_hop": "maildir/{local}@{domain}"},
        ],
    }
    reader = _Reader("(no file)", v.Context(environ=environ), readable_by_others=False)
    return dataclasses.replace(reader.config(document), embedded=True)


def _read(file: str) -> tuple[dict[str, Any], bool]:
    """Return the file's contents, and whether others than its owner may read it."""
    try:
        content, facts = read_regular(file, FILE_BYTES)
        return tomllib.loads(content.decode()), bool(facts.st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except FileNotFoundError:
        reason = "there is no such file: check the path given with --config"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text: save it as UTF-8 (the byte at offset {error.start} is the first wrong one)"
    except RecursionError:
        reason = "is not usable TOML: it is nested too deeply"
    except ValueError as error:
        # tomllib.TOMLDecodeError says the line and column; a NUL in the path also ends here.
        words = str(error).encode("unicode_escape").decode()
        reason = f"is not valid TOML: {words}"
    raise ConfigError([Problem(file, "", reason)])


class _Reader:
    """Reads a document by the schema and notes every problem and warning on the way.

    After a problem the value in question is ``None``, and its path and those of all that it is in are in ``bad``, so
    that further checks can go on with what is good: :meth:`good` tells them.
    """

    def __init__(self, file: str, context: v.Context, readable_by_others: bool) -> None:
        self.file = file
        self.context = context
        self.readable_by_others = readable_by_others
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.bad: set[str] = set()

    def config(self, document: Mapping[str, object]) -> Config:
        """Return the whole configuration, or raise :class:`ConfigError`."""
        config: Config = self.table(Config, document, "")
        for check in checks.CHECKS:
            check(config, self)
        config = checks.with_next_hops(config, self)
        if self.problems:
            raise ConfigError(self.problems)
        return config

    def problem(self, path: str, reason: str) -> None:
        """Note that the value at ``path`` is wrong."""
        self.bad.update((path, *(path[:at] for at, character in enumerate(path) if character in "[.")))
        self.problems.append(Problem(self.file, path, reason))
        if len(self.problems) == PROBLEMS:
            raise ConfigError(
                [*self.problems, Problem(self.file, "", "there is more, which is told once this is mended")]
            )

    def good(self, *paths: str) -> bool:
        """Tell whether nothing is wrong at these paths or, of a list, in it."""
        return self.bad.isdisjoint(paths)

    def table(self, cls: type[Any], raw: Mapping[str, object], path: str) -> Any:
        """Read one table."""
        known = schema.items(cls)
        for name in raw:
            if name not in known:
                self.problem(_join(path, name), _unknown(cls, name, path))
        values: dict[str, Any] = {}
        for name, (attribute, item) in known.items():
            where = _join(path, name)
            if isinstance(item, Key):
                values[attribute] = self.value(item, raw, name, where, values)
            elif item.many:
                values[attribute] = self.array(item, raw.get(name, []), where)
            else:
                values[attribute] = self.one(item, raw.get(name, {}), where)
            if cls is Config and name == "server":
                self._after_server(values["server"])
        return cls(**values)

    def _after_server(self, server: Server) -> None:
        # The other tables' paths and the default postmaster hang on these two, so they have to be read first.
        self.context = dataclasses.replace(
            self.context, data_dir=server.data_dir or "", hostname=server.hostname or "localhost"
        )

    def one(self, item: Table, raw: object, path: str) -> Any:
        """Read a table that can be there once."""
        if not isinstance(raw, dict):
            cure = f"write [{path}], once" if isinstance(raw, list) else f"write its keys below a line [{path}]"
            self.problem(path, f"expected a table, but found {v.type_words(raw)}: {cure}")
            raw = {}
        return self.table(item.cls, raw, path)

    def array(self, item: Table, raw: object, path: str) -> tuple[Any, ...]:
        """Read an array of tables."""
        if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
            words = "a list of other things" if isinstance(raw, list) else v.type_words(raw)
            cure = f"write [[{path}]], with two brackets on each side, before the keys of each"
            self.problem(path, f"expected an array of tables, but found {words}: {cure}")
            return ()
        return tuple(self.table(item.cls, each, f"{path}[{index}]") for index, each in enumerate(raw))

    def value(self, key: Key, raw: Mapping[str, object], name: str, path: str, so_far: Mapping[str, Any]) -> Any:
        """Read one key, or take its default."""
        if name not in raw:
            if key.default is Required:
                self.problem(path, f"is missing: write it, such as {name} = {key.example}")
                return None
            return key.default_value(so_far, self.context)
        if not key.effect:
            self.warnings.append(f"{path} has no effect yet; what it will be for: {key.doc}")
        try:
            value = key.kind.parse(raw[name], self.context)
        except v.BadItems as error:
            for index, reason in error.reasons:
                self.problem(f"{path}[{index}]", reason)
            return None
        except ValueError as error:
            self.problem(path, str(error))
            return None
        if isinstance(value, Secret) and value.literal and self.readable_by_others:
            self.warnings.append(
                f"{path} is a secret in a file that others can read: "
                f'write "env:NAME" or "file:PATH" instead, or make the file readable by its owner only'
            )
        if isinstance(value, Secret) and value.open_file is not None:
            self.warnings.append(
                f"{path}: everybody on this machine can read {v.printable(value.open_file)}: take that right away from "
                "others (chmod o-r)"
            )
        return value


def _join(path: str, name: str) -> str:
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return (f"{path}." if path else "") + (name if bare else v.quoted(name))


def _unknown(cls: type[Any], name: str, path: str) -> str:
    """Say that a key is unknown, and which one may have been meant."""
    known = schema.items(cls)
    close = v.nearest(name, known)
    if close:
        return f"there is no such key; did you mean {v.quoted(close)}?"
    elsewhere = {entry.path.rpartition(".")[2]: entry.path for entry in schema.walk()}
    close = v.nearest(name, elsewhere)
    if close and elsewhere[close] != path:
        return f"there is no such key here; did you mean {v.quoted(elsewhere[close])}?"
    return f"there is no such key; here can stand: {', '.join(known)}"
