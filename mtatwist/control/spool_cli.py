"""``mtactl spool``: look at, save and mend a spool that no server uses.

Exit codes: 0, all is well; 65 (EX_DATAERR), something is damaged or lost; 66 (EX_NOINPUT), there is no spool; 74
(EX_IOERR), the disk gives errors; 75 (EX_TEMPFAIL), a server uses it; 78 (EX_CONFIG), a newer mtatwist has written it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import apsw
import click

from mtatwist.spool import check, examine
from mtatwist.spool.export import export as export_messages
from mtatwist.spool.recover import finish
from mtatwist.spool.recover import recover as recover_spool
from mtatwist.spool.salvage import Findings
from mtatwist.spool.schema import SchemaTooNew
from mtatwist.store.datadir import DataDir, DataDirError
from mtatwist.store.trouble import Trouble, trouble_of

#: Prints facts: as words for a person, or as one JSON object.
Say = Callable[[dict[str, Any], str], None]


def spool_group(
    data_dir_of: Callable[[click.Context, str], str],
    say_as: Callable[[click.Context], Say],
    json_option: Callable[[Callable[..., None]], Callable[..., None]],
) -> click.Group:
    """The verbs. ``data_dir_of``: what a configuration file names; ``say_as``: how to print, as the options have it."""

    @click.group(name="spool")
    def group() -> None:
        """Verify, export and recover the spool of a server that is stopped."""

    def options(function: Callable[..., None]) -> click.Command:
        for option in (
            click.option("--config", metavar="FILE", help="The configuration that names the data directory."),
            click.option("--data-dir", metavar="DIR", help="The data directory itself."),
            json_option,
        ):
            function = option(function)
        return group.command()(click.pass_context(function))

    def directory(context: click.Context, data_dir: str | None, config: str | None) -> Path:
        if (data_dir is None) == (config is None):
            raise click.UsageError("Say either --data-dir DIR or --config FILE.")
        return Path(data_dir if data_dir is not None else data_dir_of(context, str(config)))

    def verify(context: click.Context, data_dir: str | None, config: str | None) -> None:
        """Say everything that is wrong with the spool, and change nothing.

        It reads all of it. The exit code is 65 when something is wrong.
        """
        say = say_as(context)
        with _held(context, say, directory(context, data_dir, config)) as path:
            _verify(context, say, path)

    def recover(context: click.Context, data_dir: str | None, config: str | None) -> None:
        """Make a new database of all that can be read of a damaged one.

        The damaged one stays beside it, and what was lost is named. The exit code is 65 when something was. Run
        "mtactl spool export" first: it saves parts of messages, too.
        """
        say = say_as(context)
        with _held(context, say, directory(context, data_dir, config)) as path:
            now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            if (path / check.RECOVERED).exists():
                findings = Findings(notes=["a recovery that was not finished is finished now", *finish(path, now)])
            elif not _problems(path):
                say({"level": "ok", "data_dir": str(path)}, f"{path}: nothing is damaged, and nothing was changed")
                return
            else:
                findings = recover_spool(path, now)
            _tell(context, say, path, findings, "recovered")

    def export(context: click.Context, to: str, data_dir: str | None, config: str | None) -> None:
        """Write every message that can be read into the directory TO, and change nothing in the spool.

        ID.eml is the message, octet for octet; ID.json says who it is from, who it is for and what became of that.
        Files that exist are left as they are; messages that are already there count apart. The exit code is 65 when
        something could not be written.
        """
        say = say_as(context)
        with _held(context, say, directory(context, data_dir, config)) as path:
            _tell(context, say, path, export_messages(path, Path(to)), "exported")

    options(verify)
    options(recover)
    click.argument("to", type=click.Path())(options(export))
    return group


@contextlib.contextmanager
def _held(context: click.Context, say: Say, path: Path) -> Iterator[Path]:
    """Hold the directory's lock; what goes wrong ends the command with a word on it."""

    def fail(code: int, reason: str) -> NoReturn:
        say({"level": "error", "data_dir": str(path), "reason": reason}, f"{path}: {reason}")
        context.exit(code)
        raise AssertionError

    if not any((path / name).exists() for name in ("spool.sqlite", "spool.sqlite-wal", check.RECOVERED)):
        fail(os.EX_NOINPUT, "there is no spool")
    lock = DataDir(path)
    try:
        lock.acquire()
    except DataDirError as error:
        fail(os.EX_TEMPFAIL, str(error))
    try:
        yield path
    except SchemaTooNew as error:
        fail(os.EX_CONFIG, str(error))
    except (apsw.Error, OSError) as error:
        fail(os.EX_DATAERR if trouble_of(error) is Trouble.CORRUPT else os.EX_IOERR, str(error))
    finally:
        lock.release()


def _problems(path: Path) -> list[str]:
    """All that is wrong."""
    try:
        check.files(path)
        with contextlib.closing(examine.read_only(path / "spool.sqlite")) as connection:
            return list(examine.problems(connection, path))
    except Exception as error:
        if trouble_of(error) is not Trouble.CORRUPT:
            raise
        return [str(error)]


def _verify(context: click.Context, say: Say, path: Path) -> None:
    problems = _problems(path)
    for problem in problems:
        say({"level": "problem", "reason": problem}, problem)
    if problems:
        say(
            {"level": "damaged", "data_dir": str(path), "problems": len(problems)},
            f'{path}: damaged. Save what can be read with "mtactl spool export", then run "mtactl spool recover"',
        )
        context.exit(os.EX_DATAERR)
    with contextlib.closing(examine.read_only(path / "spool.sqlite")) as connection:
        counts, unused = examine.counts(connection), len(examine.orphans(connection, path))
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "messages")
    if unused:
        words += f"; {unused} body files that no message needs, which the next start deletes"
    say({"level": "ok", "data_dir": str(path), **counts, "unused_files": unused}, f"{path}: ok: {words}")


def _tell(context: click.Context, say: Say, path: Path, findings: Findings, done: str) -> None:
    for loss in findings.lost:
        say({"level": "lost", "reason": loss}, f"lost: {loss}")
    for note in findings.notes:
        say({"level": "note", "reason": note}, note)
    there = findings.already_there
    say(
        {
            "level": done,
            "data_dir": str(path),
            "messages": findings.messages,
            "recipients": findings.recipients,
            "already_there": there,
            "lost": len(findings.lost),
        },
        f"{path}: {done} {findings.messages} messages with {findings.recipients} recipients"
        + (f"; {there} more are already there" if there else ""),
    )
    if findings.lost:
        context.exit(os.EX_DATAERR)
