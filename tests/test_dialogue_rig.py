"""The rig itself: it notices when a server is wrong, and twisted.mail's own ESMTP is, row by row of the design."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from dialogue import (
    DIALOGUES,
    BadDialogue,
    Dialogue,
    Mismatch,
    Settings,
    Stored,
    check,
    load_all,
    lockstep,
    offsets,
    parse,
    unescape,
)
from dialogue_servers import OurServer, open_parent, open_session

from mtatwist.smtp import data as smtp_data

ALL = load_all()


def changed(name: str, old: str, new: str) -> Dialogue:
    """A dialogue with its text changed in one place."""
    text = (DIALOGUES / f"{name}.txt").read_text()
    assert old in text
    return parse(name, text.replace(old, new, 1))


# --- What the rig must notice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("S: 354", "S: 353", "expected '353 ...'"),
        ("S: 250 2.1.5", "S: 250 2.1.0", "expected '250 2.1.0 ...'"),
        ("S: 221 2.0.0 ...\n", "", "the server went on"),
        ("S: 221 2.0.0 ...", "S: 221 2.0.0 ...\nS: 221 2.0.0 ...", "the server said 'nothing'"),
        ("CLOSED\n", "", "closed"),
        ("S: 354 ...", "S: 354 ...\nCLOSED", "not closed"),
        ("B: Hello, Bob.", "B: Hello, bob.", "expected in the spool"),
        ("SPOOLED: from <alice@", "SPOOLED: from <malice@", "expected in the spool"),
        ("to <bob@example.org>", "to <bob@example.org> <carol@example.org>", "expected in the spool"),
        ("protocol=SMTP", "protocol=ESMTP", "expected in the spool"),
    ],
)
def test_a_wrong_expectation(old: str, new: str, complaint: str) -> None:
    """What the server does not do can't be expected."""
    with pytest.raises(Mismatch, match=re.escape(complaint)):
        lockstep(changed("helo", old, new), open_session)


@pytest.mark.parametrize("change", [lambda spooled: spooled[:1], lambda spooled: spooled * 2, lambda spooled: []])
def test_the_number_of_messages(change: Callable[[list[Stored]], list[Stored]]) -> None:
    """A message too many or too few is noticed."""
    dialogue = ALL["pipelined-everything"]
    with pytest.raises(Mismatch, match="2 messages in the spool"):
        lockstep(replace(dialogue, spooled=change(dialogue.spooled)), open_session)


class Meddler(OurServer):
    """A server whose spool gives back another body than it got."""

    def stored(self) -> list[Stored]:
        """What is stored, a little changed."""
        return [replace(message, body=message.body.replace(b"\r\n", b"\n")) for message in super().stored()]


def test_a_changed_body() -> None:
    """A body that is not the one that was sent is noticed."""
    with pytest.raises(Mismatch, match="expected in the spool"):
        lockstep(ALL["helo"], Meddler)


class EndsAtLineFeed(smtp_data.DotReader):
    """The smuggler's friend: LF.LF ends the data, too."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The same as the true one, behind a well-meaning repair."""
        body, rest = super().feed(re.sub(rb"(?<!\r)\n", b"\r\n", data))
        return body, rest


def test_data_ending_at_line_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """LF.LF as the end of the data is noticed, and the smuggled message is in the spool to prove it."""
    dialogue = ALL["data-bare-lf-dot-lf"]
    check(dialogue, open_session)
    replace_everywhere(monkeypatch, EndsAtLineFeed)
    with pytest.raises(Mismatch, match=r"expected '550 5\.5\.2 \.\.\.', the server said '250"):
        lockstep(dialogue, open_session)


class Forgetful(smtp_data.DotReader):
    """Right as long as no chunk ends inside CRLF.CRLF or before a stuffed dot."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Hold nothing back."""
        body, rest = super().feed(data)
        if rest is None and self._held != data:
            body, self._held = body + self._held, b""
        return body, rest


def test_what_only_a_split_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is wrong at the chunks' borders passes in lockstep, and is noticed by the other replays."""
    dialogue = ALL["helo"]
    replace_everywhere(monkeypatch, Forgetful)
    lockstep(dialogue, open_session)
    with pytest.raises(Mismatch, match=r"line by line|byte by byte|split at"):
        check(dialogue, open_session)


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, reader: type[smtp_data.DotReader]) -> None:
    """Put ``reader`` in DotReader's place, in every module that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mtatwist.") and getattr(module, "DotReader", None) is reader.__base__:
            monkeypatch.setattr(module, "DotReader", reader)


# --- twisted.mail as it comes ----------------------------------------------------------------------------------

PARENT_CAN = [
    "helo",
    "ehlo",
    "two-transactions",
    "null-sender",
    "data-8bit",
    "hops-enough",
    "pipelined-after-quit",
    "recipients-all-refused",
    "recipients-subdomain",
    "submission-mail",
    "timeout-greeting",
    "auth-login",
    "auth-login-initial",
    "auth-plain-continued",
    "auth-again",
]

# The design's table of what is hardened: for each row, the dialogues that show it, and what the parent does there.
HARDENED = {
    "plaintext behind STARTTLS is run, HELO survives": {
        "starttls-buffered": "expected ['5'], the server said ['220', '250', '250']",
        "starttls-buffered-byte": "expected ['5'], the server said ['220']",
        "starttls": "expected ['503'], the server said ['354']",
    },
    "answers out of order while a Deferred is pending": {
        "validator-slow": "the server said ['503', '500', '503'",
        "validator-slow-flood": "the server said ['503', '503'",
    },
    "a line over 16 KiB in DATA drops back to commands": {
        "data-line-over-16k": "expected ['250'], the server said ['500'",
        "data-line-100k": "expected ['250'], the server said ['500'",
        "data-line-over-limit": "expected ['552'], the server said ['500'",
    },
    "bare CR and LF pass through": {
        **{name: "expected ['550'], the server said ['250']" for name in ALL if name.startswith("data-bare-c")},
        **{name: "expected ['550'], the server said ['250']" for name in ALL if name.startswith("data-bare-l")},
        "data-bare-inside": "expected ['550'], the server said ['250']",
        "data-bare-normalised": "expected in the spool",
        "data-bare-normalised-dots": "expected in the spool",
    },
    "bare AUTH and non-ASCII verbs raise": {
        "auth-bare": "the server raised IndexError",
        "unknown-commands": "the server raised UnicodeDecodeError",
    },
    "AUTH in clear, and on every listener": {
        "auth-clear": "expected ['538'], the server said ['235']",
    },
    "another authorization identity is accepted": {
        "auth-authorization": "expected ['535'], the server said ['235']",
    },
    "malformed responses raise": {
        "auth-base64": "the server raised IllegalClientResponse",
        "auth-not-plain": "the server raised IllegalClientResponse",
    },
    "what is sent behind AUTH without waiting is run": {
        "auth-pipelined": "expected ['503'], the server said ['334', '334', '235']",
        "auth-pipelined-login": "expected ['503'], the server said ['334', '235']",
        "auth-pipelined-plain": "expected ['503'], the server said ['334', '235']",
        "auth-pipelined-response": "expected ['503'], the server said ['235', '250']",
    },
    "a session may guess passwords for ever": {
        "auth-wrong": "expected ['535', '421'], the server said ['535']",
    },
    "who logged in before STARTTLS is so within TLS": {
        "auth-clear-allowed": "expected ['530'], the server said ['250']",
    },
    "names are compared as they are written": {
        "auth-plain": "expected ['235'], the server said ['535']",
        "auth-unicode": "expected ['235'], the server said ['535']",
    },
    "MAIL and RCPT parameters are dropped": {
        "parameters-unknown": "expected ['555'], the server said ['250']",
        "parameters-duplicate": "expected ['501'], the server said ['250']",
        "parameters-bad-mail": "expected ['501'], the server said ['250']",
        "auth-parameter": "expected ['501'], the server said ['250']",
        "parameters-not-offered": "expected ['555'], the server said ['250']",
        "size-declared": "expected ['552'], the server said ['250']",
    },
    "a failed store answers 550": {
        "trouble-spool-fails": "expected ['451'], the server said ['550']",
        "trouble-spool-pipelined": "'354', '550'",
    },
    "a deadline for each line only": {
        "timeout-session": "expected ['421'], the server said ['250']",
        "timeout-data-trickle": "expected ['421'], the server said []",
    },
    "no NOOP, no VRFY, a line feed inside a quoted local part": {
        "small-commands": "expected ['250'], the server said ['500']",
        "small-commands-arguments": "the server said ['500']",
        "addresses-line-feed": "expected ['500'], the server said ['250']",
    },
    "further rules of the door": {
        "postmaster": "expected ['250'], the server said ['550']",
        "http": "expected ['421'], the server said ['500'",
        "http-post": "'354', '250']",
        "bdat-huge": "expected ['501'], the server said ['500']",
        "size-body": "expected ['552'], the server said ['250']",
        "hops": "expected ['554'], the server said ['250']",
        "mail-before-helo": "expected ['503'], the server said ['250']",
    },
}


@pytest.mark.parametrize("name", PARENT_CAN)
def test_the_parent_passes(name: str) -> None:
    """The parent is not failed for its words: by the codes it passes what it can do."""
    lockstep(ALL[name], open_parent, codes_only=True)


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in HARDENED.items() for name in names])
def test_the_parent_fails(row: str, name: str) -> None:
    """Each override is needed: without it the dialogue goes wrong, in this way."""
    with pytest.raises(Mismatch, match=re.escape(HARDENED[row][name])):
        lockstep(ALL[name], open_parent, codes_only=True)


# --- The parser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("plain", b"plain"),
        (r"\r\n\t\0\xfF\\", b"\r\n\t\0\xff\\"),
        (r"\{x * 3\}", b"{x * 3}"),
        ("a{xy * 3}b{\\0 * 2}", b"axyxyxyb\0\0"),
        ("grüße", "grüße".encode()),
    ],
)
def test_escapes(text: str, octets: bytes) -> None:
    """What client lines stand for."""
    assert unescape(text) == octets


@pytest.mark.parametrize(
    "text",
    [
        "S: 220 ...\n",
        "colour: green\nS: 220 ...\nSPOOLED: nothing\n",
        "recipients: many\nS: 220 ...\nSPOOLED: nothing\n",
        "S: 220 ...\nrole: mx\nSPOOLED: nothing\n",
        "S: 220 ...\nC: \\q\nSPOOLED: nothing\n",
        "S: 220 ...\nSPOOLED: bob\n",
        "S: 220 ...\nSPOOLED: nothing\nB: x\n",
        "S: 220 ...\nX: what?\nSPOOLED: nothing\n",
    ],
)
def test_bad_dialogues(text: str) -> None:
    """A file that is no dialogue is refused, not half read."""
    with pytest.raises(BadDialogue):
        parse("bad", text)


def test_settings() -> None:
    """The header is read, by type."""
    dialogue = parse("x", "role: submission\nrecipients: 3\nlockstep only: yes\nS: 220 ...\nSPOOLED: nothing\n")
    assert dialogue.settings == Settings(role="submission", recipients=3, lockstep_only=True)
    assert not dialogue.streamable


def test_offsets() -> None:
    """Small dialogues are split everywhere, large ones around line ends and dots."""
    assert offsets(b"abc") == [1, 2]
    assert offsets(b"x" * 3000 + b"\r\n.\r\n" + b"y" * 3000) == list(range(2999, 3007))
