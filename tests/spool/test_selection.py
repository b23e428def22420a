"""What a pattern means, and that it costs nothing to find out."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.spool.selection import LONGEST, Selection

FEW = st.text("aAb*[?", min_size=1, max_size=6)


@given(FEW, st.text("aAb[?.", max_size=8))
def test_a_pattern_means_the_same_as_in_the_database(pattern: str, name: str) -> None:
    chosen = Selection(next_hop=pattern).domains([name], str)
    said, values = Selection(recipient=pattern).conditions(0.0)
    query = f"SELECT {' AND '.join(said)} FROM (SELECT :name AS address) AS r"
    [(meant,)] = apsw.Connection(":memory:").execute(query, {**values, "name": name})
    assert bool(chosen) == bool(meant)


@pytest.mark.parametrize("pattern", ["*" * (LONGEST - 1) + "x", "*a" * (LONGEST // 2 - 1) + "*x"], ids=["stars", "as"])
def test_a_pattern_of_stars_holds_up_nobody(pattern: str) -> None:
    # A regular expression would not come back: a token that may only look would stop the server for good.
    assert Selection(next_hop=pattern).domains(["a" * 255], str) == []
    assert Selection(next_hop=pattern).domains(["a" * 255 + "x"], str) == ["a" * 255 + "x"]
