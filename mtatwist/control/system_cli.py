"""``mtactl system``: the server as a whole."""

from __future__ import annotations

import click

from mtatwist.control.commands import Ping
from mtatwist.control.live import json_option, say, server


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
