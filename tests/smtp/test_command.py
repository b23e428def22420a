"""Command lines that name a path: what is remembered of them makes no difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.smtp.address import Address, AddressError, parse_path
from mtatwist.smtp.command import CommandError, _path, parse_parameters, parse_path_command

PIECES = ("<", ">", " ", "a", "b", "@", ".", '"', "\\", ":", "SIZE=1", "X=>", "é", "postmaster")
RESTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def plainly(rest: str) -> tuple[Address, dict[str, str]] | None:
    """The same, read in one piece."""
    try:
        address, parameters = parse_path(rest.rstrip(" "))
        return address, parse_parameters(parameters)
    except (AddressError, CommandError):
        return None


@given(RESTS)
def test_a_line_means_what_it_says_as_a_whole(rest: str) -> None:
    try:
        found = parse_path_command("TO:", "TO:" + rest)
    except CommandError:
        found = None
    assert found == plainly(rest)


@pytest.mark.parametrize("address", ["<a@b.test>", '<"a> b"@b.test>', "<>", "a@b.test"])
def test_parameters_are_those_of_this_command(address: str) -> None:
    first, second = (parse_path_command("FROM:", f"FROM:{address} SIZE={size}") for size in (1, 2))
    assert first[0] == second[0]
    assert (first[1], second[1]) == ({"SIZE": "1"}, {"SIZE": "2"})
    first[1]["SIZE"] = "3"
    assert parse_path_command("FROM:", f"FROM:{address} SIZE=1")[1] == {"SIZE": "1"}


def test_a_path_is_remembered_whatever_parameters_follow() -> None:
    _path.cache_clear()
    for size in range(5):
        parse_path_command("FROM:", f"FROM:<a@b.test> SIZE={size}")
    assert _path.cache_info().misses == 1
