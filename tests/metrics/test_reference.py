"""The manual's page of metrics is the one that the instruments make."""

from __future__ import annotations

from pathlib import Path

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.reference import rst

PAGE = Path(__file__).parents[2] / "docs" / "metrics.rst"


def test_the_page_is_up_to_date() -> None:
    """If not: python -m mtatwist.metrics.reference > docs/metrics.rst"""
    assert PAGE.read_text("utf-8") == rst()


def test_every_metric_is_on_it_once() -> None:
    lines = rst().splitlines()
    for name in {one.name for one in Instruments()}:
        assert lines.count(f"``{name}``") == 1
