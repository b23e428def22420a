"""``mtactl route``: which way mail would go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.commands import RouteTest
from mtatwist.control.live import json_option, say_lines, server

Facts = Mapping[str, Any]


@click.group()
def route() -> None:
    """See which way mail goes."""


@route.command()
@click.argument("address")
@json_option
def test(address: str) -> None:
    """Say whether mail for ADDRESS is taken, who gets it, and where it is taken to. Nothing is sent."""
    with server() as client:
        facts = client.ask(RouteTest, address=address)["route"]
    say_lines(facts, _lines(facts))


def _lines(facts: Facts) -> Iterator[str]:
    if facts["reply"]:
        yield f"{facts['address']}: refused, {facts['why']}: {facts['reply']}"
    elif facts["accepted_from"] == "everybody":
        yield f"{facts['address']}: taken from everybody: {facts['why']}"
    else:
        yield (f"{facts['address']}: taken from relay.networks and from those who have logged in alone: {facts['why']}")
    if facts["recipients"] not in ([], [facts["address"]]):
        more = f" and {facts['more_recipients']} more" if facts["more_recipients"] else ""
        yield f"goes to {', '.join(facts['recipients'])}{more}"
    for way in facts["ways"]:
        yield from _way(way)
    if facts["more_ways"]:
        yield f"and {words.count(facts['more_ways'], 'more domain')}"


def _way(way: Facts) -> Iterator[str]:
    to = "its exchanges" if way["exchanges"] else way["next_hop"]
    tls = "" if way["transport"] == "maildir" else f', tls = "{way["tls"]}"'
    yield f'{way["domain"]}: route "{way["route"]}": {way["transport"]} to {to}{tls}'
    for target in way["targets"]:
        preference = "" if target["preference"] is None else f"{target['preference']} "
        where = target["address"] if target["port"] is None else f"{target['address']} port {target['port']}"
        yield f"  {preference}{target['host']}: {where}" if target["host"] != target["address"] else f"  {where}"
    if way["reply"]:
        yield f"  no address to try: {way['reply']}"
    if way["failures"]:
        until = f"left alone for {words.duration(way['left_alone'])}" if way["left_alone"] else "to be tried again"
        yield f"  {until} after {words.count(way['failures'], 'failure')} in a row: {way['trouble']}"
    if way["full"]:
        yield "  it has enough to do for now: more mail waits"
