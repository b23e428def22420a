"""``mtactl queue``: look at what waits; queue_change_cli has the verbs that change it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.client import NoServer
from mtatwist.control.commands import QueueList, QueueRead, QueueShape, QueueShow, QueueStats
from mtatwist.control.live import Session, json_option, say_lines, say_rows, server, wants_json
from mtatwist.control.queue_change_cli import VERBS
from mtatwist.control.queue_message import heading, read_message
from mtatwist.control.queue_selectors import SELECTING, known_id, selection, selectors

Columns = Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]]


@click.group()
def queue() -> None:
    """Look at the queue, and hold, release, retry, bounce or drop what is in it.

    A message is there until each of its recipients is delivered or failed. Every recipient has a state of its own:
    pending (not tried yet), deferred (tried in vain, and tried again), held, delivered or failed.
    """


for _verb in VERBS:
    queue.add_command(_verb)


@queue.command("list", epilog=SELECTING)
@selectors
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N messages.")
@json_option
def list_messages(limit: int | None, **selected: Any) -> None:
    """Print the messages that have a recipient who is meant, the oldest first."""
    rows = (words.told(row, time.time()) for row in _messages(selection(selected)))
    say_rows(islice(rows, limit), _LIST, "no message is meant")


def _messages(asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All of them. The server hangs up on who is silent for minutes, as a pager makes us: then go on where we were."""
    after, progress = None, True
    while progress:
        progress = False
        with server() as client:
            while True:
                try:
                    answer = client.ask(QueueList, after=after, **asked)
                except NoServer:
                    if not progress:
                        raise
                    break
                yield from answer["rows"]
                after, progress = answer["cursor"], True
                if after is None:
                    return


_LIST: Columns = (
    ("ID", lambda row: str(row["id"])),
    ("AGE", lambda row: words.duration(row["age"])),
    ("SIZE", lambda row: words.size(row["size"])),
    ("STATE", words.states),
    ("NEXT TRY", lambda row: words.due(row["due_in"])),
    ("FROM", lambda row: words.sender(row["sender"])),
    ("TO", lambda row: words.first_of(row)),
    ("LAST REPLY", lambda row: str(row["reply"])),
)


@queue.command()
@click.argument("id", metavar="ID", type=known_id)
@json_option
def show(id: str) -> None:
    """Print all that is known of a message, and the state of each recipient."""
    with server() as client:
        message = read_message(client, QueueShow, id)
    say_lines(message, heading(message))
    if not wants_json():
        say_rows(message["deliveries"], _SHOW)


_SHOW: Columns = (
    ("RECIPIENT", lambda row: str(row["recipient"])),
    ("STATE", words.state),
    ("ATTEMPTS", lambda row: str(row["attempts"])),
    ("NEXT TRY", lambda row: words.due(row["due_in"])),
    ("LAST HOST", lambda row: str(row["host"])),
    ("LAST REPLY", lambda row: str(row["reply"])),
)


@queue.command()
@click.argument("id", metavar="ID", type=known_id)
@json_option
def cat(id: str) -> None:
    """Write a message to standard output, octet for octet, as it will be sent; --json changes nothing of it."""
    # Nothing else goes there, not even an error.
    click.get_current_context().ensure_object(Session).json = False
    with server() as client:
        output = sys.stdout.buffer
        offset = 0
        while data := client.ask(QueueRead, id=id, offset=offset)["data"]:
            output.write(data)
            offset += len(data)
        output.flush()


@queue.command()
@json_option
def stats() -> None:
    """Print how much waits, for how long, and where for."""
    with server() as client:
        answer = client.ask(QueueStats)["stats"]
    states = answer["recipients"]
    waiting = sum(states[name] for name in ("pending", "deferred", "held"))
    facts = words.told({**answer, **states, "recipients": waiting}, time.time())
    say_lines(facts, _stats(facts))


def _stats(facts: Mapping[str, Any]) -> Iterator[str]:
    oldest = f", the oldest of them received {facts['oldest'].replace('T', ' ')}" if facts["oldest"] else ""
    yield f"{words.count(facts['messages'], 'message')}, {words.size(facts['octets'])}{oldest}"
    states = words.join(f"{facts[name]:,} {name}" for name in ("pending", "deferred", "held"))
    yield f"{words.count(facts['recipients'], 'recipient')}: {states}"
    yield f"{facts['active']:,} being delivered right now, {facts['due']:,} due"
    for title, most in (("Domains", facts["domains"]), ("Next hops", facts["next_hops"])):
        if most:
            yield ""
            yield f"{title} with the most recipients:"
            yield from (f"{one['recipients']:>9,}  {one['name']}" for one in most)
    if any(facts["replies"].values()):
        yield ""
        yield "Recipients by the class of the last reply:"
        yield from (f"{number:>9,}  {digit}xx" for digit, number in facts["replies"].items())


@queue.command(epilog=SELECTING)
@selectors
@json_option
def shape(**selected: Any) -> None:
    """Print how many recipients wait at each domain, by the age of their messages."""
    asked = selection(selected)
    with server() as client:
        answer = client.ask(QueueShape, **asked)
    bounds = [*answer["ages"], None]
    rows = (
        {
            "domain": row["domain"],
            "domains": row.get("domains", 1),
            "recipients": row["recipients"],
            "ages": [{"below": age, "recipients": number} for age, number in zip(bounds, row["counts"], strict=True)],
        }
        for row in answer["rows"]
    )
    columns: Columns = (
        ("DOMAIN", lambda row: str(row["domain"] or words.count(row["domains"], "other domain"))),
        ("RECIPIENTS", lambda row: f"{row['recipients']:,}"),
        *((_below(answer["ages"], place), _number(place)) for place in range(len(bounds))),
    )
    say_rows(rows, columns, "no recipient is meant")


def _below(ages: Sequence[float], place: int) -> str:
    """The title of a column."""
    return f"UNDER {words.duration(ages[place])}" if place < len(ages) else "OLDER"


def _number(place: int) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f"{row['ages'][place]['recipients']:,}"
