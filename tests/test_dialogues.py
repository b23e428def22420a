"""The server says what the dialogues say, however the network cuts up what it hears."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet
from dialogue import Mismatch, check, load_all
from dialogue_servers import open_session

DIALOGUES = load_all()


def _parameter(name: str) -> ParameterSet:
    lacking = DIALOGUES[name].settings.not_yet
    marks = [pytest.mark.xfail(reason=lacking, raises=Mismatch)] if lacking else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_parameter(name) for name in DIALOGUES])
def test_dialogue(name: str) -> None:
    """One dialogue, in every way it can be sent."""
    assert check(DIALOGUES[name], open_session) >= 2


def test_all_are_read() -> None:
    """The directory was found."""
    assert len(DIALOGUES) >= 100
