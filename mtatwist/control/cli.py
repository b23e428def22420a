"""mtactl, the administrator's command.

Exit codes: 0 for success, 2 for wrong usage of the command, 78 (EX_CONFIG) for a wrong configuration; live.py has
those of the verbs that talk to a running server. What was asked for goes to standard output, warnings and errors to
standard error; with ``--json`` all there is to say about a configuration goes to standard output, one JSON object a
line.
"""

from __future__ import annotations

import io
import json
import os
import sys

import click

from mtatwist import __version__
from mtatwist import describe as text
from mtatwist.config import ConfigError, Problem, load
from mtatwist.control.auth_cli import auth
from mtatwist.control.config_files import try_files
from mtatwist.control.dns_cli import dns
from mtatwist.control.live import Session, json_option
from mtatwist.control.queue_cli import queue
from mtatwist.control.spool_cli import Say, spool_group
from mtatwist.control.system_cli import system
from mtatwist.control.users_cli import UserFile, users_group
from mtatwist.control.why_cli import why
from mtatwist.values.base import printable


def _say(value: object, *, err: bool = False) -> None:
    click.echo(json.dumps(value, ensure_ascii=False), err=err)


@click.group(name="mtactl", context_settings={"help_option_names": ["-h", "--help"]})
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


@main.group()
def config() -> None:
    """Check, show and describe the configuration."""


def _refuse(context: click.Context, error: ConfigError) -> None:
    """Print all the problems, and end with EX_CONFIG."""
    for problem in error.problems:
        if context.ensure_object(Session).json:
            _say({"level": "error", "file": problem.file, "key": problem.key, "reason": problem.reason})
        else:
            click.echo(str(problem), err=True)
    context.exit(os.EX_CONFIG)


@config.command()
@click.argument("file", type=click.Path())
@json_option
@click.pass_context
def check(context: click.Context, file: str) -> None:
    """Say everything that is wrong with FILE, without touching a running server.

    Secrets are looked up, so run it as the user the server runs as, with the same environment. The exit code
    is 78 when something is wrong.
    """
    try:
        loaded = load(file)
        warnings = [*loaded.warnings, *try_files(loaded)]
    except ConfigError as error:
        _refuse(context, error)
        return
    as_json = context.ensure_object(Session).json
    for warning in warnings:
        if as_json:
            _say({"level": "warning", "file": file, "reason": warning})
        else:
            click.echo(f"{printable(file)}: warning: {warning}", err=True)
    if as_json:
        _say({"level": "ok", "file": file, "warnings": len(warnings)})
    else:
        click.echo(f"{printable(file)}: ok")


@config.command()
@click.argument("file", type=click.Path(), required=False)
@json_option
@click.pass_context
def show(context: click.Context, file: str | None) -> None:
    """Print the effective values of FILE, or of the embedded set-up that runs without one."""
    try:
        loaded = load(file)
    except ConfigError as error:
        _refuse(context, error)
        return
    if context.ensure_object(Session).json:
        _say(text.effective(loaded))
    else:
        click.echo(text.effective_toml(loaded), nl=False)


@config.command()
@click.argument("key_prefix", required=False, default="")
@click.option("--rst", "form", flag_value="rst", help="Print docs/configuration.rst.")
@click.option("--toml", "form", flag_value="toml", help="Print conf/mtatwist.toml.")
@json_option
@click.pass_context
def describe(context: click.Context, key_prefix: str, form: str | None) -> None:
    """Print every key, or those at and below KEY_PREFIX: type, default and meaning."""
    if form is not None:
        if key_prefix:
            raise click.UsageError(f"--{form} prints the whole file: leave out {key_prefix!r}.")
        click.echo(text.rst() if form == "rst" else text.commented_toml(), nl=False)
        return
    entries = text.select(key_prefix)
    if not entries:
        raise click.UsageError(f'There is no key {key_prefix!r}: "mtactl config describe" prints them all.')
    if context.ensure_object(Session).json:
        for entry in entries:
            _say(text.as_object(entry))
    else:
        click.echo("\n\n".join(text.plain(entry) for entry in entries))


def _data_dir(context: click.Context, file: str) -> str:
    try:
        return load(file).server.data_dir
    except ConfigError as error:
        _refuse(context, error)
        raise AssertionError from None


def _say_as(context: click.Context) -> Say:
    if context.ensure_object(Session).json:
        return lambda facts, words: _say(facts)
    return lambda facts, words: click.echo(printable(words), err=facts.get("level") == "error")


def _user_file(context: click.Context, file: str | None) -> UserFile:
    try:
        loaded = load(file)
        if loaded.auth.backend != "file":
            reason = f'is "{loaded.auth.backend}": its users are not in a password file; add and remove them there'
            raise ConfigError([Problem(file or "", "auth.backend", reason)])
    except ConfigError as error:
        _refuse(context, error)
        raise AssertionError from None
    return UserFile(loaded.auth.file, loaded.relay.domains, make=loaded.embedded)


main.add_command(spool_group(_data_dir, _say_as, json_option))
main.add_command(users_group(_user_file, _say_as, json_option))
main.add_command(system)
main.add_command(queue)
main.add_command(why)
main.add_command(dns)
main.add_command(auth)


if __name__ == "__main__":
    main(prog_name="mtactl")
