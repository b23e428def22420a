"""Whatever is said around AUTH, only who knows the password gets in, and the server is not confused."""

from __future__ import annotations

import base64

from dialogue import Settings
from dialogue_servers import OurServer
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


#: None of these, in any order, is alice's name with her password, or that of anybody else.
NAMES = ["alice", "bob", "", "*"]
WRONG = ["wrong", "", "alice", "secre", "secret "]
LINES = [
    "EHLO client.test",
    "HELO client.test",
    "AUTH",
    "AUTH PLAIN",
    "AUTH LOGIN",
    "AUTH LOGIN =",
    "AUTH CRAM-MD5",
    "*",
    "=",
    "",
    "RSET",
    "MAIL FROM:<alice@example.org>",
    "RCPT TO:<bob@example.com>",
    *(f"AUTH LOGIN {encoded(name)}" for name in NAMES),
    *(encoded(word) for word in (*NAMES, *WRONG)),
    *(
        f"AUTH PLAIN {encoded(f'{identity}%0{name}%0{word}'.replace('%0', chr(0)))}"
        for identity in ("", "alice", "bob")
        for name in NAMES
        for word in WRONG
    ),
    *(encoded(f"{chr(0)}{name}{chr(0)}{word}") for name in NAMES for word in WRONG),
]


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=30)), max_size=12),
    st.sampled_from(["implicit", "none"]),
    st.sampled_from(["works", "slow"]),
    st.integers(1, 40),
)
def test_nobody_gets_in(lines: list[str | bytes], tls: str, checker: str, size: int) -> None:
    server = OurServer(Settings(role="submission", tls=tls, checker=checker, require_tls=tls != "none", failures=50))
    wire = server.connect()
    said = b"".join(b"".join([line.encode() if isinstance(line, str) else line, b"\r\n"]) for line in lines)
    with capturedLogs() as events:
        for start in range(0, len(said), size):
            if wire.closing:
                break
            wire.protocol.dataReceived(said[start : start + size])
            while server.pending:
                server.pending.popleft().callback(None)
    assert wire.protocol.session.user == ""
    assert b"235" not in wire.written
    assert b"354" not in wire.written
    assert not [event for event in events if event["log_format"] in ("session_crashed", "checker_crashed", None)]
    assert wire.written.count(b"334") <= said.count(b"\r\n")


@given(st.lists(st.sampled_from([line for line in LINES if not line.startswith("MAIL")]), max_size=6))
def test_who_knows_the_password_gets_in_after_all(lines: list[str]) -> None:
    """Nothing that was said before is in the way, once it is over."""
    server = OurServer(Settings(role="submission", tls="implicit", failures=50, errors=50))
    wire = server.connect()
    for line in (*lines, "*", "EHLO client.test", f"AUTH PLAIN {encoded(chr(0) + 'alice' + chr(0) + 'secret')}"):
        wire.protocol.dataReceived(line.encode() + b"\r\n")
    assert wire.written.endswith(b"235 2.7.0 Authentication succeeded\r\n")
    assert wire.protocol.session.user == "alice"
