"""``mtactl queue``: hold, release, retry, bounce and drop what waits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from mtatwist.control import queue_words as words
from mtatwist.control.client import Client
from mtatwist.control.commands import NotFound, QueueChange
from mtatwist.control.live import complain, json_option, say, server
from mtatwist.control.queue_selectors import SELECTING, known_id, selection, selectors, selects

_ACTIONS = {
    "hold": ("held", "is pending or deferred", "Keep recipients from being tried, until they are released."),
    "release": ("released", "is held", "Have held recipients tried again, at once."),
    "retry": (
        "tried at once",
        'is pending or deferred; what is held waits for "mtactl queue release"',
        "Have those tried at once that wait for their next attempt, even where their next hop was to be left alone.",
    ),
    "bounce": ("bounced", "waits", "Give recipients up, and tell the sender in a DSN."),
    "drop": ("dropped", "waits", "Give recipients up, and tell nobody."),
}
"""What becomes of the recipients, what none of them is where there is nothing to do, and the help."""

_REASON = click.option("--reason", metavar="TEXT", help="Why: for the log, and for the DSN of a bounce.")


def _verb(action: str) -> click.Command:
    def change(ids: Sequence[str], everything: bool, dry_run: bool, reason: str | None = None, **selected: Any) -> None:
        asked = selection(selected)
        if asked["id"] is not None:
            ids = [*ids, asked["id"]]
        if everything and (ids or selects(asked)):
            raise click.UsageError("--everything leaves nothing to select: give it, or what is meant, but not both.")
        if not (everything or ids or selects(asked)):
            raise click.UsageError(
                "Which recipients? Give message ids or selectors, such as --domain, or --everything to"
                f" {action} them all."
            )
        if reason is not None and not reason.isprintable():
            raise click.UsageError("--reason: a reason is one line, without control characters.")
        asked.update(everything=everything, dry_run=dry_run, reason=reason)
        with server() as client:
            _change(client, action, list(dict.fromkeys(ids)), asked)

    made: Any = json_option(change)
    made = click.option("--dry-run", is_flag=True, help="Change nothing: only say how many it would be.")(made)
    if action in ("hold", "bounce", "drop"):
        made = _REASON(made)
    made = click.option("--everything", is_flag=True, help="All recipients of all messages.")(made)
    made = click.argument("ids", nargs=-1, type=known_id, metavar="[ID]...")(selectors(made))
    return click.command(action, help=_ACTIONS[action][2], epilog=SELECTING)(made)


VERBS = tuple(_verb(action) for action in _ACTIONS)


def _change(client: Client, action: str, ids: Sequence[str], asked: dict[str, Any]) -> None:
    """Do it to these messages, or to whatever is selected, to the end; and say how many that were."""
    totals = Counter(messages=0, recipients=0, active=0)
    missing = 0
    finished = False
    try:
        for id in ids or (None,):
            try:
                for page in client.rows(QueueChange, action=action, **{**asked, "id": id}):
                    totals.update({name: page[name] for name in totals})
            except NotFound as error:
                if len(ids) == 1:
                    raise
                missing += 1
                complain({"id": id, "reason": str(error)}, f"mtactl: {error}")
        finished = True
    finally:
        # Whatever ended it: what was done is done.
        if finished or any(totals.values()):
            _say_totals(action, totals, asked["dry_run"], finished)
    if missing:
        click.get_current_context().exit(os.EX_NOINPUT)


def _say_totals(action: str, totals: Counter[str], dry_run: bool, finished: bool) -> None:
    messages = words.count(totals["messages"], "message")
    recipients = words.count(totals["recipients"], "recipient")
    become = "would be" if dry_run else _are(totals["recipients"])
    if action == "retry" and not dry_run:
        # That goes on behind our back.
        become += " to be"
    told = f"{recipients} of {messages} {become} {_ACTIONS[action][0]}"
    if finished and not any(totals.values()):
        told = f"nothing to {action}: no recipient that is meant {_ACTIONS[action][1]}"
    if totals["active"]:
        active = words.count(totals["active"], "more recipient")
        told += f"; {active} {_are(totals['active'])} being delivered right now: run it again"
    if not finished:
        told += "; that was not all"
    say(
        {"level": "ok" if finished else "unfinished", "action": action, "dry_run": dry_run, **totals},
        told,
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
