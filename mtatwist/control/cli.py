"""mtactl, the administrator's command.

Exit codes: 0 for success, 2 for wrong usage of the command, 78 (EX_CONFIG) for a wrong configuration; live.py has
those of the verbs that talk to a running server. What was asked for goes to standard output, warnings and errors to
standard error; with ``--json`` all there is to say about a configuration goes to standard output, one JSON object a
line.
"""

from __future__ import annotations

import importlib
import io
import sys

import click

from mtatwist import __version__
from mtatwist.control.live import Session

COMMANDS = {
    "auth": "auth_cli",
    "config": "config_cli",
    "dns": "dns_cli",
    "queue": "queue_cli",
    "route": "route_cli",
    "spool": "configured",
    "system": "system_cli",
    "users": "configured",
    "why": "why_cli",
}
"""The verbs, and the module of this room that each stands in."""


class Verbs(click.Group):
    """Loads a verb when it is used: all of them take a second, which is too long to look at a queue."""

    def list_commands(self, context: click.Context) -> list[str]:
        """(Group) Their names."""
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """(Group) One of them."""
        if name not in COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"mtatwist.control.{COMMANDS[name]}"), name)
        return found


@click.group(cls=Verbs, name="mtactl", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    metavar="PATH",
    envvar="MTACTL_SOCKET",
    show_envvar=True,
    help="The control socket of the running server; without it, it is looked for.",
)
@click.option(
    "--token",
    envvar="MTACTL_TOKEN",
    show_envvar=True,
    help="The token for the control socket. Rather set the variable: others can see arguments.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
@click.version_option(__version__, prog_name="mtactl")
@click.pass_context
def main(context: click.Context, socket: str | None, token: str | None, as_json: bool) -> None:
    """Administer the mtatwist mail server."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character gets its number instead, and nobody a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    context.obj = Session(socket=socket, token=token, json=as_json)


if __name__ == "__main__":
    main(prog_name="mtactl")
