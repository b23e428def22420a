"""Personal data in the log: nothing of it is left, and one person's events still belong together."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from receive.whole import Whole
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from mtatwist.log import LineObserver, as_json, as_text
from mtatwist.redaction import Redaction

KEY = b"k" * 32


def redacted(**facts: Any) -> dict[str, Any]:
    return Redaction(KEY)({"event": "x", **facts})


def test_of_an_address_the_domain_stays() -> None:
    path = redacted(reverse_path="alice@Example.org")["reverse_path"]
    assert path.endswith("@Example.org")
    assert "alice" not in path


def test_one_person_is_one_pseudonym_in_every_field_and_spelling() -> None:
    facts = redacted(
        user="alice@example.org",
        reverse_path="Alice@example.org",
        forward_paths=["alice@EXAMPLE.ORG", "bob@example.org"],
        reply="<alice@example.org> is over quota.",
    )
    person = facts["user"].partition("@")[0]
    assert facts["reverse_path"] == f"{person}@example.org"
    assert facts["forward_paths"][0].partition("@")[0] == person
    assert facts["forward_paths"][1].partition("@")[0] != person
    assert facts["reply"] == f"<{person}@example.org> is over quota."


def test_another_key_gives_other_pseudonyms() -> None:
    one, other = Redaction(), Redaction()
    assert one({"user": "alice"}) != other({"user": "alice"})
    assert one({"user": "alice"}) == one({"user": "alice"})


@pytest.mark.parametrize(
    "text",
    [
        "alice: mailbox full",
        "no such user ALICE",
        "can't write /srv/mail/alice/new",
        "'alice' unknown; try alice's other address",
        "(alice)",
    ],
)
def test_what_is_personal_in_an_event_is_so_in_its_texts_too(text: str) -> None:
    reply = redacted(forward_path="alice@example.org", reply=text)["reply"]
    assert "alice" not in reply.lower()


def test_other_words_stay() -> None:
    said = "Malice aforethought at 12:30:01, alices and al"
    assert redacted(user="alice", reply=said)["reply"] == said


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("RCPT TO:<bob@example.org> ORCPT=rfc822;bob@example.org", "@example.org> ORCPT=rfc822;~"),
        ('<"bob smith"@example.org>', "@example.org>"),
        ("<jürgen.bob@例え.テスト>", "@例え.テスト>"),
        ("b'MAIL FROM:<bob@example.org>\\r\\n'", "\\r\\n'"),
        ("seen 'bob@example.org'", "seen '~"),
        ("o'bob@example.org.", "@example.org."),
        ("bounce+bob=example.com@list.test", "@list.test"),
        ("bob@[192.0.2.1]", "@[192.0.2.1]"),
    ],
)
def test_addresses_are_found_in_texts(text: str, left: str) -> None:
    reason = redacted(reason=text)["reason"]
    assert "bob" not in reason
    assert left in reason


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (
            "MAIL FROM:<bob@a.test> SIZE=5 RET=HDRS ENVID=bob",
            "MAIL FROM:<~#@a.test> SIZE=5 RET=HDRS ENVID=~#",
        ),
        (
            "RCPT TO:<bob@a.test> NOTIFY=NEVER ORCPT=rfc822;bob@a.test",
            "RCPT TO:<~#@a.test> NOTIFY=NEVER ORCPT=rfc822;~#@a.test",
        ),
        ("RCPT TO:<bob@a.test> ORCPT=rfc822;bob+40a.test AUTH=bob+40a.test", "RCPT TO:<~#@a.test> ORCPT=~# AUTH=~#"),
        ("RCPT TO:<bob>", "RCPT TO:<~#"),
        ("RCPT TO:bob", "RCPT TO:~#"),
        ("RCPT bob", "RCPT ~#"),
        ('RCPT TO:<"bob b"@a.test>', "RCPT TO:<~#@a.test>"),
        ('RCPT TO:<"bob" b"@a.test>', "RCPT TO:<~#"),
        ("MAIL FROM:<> BODY=bob", "MAIL FROM:<> BODY=~#"),
        ("AUTH", "AUTH"),
        ("", ""),
    ],
)
def test_a_refused_command_names_nobody_however_it_is_spelt(command: str, left: str) -> None:
    said = Redaction(KEY)({"event": "refused", "command": command, "reply": "550 5.1.1 no"})["command"]
    assert re.sub("~[0-9a-f]{10}", "~#", said) == left


def test_where_a_client_is_but_not_where_a_next_hop_is() -> None:
    facts = redacted(peer="192.0.2.7", helo="[192.0.2.7]", why="192.0.2.7 spoke early")
    assert "192.0.2.7" not in str(facts)
    assert facts["why"].split()[0] == facts["peer"]
    assert redacted(address="192.0.2.25", host="mx.example.org")["address"] == "192.0.2.25"
    assert redacted(address="192.0.2.7", kind="address")["address"] != "192.0.2.7"
    assert redacted(peer="127.0.0.1")["peer"] == "127.0.0.1"


@pytest.mark.parametrize("ip", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"])
def test_where_a_client_is_in_texts_of_others(ip: str) -> None:
    facts = redacted(message=f"lost IPv6Address('TCP', '{ip}', 25) at 12:30:01, 127.0.0.1")
    assert ip not in facts["message"]
    assert facts["message"].endswith("at 12:30:01, 127.0.0.1")


def test_what_is_nested_is_found() -> None:
    facts = redacted(arguments={"user": "alice", "words": ["bob@example.org", "alice"], "count": 3}, lines=[1, 2])
    assert "alice" not in str(facts)
    assert "bob" not in str(facts)
    assert (facts["arguments"]["count"], facts["lines"]) == (3, [1, 2])


def test_arguments_that_are_json_are_read() -> None:
    selection = '{"user": "alice", "sender": "bob*", "recipient": "*@example.org", "older": 60}'
    facts = Redaction(KEY)({"event": "control", "arguments": {"selection": selection, "cut": '{"user": "ali...'}})
    read = facts["arguments"]["selection"]
    assert "alice" not in str(facts)
    assert "bob" not in str(facts)
    assert (read["recipient"].endswith("@example.org"), read["older"]) == (True, 60)
    assert facts["arguments"]["cut"] == "{...}"


def test_a_page_ends_with_nobody() -> None:
    cursor = '["account","alice@example.org","192.0.2.7",12.5]'
    facts = Redaction(KEY)({"event": "control", "arguments": {"after": cursor}, "answer": {"cursor": cursor}})
    assert "alice" not in str(facts)
    assert "192.0.2.7" not in str(facts)
    # That it was the same can be seen.
    assert facts["arguments"]["after"] == facts["answer"]["cursor"]


def test_who_administered_the_server_stays() -> None:
    facts = Redaction(KEY)({"event": "control", "user": "root", "arguments": {"user": "alice", "from": "@a.test"}})
    assert facts["user"] == "root"
    assert facts["arguments"]["user"] != "alice"
    assert facts["arguments"]["from"] == "@a.test"


def test_at_whose_word_it_was_done_stays() -> None:
    facts = Redaction(KEY)(
        {"event": "queue_changed", "by": "alice (desk)", "selection": {"user": "alice"}, "reason": "for alice"}
    )
    assert facts["by"] == "alice (desk)"
    assert "alice" not in str([facts["selection"], facts["reason"]])


def test_what_is_empty_stays() -> None:
    assert redacted(reverse_path="", user=None, peer="") == {"event": "x", "reverse_path": "", "user": None, "peer": ""}


def test_a_domain_with_words_behind_it_is_no_domain() -> None:
    assert "alice" not in redacted(user="x@y alice")["user"]
    assert "alice" not in redacted(members=["mail=a@b.test,uid=alice,dc=b,dc=test"])["members"][0]


@given(st.text(max_size=30), st.text(max_size=60))
def test_nothing_that_a_peer_says_breaks_it(user: str, reply: str) -> None:
    facts = redacted(user=user, reply=reply, message=reply, reverse_path=user)
    assert json.dumps(facts)
    assert redacted(message=reply, user=user, reply=reply, reverse_path=user) == facts


@given(st.from_regex(r"[a-z]{4,12}", fullmatch=True), st.text(" .,:;<>()'\"=/[]@-", max_size=8))
@example("aaaa", "=@.")
@example("aaaa", "=@=")
def test_a_known_name_is_never_left_between_delimiters(name: str, around: str) -> None:
    name = f"q{name}q"
    facts = redacted(forward_path=f"{name}@example.org", reply=f"{around} {name} {around}{name}{around}")
    # Behind an "@" it is a domain, or a part of one.
    assert name not in re.sub(r"@[^\s,:;<>()'\"/]*", "", facts["reply"])


@pytest.mark.parametrize("format", ["json", "text"])
def test_whole_lines(format: str) -> None:
    try:
        raise ValueError("<alice@example.org> from 192.0.2.7")
    except ValueError:
        failure = Failure()

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("alice@example.org has no words")

    stream = io.StringIO()
    observer = LineObserver(stream, format, Clock(), redact=Redaction())
    base = {"log_time": 0.0, "log_level": LogLevel.error, "log_namespace": "mtatwist.x", "log_format": "x"}
    observer({**base, "log_failure": failure, "forward_path": "alice@example.org"})
    observer({**base, "log_namespace": "other", "log_format": "for {who}", "who": "alice@example.org"})
    observer({**base, "fact": Unspeakable()})
    written = stream.getvalue()
    assert "ValueError" in written
    assert "@example.org" in written
    assert "alice" not in written
    assert "192.0.2.7" not in written


def test_a_whole_dialogue_from_an_address_on_the_internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/integration/test_logs.py has one with a real server, whose clients are on this machine."""
    server = Whole(monkeypatch, tmp_path, {"limits.connections_per_address": "1"})
    with capturedLogs() as events:
        session = server.connect("192.0.2.77")
        server.connect("192.0.2.77")
        said = session.say(
            "EHLO [192.0.2.77]",
            "MAIL FROM:<quasimodo>",
            "MAIL FROM:<quasimodo@away.test>",
            "RCPT TO:<esmeralda@there.test>",
        )
        assert said.splitlines()[-1].startswith("550")
        session.say("RCPT TO:<esmeralda@here.test>", "DATA", "hello", ".")
        server.next_hop_is_down()
        session.protocol.connectionLost(Failure(ConnectionDone()))
    redact = Redaction()
    names = {event["log_format"] for event in events}
    assert {"refused", "session_refused", "accepted", "deferred", "session_ended"} <= names
    for write in (as_json, as_text):
        written = "\n".join(write({**event}, redact) for event in events)
        assert "@away.test" in written
        assert "192.0.2.1" in written or "next.test" in written
        for personal in ("192.0.2.77", "quasimodo", "esmeralda"):
            assert personal not in written


@pytest.mark.parametrize("name", ["info", "accepted"])
def test_how_important_an_event_is_is_nobodys_name(name: str) -> None:
    facts = {"user": name, "reverse_path": f"{name}@away.test"}
    event = {
        "log_time": 1_700_000_000.5,
        "log_level": LogLevel.info,
        "log_namespace": "mtatwist.test",
        "log_format": "accepted",
        "log_facts": facts,
        **facts,
    }
    said = json.loads(as_json(event, Redaction()))
    assert (said["level"], said["time"]) == ("info", "2023-11-14T22:13:20.500Z")
    assert as_text(event, Redaction()).startswith("2023-11-14T22:13:20.500Z ")
