"""``mtactl why``: the story of one message, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.commands import Why
from mtatwist.control.live import json_option, say_lines, server
from mtatwist.control.queue_message import heading, read_message
from mtatwist.control.queue_selectors import known_id

Facts = Mapping[str, Any]


@click.command()
@click.argument("id", metavar="ID", type=known_id)
@json_option
def why(id: str) -> None:
    """Tell the story of a message: how it came, what was tried for each recipient, and what it waits for now."""
    with server() as client:
        message = read_message(client, Why, id)
    for delivery in message["deliveries"]:
        delivery["waits_for"] = waits_for(delivery)
    say_lines(message, story(message))


def waits_for(delivery: Facts) -> str:
    """What a recipient waits for, in a word.

    "nothing": it is done with; "release": somebody holds it; "delivery": that goes on right now; "next_hop": it is left
    alone after trouble; "room": the next hop has enough to do; "next_attempt": its time; "turn": that has come.
    """
    way = delivery["way"] or {"left_alone": 0, "full": False}
    due_in = delivery["due_in"] or 0
    if delivery["state"] in ("delivered", "failed"):
        return "nothing"
    if delivery["state"] == "held":
        return "release"
    if delivery["active"]:
        return "delivery"
    if way["left_alone"] > due_in:
        return "next_hop"
    if due_in:
        return "next_attempt"
    return "room" if way["full"] else "turn"


def story(message: Facts) -> Iterator[str]:
    """In sentences, a line each."""
    yield from heading(message)
    for delivery in message["deliveries"]:
        yield ""
        yield f"{delivery['recipient']}: {delivery['state']}"
        for sentence in (*_way(delivery), *_attempts(delivery), _waits(message, delivery)):
            yield f"  {sentence}"


def _way(delivery: Facts) -> Iterator[str]:
    way = delivery["way"]
    if way is None or delivery["waits_for"] == "nothing":
        return
    by = way["transport"]
    if way["exchanges"]:
        yield f"Goes to the exchanges of {way['next_hop']}, by {by}."
    else:
        yield f'Goes to {way["next_hop"]} by {by}, with the route for "{way["route"]}".'
    if way["failures"]:
        yield f"That could not be reached {_times(way['failures'])} in a row: {way['trouble']}"


def _attempts(delivery: Facts) -> Iterator[str]:
    if delivery["at"] is None:
        yield "Not tried yet."
        return
    tries = list(delivery["history"])
    if delivery["at"] is not None and (not tries or tries[-1]["at"] != delivery["at"]):
        tries.append(delivery)
    if (forgotten := delivery["attempts"] - len(tries)) > 0:
        yield f"{words.count(forgotten, 'earlier attempt')}, no longer remembered."
    for attempt in tries:
        over = f" over {attempt['tls']}" if attempt["tls"] else ""
        host = f"{attempt['host']}{over}: " if attempt["host"] else ""
        yield f"{attempt['at'].replace('T', ' ')}  {host}{attempt['reply']}"


def _waits(message: Facts, delivery: Facts) -> str:
    """What it waits for."""
    due_in = delivery["due_in"] or 0
    match delivery["waits_for"]:
        case "nothing":
            return "Done: nothing more is to be tried."
        case "release":
            return f'Held until somebody says "mtactl queue release {message["id"]}".'
        case "delivery":
            return "It is being delivered right now, or about to be: the relay has it."
        case "next_hop":
            left = words.duration(delivery["way"]["left_alone"])
            return f'The next hop is left alone for another {left}; "mtactl queue retry {message["id"]}" ends that.'
        case "next_attempt":
            at = delivery["next_attempt"].replace("T", " ")
            return f"The next attempt is due in {words.duration(due_in)}, at {at}."
        case "room":
            return "It is due, and waits for room: the next hop has as much to do as it is given at once."
        case _:
            return "It is due, and waits for its turn."


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
