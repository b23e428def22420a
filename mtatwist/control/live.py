"""What the verbs have in common that talk to a running server: finding it, its errors, and printing what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NoReturn, TypeVar

import click

from mtatwist.control.client import Client, NoServer
from mtatwist.control.commands import (
    BadArgument,
    Broken,
    ControlError,
    NotAllowed,
    NotFound,
    OtherVersion,
    Unavailable,
)
from mtatwist.values.base import printable

F = TypeVar("F", bound=Callable[..., Any])

PLACES = ("/run/mtatwist/control.sock", "/var/lib/mtatwist/control.sock", "mtatwist-data/control.sock")
"""Where the control socket is looked for when nobody says where it is."""

EXIT_CODES: dict[type[ControlError], int] = {
    NotAllowed: os.EX_NOPERM,
    OtherVersion: os.EX_PROTOCOL,
    BadArgument: os.EX_DATAERR,
    NotFound: os.EX_NOINPUT,
    Unavailable: os.EX_TEMPFAIL,
    Broken: os.EX_SOFTWARE,
}
"""What mtactl ends with when a command was not done (sysexits.h)."""

WIDEST = 10_000
"""Columns that a table may have; the terminal wraps what is too long for it."""

TABLE_ROWS = 100
"""Rows of a table that are measured together: a long list is never held in memory."""


@dataclasses.dataclass(slots=True)
class Session:
    """The options before the verb.

    :ivar socket: the control socket; ``None``: look for it.
    :ivar token: what authenticates to it.
    :ivar json: whether output is one JSON object a line.
    """

    socket: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    json: bool = False


def _json_after_the_verb(context: click.Context, _: click.Parameter, value: bool) -> None:
    # The contract has --json before the verb; whoever writes it behind means the same.
    if value:
        context.ensure_object(Session).json = True


def json_option(function: F) -> F:
    """Accept ``--json`` after the verb too."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_json_after_the_verb,
        help="Print JSON objects, one a line.",
    )(function)


def fail(code: int, reason: str) -> NoReturn:
    """End the command: with ``--json`` an object says why on standard output, else a line on standard error."""
    complain({"reason": reason}, f"mtactl: {reason}")
    click.get_current_context().exit(code)
    raise AssertionError


def complain(facts: Mapping[str, Any], words: str) -> None:
    """Say what is wrong: with ``--json`` as an object on standard output, else as a line on standard error."""
    if wants_json():
        _print_json({"level": "error", **facts})
    else:
        click.echo(printable(words), err=True)


@contextlib.contextmanager
def server() -> Iterator[Client]:
    """A connection to the running server; what goes wrong ends the command with a word on it and its exit code."""
    session = click.get_current_context().ensure_object(Session)
    try:
        with Client(_place(session.socket), session.token) as client:
            yield client
    except NoServer as error:
        fail(error.code, str(error))
    except NotAllowed as error:
        cure = "" if session.token else " (--token, or rather MTACTL_TOKEN in the environment)"
        fail(os.EX_NOPERM, f"{error}{cure if 'wants a token' in str(error) else ''}")
    except ControlError as error:
        fail(EXIT_CODES.get(type(error), os.EX_SOFTWARE), str(error))


def _place(named: str | None) -> str:
    if named is not None:
        return named
    for place in PLACES:
        # One that may not be looked at is told of when it is used.
        if os.path.lexists(place):
            return place
    fail(
        os.EX_UNAVAILABLE,
        f"no control socket: looked for {', '.join(PLACES)}. Is the server running? Say where its socket is with"
        ' --socket or MTACTL_SOCKET: it is "control.socket" of its configuration',
    )


def _print_json(facts: Mapping[str, Any]) -> None:
    # Peers have said some of it: nothing but ASCII goes to a terminal, which may take other characters for orders.
    click.echo(json.dumps(facts, ensure_ascii=sys.stdout.isatty()))


def say(facts: Mapping[str, Any], words: str) -> None:
    """Print facts: as words for a person, or as one JSON object."""
    say_lines(facts, [words])


def wants_json() -> bool:
    """Is output one JSON object a line?"""
    return click.get_current_context().ensure_object(Session).json


def say_lines(facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print facts: as several lines for a person, or as one JSON object."""
    if wants_json():
        _print_json(facts)
        return
    for line in lines:
        click.echo(printable(line))


def say_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]],
    nothing: str = "",
) -> None:
    """Print rows as they come: as JSON objects, as a table on a terminal, as lines of tab-separated cells elsewhere.

    ``columns``: title, and what stands there of a row. ``nothing``: said to a person where there are no rows, on
    standard error, so that whoever counts lines counts right.
    """
    if wants_json():
        for row in rows:
            _print_json(row)
        return
    remaining = iter(rows)
    first = list(islice(remaining, 1))
    if not first:
        if nothing:
            click.echo(nothing, err=True)
        return
    remaining = chain(first, remaining)
    if not sys.stdout.isatty():
        for row in remaining:
            click.echo("\t".join(printable(cell(row)) for _, cell in columns))
        return
    # Loaded for terminals alone: it takes longer than most answers.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As wide as what is in it: folded cells can't be read, nor copied.
    console = Console(width=WIDEST, height=TABLE_ROWS)
    while part := list(islice(remaining, TABLE_ROWS)):
        table = Table(box=None, pad_edge=False)
        for title, _ in columns:
            table.add_column(title)
        for row in part:
            # No markup: what peers have said stands in them.
            table.add_row(*(Text(printable(cell(row))) for _, cell in columns))
        with console.capture() as lines:
            console.print(table)
        for line in lines.get().splitlines():
            click.echo(line.rstrip())
