"""``mtactl users``: the users of the password file. The server, if it runs, sees a change within a second.

Exit codes: 0, done; 65 (EX_DATAERR), the name or password can't be one; 67 (EX_NOUSER), there is no such user; 73
(EX_CANTCREAT), there is one already; 74 (EX_IOERR) and 77 (EX_NOPERM), the file can't be read or written; 75
(EX_TEMPFAIL), somebody else changes it; 78 (EX_CONFIG), the file or the configuration is broken, or has no such file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import click
from twisted.cred.error import LoginFailed

from mtatwist.auth import hashes, user_file
from mtatwist.auth.prepare import prepare_name, prepare_password
from mtatwist.auth.user_change import Busy, Exists, Missing, UserLines, change
from mtatwist.auth.user_file import User, UserFileError
from mtatwist.store.datadir import sync_directory

#: Prints facts: as words for a person, or as one JSON object.
Say = Callable[[dict[str, Any], str], None]

_LINE = 8192


@dataclass(frozen=True, slots=True)
class UserFile:
    """Where the users are. ``domains``: ours, None where nobody said so. ``make``: its directory may be missing."""

    path: str
    domains: tuple[str, ...] | None = None
    make: bool = False


def users_group(
    configured: Callable[[click.Context, str | None], UserFile],
    say_as: Callable[[click.Context], Say],
    json_option: Callable[[Callable[..., None]], Callable[..., None]],
) -> click.Group:
    """The verbs. ``configured``: what a configuration names; ``say_as``: how to print, as the options have it."""

    @click.group(name="users")
    def group() -> None:
        """Add, remove and list the users of the password file.

        Without --file or --config it is the one of the server that runs without a configuration, ./mtatwist-data/users.
        """

    def options(function: Callable[..., None], name: str | None = None) -> click.Command:
        for option in (
            click.option("--file", "path", metavar="FILE", help="The password file itself."),
            click.option("--config", metavar="FILE", help='The configuration that names it as "auth.file".'),
            json_option,
        ):
            function = option(function)
        return group.command(name)(click.pass_context(function))

    def user_file_of(context: click.Context, path: str | None, config: str | None) -> UserFile:
        if path is not None and config is not None:
            raise click.UsageError("Say either --file FILE or --config FILE.")
        return configured(context, config) if path is None else UserFile(os.path.abspath(path))

    def add(context: click.Context, name: str, address: tuple[str, ...], path: str | None, config: str | None) -> None:
        """Let NAME log in, and send as the addresses given.

        Without any: as NAME, if that is an address, or else as NAME at each domain in "relay.domains". The password is
        asked for; where there is no terminal, it is the first line of standard input.
        """
        say, file, name = say_as(context), user_file_of(context, path, config), _new_name(name)
        addresses = [_address(each) for each in address]
        with _ending(context, say, file.path):
            if name in user_file.read(file.path).users:
                raise Exists
            _have_directory(file)
            made = hashes.make(_password())
            user = _changed(file, lambda lines: lines.add(name, made, addresses), name)
        _told(say, "added", file, user)

    def passwd(context: click.Context, name: str, path: str | None, config: str | None) -> None:
        """Give NAME another password; it is asked for as "add" does."""
        say, file, name = say_as(context), user_file_of(context, path, config), _name(name)
        with _ending(context, say, file.path):
            if name not in user_file.read(file.path).users:
                raise Missing
            made = hashes.make(_password())
            user = _changed(file, lambda lines: lines.set_hash(name, made), name)
        _told(say, "changed", file, user)

    def remove(context: click.Context, name: str, path: str | None, config: str | None) -> None:
        """Let NAME log in no more. A session in which NAME has logged in already goes on to its end."""
        say, file, name = say_as(context), user_file_of(context, path, config), _name(name)
        with _ending(context, say, file.path):
            if name not in user_file.read(file.path).users:
                raise Missing
            change(file.path, lambda lines: lines.remove(name))
        say({"level": "removed", "user": name, "file": file.path}, f"{file.path}: removed {name}")

    def list_users(context: click.Context, path: str | None, config: str | None) -> None:
        """Print who can log in, with which kind of hash, and what they may send as."""
        say, file = say_as(context), user_file_of(context, path, config)
        with _ending(context, say, file.path):
            if not os.path.exists(file.path):
                click.echo(f"{file.path}: there is no such file, and so there are no users", err=True)
            for user in user_file.read(file.path).users.values():
                say(*_line(user, file))

    several = "An address to send as; may be given several times."
    click.option("--address", multiple=True, metavar="ADDRESS", help=several)(add)
    verbs: tuple[Callable[..., None], ...] = (add, passwd, remove)
    for verb in verbs:
        click.argument("name")(verb)
        options(verb)
    options(list_users, "list")
    return group


class _BadPassword(Exception):
    """It can't be a password; the message says why."""


def _name(text: str) -> str:
    try:
        return prepare_name(text)
    except LoginFailed as error:
        raise click.BadParameter(f"{error}.", param_hint="NAME") from None


def _new_name(text: str) -> str:
    name = _name(text)
    if ":" in name or name.startswith("#"):
        raise click.BadParameter("the name has a colon, or begins with #: the file can't have that.", param_hint="NAME")
    return name


def _address(text: str) -> str:
    try:
        return user_file.address(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--address") from None


def _password() -> str:
    """Ask for it twice, or read it where nobody can be asked. Raises _BadPassword."""
    text: str | bytes
    if sys.stdin is None:
        text = b""
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    else:
        text = sys.stdin.buffer.readline(_LINE).rstrip(b"\r\n")
    try:
        return prepare_password(text)
    except LoginFailed as error:
        raise _BadPassword(f"{error}; give it on standard input, or run this in a terminal") from None


def _changed(file: UserFile, edit: Callable[[UserLines], None], name: str) -> User:
    """Change the file; gives what then stands there of the user."""
    kept: list[User] = []

    def both(lines: UserLines) -> None:
        edit(lines)
        kept.append(lines.users[name])

    change(file.path, both)
    return kept[0]


def _have_directory(file: UserFile) -> None:
    """Before anybody is asked for a password in vain. Raises FileNotFoundError."""
    directory = os.path.dirname(file.path)
    if file.make and not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        sync_directory(os.path.dirname(directory))
    os.stat(directory)


@contextlib.contextmanager
def _ending(context: click.Context, say: Say, path: str) -> Iterator[None]:
    """What goes wrong ends the command with a word on it, and its exit code."""

    def fail(code: int, reason: str) -> NoReturn:
        where = "" if reason.startswith(path) else f"{path}: "
        say({"level": "error", "file": path, "reason": reason}, f"{where}{reason}")
        context.exit(code)
        raise AssertionError

    try:
        yield
    except UserFileError as error:
        fail(os.EX_NOPERM if error.forbidden else os.EX_CONFIG, str(error))
    except Exists:
        fail(os.EX_CANTCREAT, 'there is such a user already: "mtactl users passwd" gives another password')
    except Missing:
        fail(os.EX_NOUSER, 'there is no such user: "mtactl users list" prints who there is')
    except (_BadPassword, ValueError) as error:
        fail(os.EX_DATAERR, str(error))
    except Busy as error:
        fail(os.EX_TEMPFAIL, str(error))
    except FileNotFoundError:
        fail(
            os.EX_IOERR,
            "its directory is missing: make it, for the user that the server runs as, or start the server once",
        )
    except PermissionError as error:
        fail(os.EX_NOPERM, f"{error.strerror}")
    except OSError as error:
        fail(os.EX_IOERR, f"{error.strerror}: nothing was changed")


def _line(user: User, file: UserFile) -> tuple[dict[str, Any], str]:
    """What to say of a user."""
    addresses = sorted(user.account(file.domains or ()).addresses)
    fault = user.fault
    scheme = "" if fault else hashes.scheme(user.hash)
    facts = {"user": user.name, "scheme": scheme, "addresses": addresses, "fault": fault}
    return facts, "  ".join([user.name, scheme or f"({fault})", *addresses])


def _told(say: Say, done: str, file: UserFile, user: User) -> None:
    facts, _ = _line(user, file)
    words = f"{file.path}: {done} {user.name}"
    if facts["addresses"]:
        words += f", who may send as {', '.join(facts['addresses'])}"
    say({"level": done, "file": file.path, **facts}, words)
