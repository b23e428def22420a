"""``mtactl auth``: who is locked out of the running server, and whether somebody would be let in.

Exit codes of ``auth test``: 0, let in; 77 (EX_NOPERM), refused; 75 (EX_TEMPFAIL), nobody can tell now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from twisted.cred.error import LoginFailed

from mtatwist.auth.prepare import prepare_password
from mtatwist.control import queue_words as words
from mtatwist.control.client import Client
from mtatwist.control.commands import AuthLocks, AuthTest, AuthUnlock
from mtatwist.control.live import fail, json_option, say, say_rows, server

_LINE = 8192
"""Octets of standard input in which a password is looked for."""

ENDS = {"let in": os.EX_OK, "refused": os.EX_NOPERM, "unavailable": os.EX_TEMPFAIL}
"""What a test ends with."""


@click.group()
def auth() -> None:
    """See and end the locks of those who log in, and try a login."""


COLUMNS: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]] = (
    ("LOCK", lambda row: str(row["kind"])),
    ("USER", lambda row: row["user"] or ""),
    ("ADDRESS", lambda row: row["address"] or ""),
    ("UNTIL", lambda row: row["until"].replace("T", " ")),
    ("LEFT", lambda row: words.duration(row["left"])),
)
"""What is shown of a lock."""


@auth.command()
@json_option
def locks() -> None:
    """Print who is locked out, and until when; the first to end comes first."""
    with server() as client:
        say_rows(_locks(client), COLUMNS, "nobody is locked out")


def _locks(client: Client) -> Iterator[dict[str, Any]]:
    for answer in client.rows(AuthLocks):
        yield from _in_json(answer["rows"])


def _in_json(locks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**lock, "until": words.iso(lock["until"])} for lock in locks]


@auth.command()
@click.argument("user", required=False)
@click.option("--address", metavar="ADDRESS", help="End the locks of this address; with USER, of that pair alone.")
@json_option
def unlock(user: str | None, address: str | None) -> None:
    """End the locks of USER, or of an address, and forget the wrong passwords that were counted."""
    if not user and not address:
        raise click.UsageError("Say a USER, an --address, or both.")
    with server() as client:
        answer = client.ask(AuthUnlock, user=user, address=address)
    answer["unlocked"] = _in_json(answer["unlocked"])
    whom = " from ".join(each for each in (user, address) if each)
    named = [f"{lock['kind']} {lock['user'] or ''} {lock['address'] or ''}".strip() for lock in answer["unlocked"]]
    left_out = answer["count"] - len(named)
    ended = f"ended: {', '.join(named)}{f' and {left_out} more' if left_out else ''}" if named else "there was no lock"
    say(
        {"level": "ok", "user": user, "address": address, "count": answer["count"], "unlocked": answer["unlocked"]},
        f"{whom}: {ended}; what was counted is forgotten",
    )


@auth.command()
@click.argument("user")
@json_option
def test(user: str) -> None:
    """Say whether USER would be let in, and what as.

    The password is asked for; where there is no terminal, it is the first line of standard input. The server asks the
    password file or the directory: it counts as no guess, and a lock, which is named, does not stand in the way.
    """
    password = _password()
    with server() as client:
        answer = client.ask(AuthTest, user=user, password=password)
    outcome, account = answer["outcome"], answer["account"]
    account["locks"] = _in_json(account["locks"])
    say({"level": "ok" if outcome == "let in" else "error", "outcome": outcome, **account}, _words(outcome, account))
    click.get_current_context().exit(ENDS[outcome])


def _words(outcome: str, account: Mapping[str, Any]) -> str:
    if outcome == "let in":
        more = f" and {account['more_addresses']} more" if account["more_addresses"] else ""
        may = f"may send as {', '.join(account['addresses'])}{more}" if account["addresses"] else "may send as nobody"
        # A lock does not stand in the way of a test, but of him.
        verb = "would be" if account["locks"] else "is"
        told = f"{account['user']} {verb} let in as {account['account']}, and {may}"
    elif outcome == "refused":
        told = f"{account['user']} is refused: {account['reason']}"
    else:
        told = f"nobody can tell now whether {account['user']} may log in: {account['reason']}"
    locks = [_lock_in_words(lock) for lock in account["locks"]]
    if locks and outcome == "let in":
        return f"{told}, but is {'; '.join(locks)}"
    return "; ".join([told, *locks])


def _lock_in_words(lock: Mapping[str, Any]) -> str:
    where = f" from {lock['address']}" if lock["address"] else ""
    return f"locked out{where} until {lock['until'].replace('T', ' ')}"


def _password() -> str:
    text: str | bytes = b""
    if sys.stdin is not None:
        if sys.stdin.isatty():
            text = click.prompt("Password", hide_input=True)
        else:
            text = sys.stdin.buffer.readline(_LINE).rstrip(b"\r\n")
    try:
        return prepare_password(text)
    except LoginFailed as error:
        fail(os.EX_DATAERR, f"{error}; give it on standard input, or run this in a terminal")
