"""The format of the user file: whatever stands there ends in users or in words on what is wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtatwist.auth import user_file
from mtatwist.auth.prepare import Unprepared, prepare_name
from mtatwist.auth.user_change import UserLines
from mtatwist.auth.user_file import Content, User, UserFileError

LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.text(st.sampled_from("aAé\u0301 :#,@.$\\{}\r\t\u2028\ufeff")).map(str.encode),
        st.from_regex(rb"[a-d]{1,2}:x(:[ab]@[cd](\.e)?(,f@g)?)?\r?", fullmatch=True),
    ),
    max_size=6,
)


def parsed(data: bytes) -> dict[str, User] | None:
    """The users, None where there is something wrong with the file."""
    try:
        return user_file.parse(data, "the file")
    except UserFileError as error:
        assert str(error).startswith("the file:")
        return None


@given(LINES)
def test_any_bytes(lines: list[bytes]) -> None:
    users = parsed(b"\n".join(lines))
    if users is not None:
        assert all(name == user.name and user.hash for name, user in users.items())
        assert len({user.line for user in users.values()}) == len(users)


@given(LINES, st.text(max_size=8), st.lists(st.sampled_from(["a@b", "é@c", '"x y"@d']), max_size=2))
def test_a_user_goes_in_and_out_again(lines: list[bytes], text: str, addresses: list[str]) -> None:
    """All the others stay, and where the name can't stand in the file nothing changes."""
    data = b"\n".join(lines)
    before = parsed(data)
    try:
        name = prepare_name(text)
    except Unprepared:
        return
    if before is None or name in before:
        return
    edited = UserLines(Content("the file", data, before))
    try:
        edited.add(name, "$x", addresses)
    except ValueError:
        assert edited.data == data
        return
    added = parsed(edited.data)
    assert added is not None
    assert added.pop(name).addresses == tuple(addresses)
    assert added == before
    edited.set_hash(name, "$y")
    assert edited.users[name].hash == "$y"
    assert edited.users[name].addresses == tuple(addresses)
    edited.remove(name)
    assert parsed(edited.data) == before
    assert edited.data in (data, data + b"\n")
