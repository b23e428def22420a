"""Replies: what a peer said, taken apart and put on the wire again."""

from __future__ import annotations

import pytest

from mtatwist.smtp.reply import Reply, split_enhanced


@pytest.mark.parametrize(
    ("code", "text", "reply"),
    [
        (250, "2.1.0 Ok", Reply(250, "2.1.0", "Ok")),
        (250, "Ok", Reply(250, "", "Ok")),
        (250, "2.1.0", Reply(250, "2.1.0", "")),
        (451, "2.1.0 of another class", Reply(451, "", "2.1.0 of another class")),
        (550, "5.7.1 one\n5.7.1 two", Reply(550, "5.7.1", "one\ntwo")),
        (250, "mx.example\nSIZE 10\nPIPELINING", Reply(250, "", "mx.example\nSIZE 10\nPIPELINING")),
        (250, "2.0.0 mx.example\nSIZE 10", Reply(250, "2.0.0", "mx.example\nSIZE 10")),
        (250, "a\rb\x00c", Reply(250, "", "a b c")),
    ],
)
def test_the_enhanced_code_is_parted_off(code: int, text: str, reply: Reply) -> None:
    assert split_enhanced(code, text) == reply


def test_each_line_of_a_reply_has_its_codes() -> None:
    assert Reply(550, "5.7.1", "one\ntwo").encode() == b"550-5.7.1 one\r\n550 5.7.1 two\r\n"
    assert Reply(354, "", "go").encode() == b"354 go\r\n"
