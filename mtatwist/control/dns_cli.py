"""``mtactl dns``: what the running server remembers of the DNS, and what overrides it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.client import Client
from mtatwist.control.commands import DnsClear, DnsList, DnsLookup, DnsOverride
from mtatwist.control.live import json_option, say, say_rows, server


@click.group()
def dns() -> None:
    """See and change what the running server knows of the DNS."""


def _left(row: Mapping[str, Any]) -> str:
    left = [] if row["ttl"] is None else [words.duration(row["ttl"])]
    return " ".join([*left, *(word for word in ("stale", "authentic") if row[word])])


COLUMNS: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]] = (
    ("NAME", lambda row: str(row["name"])),
    ("TYPE", lambda row: row["type"] or row["kind"]),
    ("OUTCOME", lambda row: str(row["outcome"])),
    ("RECORDS", lambda row: ", ".join(row["records"]) or (row["reason"] or "")),
    ("LEFT", _left),
)
"""What is shown of a row."""


@dns.command("list")
@json_option
def list_known() -> None:
    """Print what is remembered, and what overrides it."""
    with server() as client:
        say_rows(_rows(client), COLUMNS, "nothing is remembered")


def _rows(client: Client) -> Iterator[dict[str, Any]]:
    for answer in client.rows(DnsList):
        yield from answer["rows"]


def _look_up(name: str, type: str | None, refresh: bool) -> None:
    with server() as client:
        answer = client.ask(DnsLookup, name=name, type=type or "", refresh=refresh)["answer"]
        say_rows(answer["rows"], COLUMNS, "nothing is there")
    if answer["more"]:
        click.echo(f"mtactl: {answer['more']} more did not fit into the answer", err=True)
    if any(row["outcome"] == "failed" for row in answer["rows"]):
        click.get_current_context().exit(os.EX_TEMPFAIL)


_type = click.option(
    "--type",
    type=click.Choice(["A", "AAAA", "MX"], case_sensitive=False),
    help="Ask for this; without it, for all that a delivery would ask for.",
)


@dns.command()
@click.argument("name")
@_type
@json_option
def lookup(name: str, type: str | None) -> None:
    """Look up NAME as the server does: what it remembers counts.

    The exit code is 75 when the DNS gives no answer.
    """
    _look_up(name, type, refresh=False)


@dns.command()
@click.argument("name")
@_type
@json_option
def refresh(name: str, type: str | None) -> None:
    """Look up NAME anew, and remember that in place of what was known.

    An answer that is known stays where the DNS gives no new one; the exit code is 75 then.
    """
    _look_up(name, type, refresh=True)


@dns.command()
@click.argument("name", required=False)
@click.option("--everything", is_flag=True, help="Forget all that is remembered.")
@json_option
def clear(name: str | None, everything: bool) -> None:
    """Forget what is remembered of NAME: it is looked up again when it is needed."""
    if (name is None) != everything:
        raise click.UsageError("Say either a NAME or --everything.")
    with server() as client:
        cleared = client.ask(DnsClear, name=name)["cleared"]
    what = "answer" if cleared == 1 else "answers"
    say({"level": "ok", "name": name, "cleared": cleared}, f"forgot {cleared} {what}")


@dns.command()
@click.argument("domain")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("--remove", is_flag=True, help="Let the domain mean what it meant before.")
@json_option
def override(domain: str, addresses: tuple[str, ...], remove: bool) -> None:
    """Have mail for DOMAIN, and for what it is the exchange of, go to these addresses.

    It holds until the server restarts, or --remove: write a [[dns.override]] to keep it.
    """
    if remove == bool(addresses):
        raise click.UsageError("Say either an ADDRESS or --remove.")
    with server() as client:
        count = client.ask(DnsOverride, domain=domain, addresses=list(addresses))["overrides"]
    facts = {"level": "ok", "domain": domain, "addresses": list(addresses), "overrides": count}
    if remove:
        say(facts, f"{domain} is what it was before")
    else:
        say(facts, f"{domain} is {', '.join(addresses)} until the next restart")
