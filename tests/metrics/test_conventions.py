"""Names, units and attributes are as OpenTelemetry's semantic conventions have them, and there are only so many series.

https://opentelemetry.io/docs/specs/semconv/general/naming/ and …/metrics/.
"""

from __future__ import annotations

import re

import pytest

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram
from mtatwist.metrics.instruments.receiving import VALIDATORS
from mtatwist.metrics.instruments.relaying import TRANSPORTS
from mtatwist.metrics.text import prometheus_name
from mtatwist.relay.route import Route
from mtatwist.transports import REGISTRY as REGISTERED_TRANSPORTS
from mtatwist.validators import REGISTRY as REGISTERED_VALIDATORS

ALL = list(Instruments())
NAMES = sorted({one.name for one in ALL})

STANDARD = {"cpu.mode", "error.type", "tls.protocol.version"}
"""Attributes that the conventions define; all others are our own, and begin with our name."""

UNITS = {"s", "By", "d"}
"""UCUM's; what is counted is written in braces."""

SINGULAR = {"dns", "tls", "process", "send_as", "address", "class"}

SERIES = 300


def of(name: str) -> list[Counter | Histogram]:
    return [one for one in ALL if one.name == name]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_lower_case_in_a_namespace_of_ours_or_a_standard_one(name: str) -> None:
    assert re.fullmatch(r"(mtatwist|process)(\.[a-z](_?[a-z0-9])*)+", name)
    words = set(re.split(r"[._]", name))
    assert not words & {"seconds", "ms", "bytes", "octets", "days", "total", "number"}, "units are no part of a name"
    assert not [each for each in NAMES if each.startswith(f"{name}.")], "a name is no namespace"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_counted_is_in_the_plural(name: str) -> None:
    *namespace, last = name.split(".")
    assert not [word for word in namespace if word.endswith("s") and word not in SINGULAR]
    counted = all(type(one) is Counter and one.unit.startswith("{") for one in of(name))
    assert last.endswith("s") == counted


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_one_of_ucum_or_one_thing_in_braces(name: str) -> None:
    (unit,) = {one.unit for one in of(name)}
    assert unit in UNITS or re.fullmatch(r"\{[a-z_]+[a-rt-z]\}|\{process\}", unit), unit


@pytest.mark.parametrize("name", NAMES)
def test_instruments_of_one_name_differ_in_their_attributes_alone(name: str) -> None:
    group = of(name)
    assert len({(type(one), one.description, tuple(one.attributes)) for one in group}) == 1
    assert len({tuple(one.attributes.values()) for one in group}) == len(group)
    assert len({prometheus_name(one) for one in group}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_few_and_their_values_are_words_of_ours(name: str) -> None:
    for one in of(name):
        assert len(one.attributes) <= 2
        for attribute, value in one.attributes.items():
            assert attribute in STANDARD or attribute.startswith("mtatwist.")
            assert re.fullmatch(r"[a-z0-9_.]{1,20}", value)


def test_there_are_only_so_many_series() -> None:
    assert len(ALL) <= SERIES
    buckets = sum(len(one.counts) + 2 for one in ALL if isinstance(one, Histogram))
    assert buckets <= 2 * SERIES


def test_every_metric_of_prometheus_has_a_name_of_its_own() -> None:
    assert len({prometheus_name(of(name)[0]) for name in NAMES}) == len(NAMES)


def test_durations_are_histograms_of_seconds() -> None:
    for one in ALL:
        if one.name.endswith(".duration"):
            assert isinstance(one, Histogram) and one.unit == "s", one.name
        elif one.unit == "s":
            assert isinstance(one, Gauge) or one.name in ("process.cpu.time", "mtatwist.reactor.lag"), one.name


def test_every_validator_of_the_registry_is_counted_by_its_name() -> None:
    """One that is added to the registry is added to VALIDATORS, too."""
    assert (*REGISTERED_VALIDATORS, "other") == VALIDATORS


@pytest.mark.parametrize("transport", REGISTERED_TRANSPORTS)
@pytest.mark.parametrize("next_hop", [None, "next.test:25"])
def test_every_transport_of_the_registry_has_a_class(transport: str, next_hop: str | None) -> None:
    assert Route("*", transport, next_hop).destinations in TRANSPORTS[:-1]
