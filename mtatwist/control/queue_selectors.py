"""The options by which the verbs of the queue select recipients, the same for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mtatwist.envelope import queue_id
from mtatwist.spool.selection import STATES, Selection, number_of
from mtatwist.values.numbers import parse_duration

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {"sender": "--from", "recipient": "--to", "next_hop": "--next-hop"}
"""What a selector is called on the command line, where that is not its name."""


def known_id(value: str) -> str:
    """A queue id, as the 250 named it, in the form in which it is written elsewhere. Raises BadParameter."""
    try:
        return queue_id(number_of(value))
    except ValueError as error:
        raise click.BadParameter(f"{error}, as in the reply to the message and in the log.") from None


def _seconds(value: str) -> float:
    try:
        return parse_duration(value, zero=True)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


_SELECTORS = (
    click.option("--id", type=known_id, metavar="ID", help="This message."),
    click.option("--from", "sender", metavar="ADDRESS", help='The reverse path; "<>" is the null one.'),
    click.option("--to", "recipient", metavar="ADDRESS", help="The recipient."),
    click.option("--domain", metavar="DOMAIN", help="The recipient's domain."),
    click.option("--user", metavar="USER", help='Who had logged in to send it; "" is nobody.'),
    click.option("--older", type=_seconds, metavar="AGE", help='Received that long ago or longer: "2h", "1d12h".'),
    click.option("--state", type=click.Choice(list(STATES)), help="What the recipient is waiting as."),
    click.option("--code", metavar="CODE", help='How the last reply began: "4", "450", "4.7.1".'),
    click.option("--next-hop", metavar="NAME", help="The smart host, socket or directory it goes to, or the domain"
                 " whose exchanges are looked for."),
)  # fmt: skip

SELECTING = (
    'Selectors that are given together have to hold together. In --from, --to, --domain, --user and --next-hop a "*"'
    " stands for any text."
)
"""For the help of each verb."""


def selectors(function: F) -> F:
    """Take the selectors; the function gets them by name, in ``selected``: see selection()."""
    for option in reversed(_SELECTORS):
        function = option(function)
    return function


def selection(selected: dict[str, Any]) -> dict[str, Any]:
    """The selectors as the contract has them. Raises UsageError, in the words of the command line."""
    try:
        Selection(**selected)
    except ValueError as error:
        name, colon, words = str(error).partition(": ")
        option = _OPTIONS.get(name, f"--{name}")
        raise click.UsageError(f"{option}: {words}" if colon and name in selected else str(error)) from None
    return selected


def selects(selected: dict[str, Any]) -> bool:
    """Is any of them given?"""
    return any(value is not None for value in selected.values())
