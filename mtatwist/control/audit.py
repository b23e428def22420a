"""Who did what: each command of the control socket as one event, whatever became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from mtatwist.control.callers import Caller, Peer
from mtatwist.control.commands import CODES, ControlCommand, ControlError

_log = Logger()

LONGEST = 500
"""Characters of an argument or an answer that are written down."""


def write(
    name: str,
    command: type[ControlCommand] | None,
    arguments: Mapping[str, Any],
    caller: Caller | None,
    peer: Peer,
    answer: Mapping[str, Any],
    failed: ControlError | None,
    seconds: float,
) -> None:
    """``caller`` is None before a good Hello; ``command`` where there is none of that ``name``. Secrets are left out,
    and of the answer all that is more than a word."""
    secrets = frozenset() if command is None else command.secrets
    _log.info(
        "control",
        command=name,
        arguments={
            key: "(hidden)" if key in secrets else _short(value)
            for key, value in arguments.items()
            if value is not None
        },
        uid=peer.uid,
        user=peer.user,
        pid=peer.pid,
        token="" if caller is None else caller.token,
        result="ok" if failed is None else CODES[type(failed)].decode().lower(),
        reason=None if failed is None else _short(str(failed)),
        answer={key: value for key, value in answer.items() if isinstance(value, int) or _is_word(value)},
        seconds=seconds,
    )


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
