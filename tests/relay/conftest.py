"""What a test of the relay leaves waiting ends with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from relay.fakes import Rig


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Stop its rigs: the garbage collector would end them in the middle of another test, or at the very end, and say
    so."""
    yield
    for rig in Rig.started:
        if rig.manager.running:
            done = rig.stopping()
            rig.pass_time(rig.grace)
            assert done
    Rig.started.clear()
