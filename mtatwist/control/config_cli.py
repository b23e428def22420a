"""``mtactl config``: what is configured, and what can be."""

from __future__ import annotations

import json
import os

import click

from mtatwist import describe as text
from mtatwist.config import ConfigError, load
from mtatwist.control.config_files import try_files
from mtatwist.control.live import Session, json_option
from mtatwist.values.base import printable


def _say(value: object, *, err: bool = False) -> None:
    click.echo(json.dumps(value, ensure_ascii=False), err=err)


@click.group()
def config() -> None:
    """Check, show and describe the configuration."""


def refuse(context: click.Context, error: ConfigError) -> None:
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
        refuse(context, error)
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
        refuse(context, error)
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
