"""``mtactl system``: the server as a whole.

``system reload`` ends with 78 (EX_CONFIG) when the configuration can't be used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.commands import Drain, Ping, Reload, SetLogLevel, Status
from mtatwist.control.live import complain, json_option, say, say_lines, server
from mtatwist.log import LEVELS

Facts = Mapping[str, Any]


@click.group()
def system() -> None:
    """Look after the running server."""


@system.command()
@json_option
def ping() -> None:
    """Say whether the server answers."""
    with server() as client:
        answer = client.ask(Ping)
    say(
        {"level": "ok", "version": answer["version"], "pid": answer["pid"]},
        f"mtatwist {answer['version']} answers, process {answer['pid']}",
    )


@system.command()
@json_option
def status() -> None:
    """Print how the server is: its listeners, sessions, queue and disk, whom it depends on, and its troubles."""
    with server() as client:
        facts = client.ask(Status)["status"]
    for each in facts["certificates"]:
        each["expires"] = words.iso(each["expires"])
    say_lines(facts, _lines(facts))


@system.command()
@json_option
def reload() -> None:
    """Have the server take its configuration file as it is now, and the files that it names.

    A file that can't be used changes nothing; the exit code is 78 then.
    """
    with server() as client:
        answer = client.ask(Reload)
    if answer["outcome"] == "refused":
        for each in answer["problems"]:
            where = ": ".join(part for part in (each["file"], each["key"]) if part)
            complain(each, f"{where}: {each['reason']}" if where else each["reason"])
        click.get_current_context().exit(os.EX_CONFIG)
    changed, restart = answer["changed"], answer["restart"]
    lines = [f"changed: {', '.join(changed)}" if changed else "no setting has changed"]
    if restart:
        lines.append(f"takes a restart: {', '.join(restart)}")
    if answer["certificates"]:
        lines.append(f"certificates taken: {', '.join(answer['certificates'])}")
    lines += [f"warning: {each}" for each in answer["warnings"]]
    told = {name: answer[name] for name in ("changed", "restart", "certificates", "warnings")}
    say_lines({"level": "ok", **told}, lines)


@system.command()
@json_option
def drain() -> None:
    """Take no new mail: transactions that have begun go on, and what waits is delivered.

    Whoever comes, or begins another transaction, is told 421, and the health endpoint says 503. It ends with "undrain",
    and with a restart.
    """
    _drain(True)


@system.command()
@json_option
def undrain() -> None:
    """Take new mail again."""
    _drain(False)


def _drain(begin: bool) -> None:
    with server() as client:
        phase = client.ask(Drain, drain=begin)["phase"]
    meaning = "no new mail is taken, until undrain or a restart" if begin else "new mail is taken"
    say({"level": "ok", "phase": phase}, f"{phase}: {meaning}")


@system.command("log-level")
@click.argument("level", type=click.Choice(LEVELS, case_sensitive=False))
@json_option
def log_level(level: str) -> None:
    """Log from LEVEL on, until the server restarts or its "log.level" changes."""
    with server() as client:
        before = client.ask(SetLogLevel, level=level.lower())["before"]
    say(
        {"level": "ok", "log_level": level.lower(), "before": before}, f"the log level is {level.lower()}, was {before}"
    )


def _lines(facts: Facts) -> Iterator[str]:
    up = words.duration(facts["uptime"])
    yield f"mtatwist {facts['version']}, process {facts['pid']}, up for {up}: {facts['phase']}"
    for name, reason in facts["reasons"].items():
        yield f"  not ready: {name}: {reason}"
    for each in facts["listeners"]:
        yield f"listens: {each['role']} at {_place(each)}{'' if each['accepting'] else ', not bound'}"
    if facts["health"] is not None:
        yield f"health: {_place(facts['health'])}"
    yield f"sessions: {facts['sessions']}"
    yield f"queue: {_queue(facts['queue'])}"
    down = words.count(facts["destinations_down"], "next hop")
    yield f"in delivery: {words.count(facts['in_flight'], 'recipient')}; left alone after trouble: {down}"
    yield f"spool: {_spool(facts['spool'])}"
    yield f"locks: {facts['locks']}"
    for each in facts["directory"]:
        yield f"directory: {each['server']} {each['trouble'] or 'answers'}"
    for each in facts["certificates"]:
        yield f"certificate: {each['certificate']} ({', '.join(each['names'])}): {each['days_left']} days left"
    for each in facts["dns"]:
        yield f"DNS: {each['server']} {'answers' if each['answers'] else 'does not answer'}"
    if facts["overrides"]:
        yield f"DNS: {facts['overrides']} overrides that no configuration has"
    yield f"metrics: {_collector(facts['collector'])}"
    yield f"log level: {facts['log_level']}"
    for each in facts["warnings"]:
        yield f"warning: {each}"
    for name, count in facts.get("left_out", {}).items():
        yield f"{count} {name} did not fit into the answer"


def _place(facts: Facts) -> str:
    return f"{facts['host']}:{facts['port']}" if facts["port"] else facts["host"] or facts["endpoint"]


def _queue(facts: Facts | None) -> str:
    if facts is None:
        return "could not be counted in time"
    counts = ", ".join(f"{facts[name]:,} {name}" for name in ("pending", "deferred", "held", "due"))
    oldest = facts["oldest"]
    return counts if oldest is None else f"{counts}; the oldest message has waited for {words.duration(oldest)}"


def _spool(facts: Facts) -> str:
    room = f"{words.size(facts['free'])} free{'' if facts['room'] else ': NO ROOM for new mail'}"
    return f"{room}; trouble: {facts['trouble']}" if facts["trouble"] else room


def _collector(facts: Facts | None) -> str:
    if facts is None:
        return "are not pushed"
    if facts["reason"]:
        return f"{facts['endpoint']} does not get them: {facts['reason']}"
    return f"{facts['endpoint']} takes them" if facts["pushed"] else f"no push to {facts['endpoint']} yet"
