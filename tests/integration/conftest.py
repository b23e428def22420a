"""Fixtures for tests with real processes: every server's log is read when its test ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rigs.mta import Config, Mta
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

#: tox -e campaign sets this: more kills, more messages.
LONG = os.environ.get("MTATWIST_CAMPAIGN") == "long"


@pytest.fixture
def long_campaign() -> bool:
    """Is this the long run?"""
    return LONG


@pytest.fixture
def make_mta(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeMta]:
    """Make an (unstarted) server; at the end it is stopped, and its log must hold no traceback."""
    made: list[Mta] = []
    forked = request.node.get_closest_marker("fresh_start") is None

    def make(config: Config, **options: object) -> Mta:
        directory = tmp_path / f"mta{len(made)}"
        directory.mkdir()
        made.append(Mta(directory, config, forked=forked, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for mta in made:
        mta.__exit__(None, None, None)
    complaints = [line for mta in made for line in mta.complaints()]
    assert not complaints, "\n".join(complaints[:20])


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A next hop that takes everything, until its ``policy`` is set."""
    with Sink() as it:
        yield it
