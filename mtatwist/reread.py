"""The configuration, read again for a server that runs: what has changed, and what of that takes a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from mtatwist.config import Config, ConfigError, Document, Problem, load
from mtatwist.schema.change import differences, keep, takes_restart


class Reading(NamedTuple):
    """What a running server makes of its file.

    :ivar config: what holds from now on; of the keys that take a restart it has the values that the server runs with.
    :ivar changed: the paths of keys that are different in it from before.
    :ivar restart: the paths of keys that are different in the file, and take a restart.
    """

    config: Config
    changed: tuple[str, ...]
    restart: tuple[str, ...]


def read_again(
    path: str | os.PathLike[str] | None,
    running: Config,
    *,
    data_dir: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Reading:
    """Read the file for a server that runs with ``running``; the rest: see :func:`mtatwist.config.load`.

    :raises ConfigError: also when what takes a restart and what does not only go together after one.
    """
    if path is None:
        config = load(None, data_dir=data_dir, environ=environ)
        return Reading(config, differences(running, config), ())
    document = Document(path, data_dir, environ)
    config = document.config()
    restart = tuple(filter(takes_restart, differences(running, config)))
    if restart:
        keep(document.tables, running)
        try:
            config = document.config()
        except ConfigError as error:
            why = "takes a restart, and the rest of the file only goes with it"
            raise ConfigError([Problem(document.file, each, why) for each in restart] + list(error.problems)) from None
    return Reading(config, differences(running, config), restart)
