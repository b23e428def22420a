"""Every metric that the manual or an alert names is one that there is, with its attributes and their values."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Histogram
from mtatwist.metrics.text import prometheus_name

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "conf" / "prometheus-alerts.yml"
PAGES = sorted(page.name for page in (ROOT / "docs").glob("*.rst") if page.name != "metrics.rst")
"""All that people write."""

ALL = list(Instruments())
ATTRIBUTES = {attribute for one in ALL for attribute in one.attributes}


def label(attribute: str) -> str:
    """What Prometheus calls it."""
    return attribute.replace(".", "_")


def series() -> Iterator[tuple[str, Counter | Histogram]]:
    """What Prometheus has, by name."""
    for one in ALL:
        name = prometheus_name(one)
        if isinstance(one, Histogram):
            yield from ((f"{name}_{end}", one) for end in ("bucket", "sum", "count"))
        yield name, one


SERIES: dict[str, list[Counter | Histogram]] = {}
for _name, _one in series():
    SERIES.setdefault(_name, []).append(_one)


def is_file(name: str) -> bool:
    return name.endswith((".toml", ".service", ".socket", ".py"))


def is_python(name: str) -> bool:
    """Is this the name of a module of ours, or of something in it?"""
    module, _, last = name.rpartition(".")
    for found in (name, module):
        try:
            imported = importlib.import_module(found)
        except ImportError:
            continue
        return found == name or hasattr(imported, last)
    return False


@pytest.mark.parametrize("page", PAGES)
def test_the_manual_names_what_there_is(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    named = {name for name in re.findall(r"``((?:mtatwist|process)(?:\.[a-z0-9_]+)+)``", text) if not is_file(name)}
    unknown = named - {one.name for one in ALL} - ATTRIBUTES
    assert not {name for name in unknown if not is_python(name)}
    if page == "monitoring.rst":
        assert not unknown, "here is no talk of modules"


def words(text: str) -> set[str]:
    """What looks like a series, or a label of ours."""
    return set(re.findall(r"\b(?:mtatwist|process)_[a-z0-9_]+\b", text))


@pytest.mark.parametrize("file", ["conf/prometheus-alerts.yml", "docs/monitoring.rst"])
def test_names_at_prometheus_are_those_of_series_and_labels(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert words(text)
    assert not words(text) - set(SERIES) - {label(attribute) for attribute in ATTRIBUTES}


def test_alerts_ask_for_labels_and_values_that_there_are() -> None:
    asked = re.findall(r"(\w+)\{([^}]*)\}", ALERTS.read_text("utf-8"))
    assert len(asked) > 5
    for name, matchers in asked:
        for attribute, values in re.findall(r'(\w+)(?:=~|!=|=)"([^"]*)"', matchers):
            if attribute != "job":
                found = {
                    value for one in SERIES[name] for key, value in one.attributes.items() if label(key) == attribute
                }
                assert set(values.split("|")) <= found, f"{name}{{{matchers}}}"


def test_every_alert_is_in_the_manual_and_every_alert_of_the_manual_is_there() -> None:
    page = (ROOT / "docs" / "monitoring.rst").read_text("utf-8")
    assert set(re.findall(r"alert: (\w+)", ALERTS.read_text("utf-8"))) == set(re.findall(r"``(Mtatwist\w+)``", page))
