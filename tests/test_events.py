"""docs/logs.rst names every event that the server can log, with its levels and its fields, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from events import events

from mtatwist import redaction
from mtatwist.control.commands import CODES, ControlCommand

PAGE = Path(__file__).resolve().parents[1] / "docs" / "logs.rst"
ENTRY = re.compile(r"^``(\w+)`` \(([a-z, ]+)\)\n((?: {4}.*\n)+)", re.MULTILINE)
HOW = 'Write it into docs/logs.rst like the others: "``name`` (level)", and what it means and has, indented by four.'


def described() -> dict[str, tuple[set[str], set[str]]]:
    """By name: levels, and all that stands in double backquotes."""
    found = ENTRY.findall(PAGE.read_text("utf-8"))
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    return {name: (set(levels.split(", ")), set(re.findall(r"``(\w+)``", text))) for name, levels, text in found}


def test_every_event_is_described_and_no_other() -> None:
    there = {event.name: event.where for event in events()}
    missing = {name: where for name, where in there.items() if name not in described()}
    assert not missing, HOW
    assert not set(described()) - set(there)


def test_every_level_and_field_is_described() -> None:
    descriptions, wrong = described(), []
    levels: dict[str, set[str]] = {}
    for event in events():
        levels.setdefault(event.name, set()).update(event.levels)
        missing = event.fields - descriptions.get(event.name, (set(), set()))[1]
        if missing:
            wrong.append(f"{event.where}: {event.name} has {sorted(missing)}, which docs/logs.rst does not say")
    assert not wrong, "\n".join(wrong)
    assert {name: there for name, (there, _) in descriptions.items()} == levels


NOBODYS = frozenset(
    re.findall(
        r"\w+",
        """
        about accepted action active ahead answer arguments attempts by certificate changed check code command
        count cure days_left delay deliveries deliveries_configured domain endpoint enhanced error expires
        failures file finished free health host id kept_for_ballast key kind limit line lines listen looked_at
        messages name names needed next_hop number octets path pid protocol reason recipients refused reply
        restart result retry_in role seconds selection sent serial server session sessions sessions_configured
        setting signature_broken size text then tls token trouble type uid users validator value values
        version waiting wanted warning why
        """,
    )
)
"""Fields that are not about people as a whole. In their texts people are found all the same; see mtatwist.redaction."""


def test_it_is_decided_of_every_field_whether_it_is_about_people() -> None:
    there = {field: event.where for event in events() for field in event.fields}
    assert not NOBODYS & redaction.FIELDS
    undecided = {field: where for field, where in there.items() if field not in NOBODYS | redaction.FIELDS}
    assert not undecided, "Put each into redaction.FIELDS if it names people, else into NOBODYS."
    assert not NOBODYS - set(there)


def test_there_is_something_to_find() -> None:
    found = list(events())
    assert {"accepted", "delivered", "spool_trouble", "session_ended"} <= {event.name for event in found}
    assert any(event.more for event in found)


def test_every_control_command_and_every_result_is_described() -> None:
    """Whoever reads the log finds which verb it was, and what came of it."""
    rows = set(re.findall(r"^``(\w+)``  ", PAGE.read_text("utf-8"), re.MULTILINE))
    commands = {
        each.__name__ for each in ControlCommand.__subclasses__() if each.__module__ == ControlCommand.__module__
    }
    assert rows == commands | {code.decode().lower() for code in CODES.values()} | {"ok"}
