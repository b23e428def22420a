"""Keys of which one is of no use without the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtatwist.schema.checks import Report


def check_pair(table: object, path: str, one: str, other: str, report: Report) -> None:
    """Are both keys of the table at ``path`` there, or neither?"""
    for here, there in ((one, other), (other, one)):
        if getattr(table, here) is None and getattr(table, there) is not None:
            report.problem(f"{path}.{here}", f"is missing, but {path}.{there} is there: write both or neither")
