"""The verbs that work on what a configuration names, whether or not the server runs: ``spool`` and ``users``."""

from __future__ import annotations

import json

import click

from mtatwist.config import ConfigError, Problem, load
from mtatwist.control.config_cli import refuse
from mtatwist.control.live import Session, json_option
from mtatwist.control.spool_cli import Say, spool_group
from mtatwist.control.users_cli import UserFile, users_group
from mtatwist.values.base import printable


def _data_dir(context: click.Context, file: str) -> str:
    try:
        return load(file).server.data_dir
    except ConfigError as error:
        refuse(context, error)
        raise AssertionError from None


def _say_as(context: click.Context) -> Say:
    if context.ensure_object(Session).json:
        return lambda facts, words: click.echo(json.dumps(facts, ensure_ascii=False))
    return lambda facts, words: click.echo(printable(words), err=facts.get("level") == "error")


def _user_file(context: click.Context, file: str | None) -> UserFile:
    try:
        loaded = load(file)
        if loaded.auth.backend != "file":
            reason = f'is "{loaded.auth.backend}": its users are not in a password file; add and remove them there'
            raise ConfigError([Problem(file or "", "auth.backend", reason)])
    except ConfigError as error:
        refuse(context, error)
        raise AssertionError from None
    return UserFile(loaded.auth.file, loaded.relay.domains, make=loaded.embedded)


spool = spool_group(_data_dir, _say_as, json_option)
users = users_group(_user_file, _say_as, json_option)
