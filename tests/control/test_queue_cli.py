"""mtactl queue and why: what people read, what programs read, and what it all ends with."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from control.queue_lab import BUSY, Lab
from hypothesis import given
from hypothesis import strategies as st

from mtatwist.control import live
from mtatwist.control import queue_words as words
from mtatwist.control.callers import Callers, Token
from mtatwist.control.client import NoServer
from mtatwist.control.commands import Unavailable
from mtatwist.envelope import Deferral, State
from mtatwist.relay.administration import Changed
from mtatwist.relay.route import Route
from mtatwist.relay.standing import Standing
from mtatwist.smtp.reply import Reply
from mtatwist.spool.selection import Selection

MANUAL = Path(__file__).parents[2] / "docs" / "administration.rst"
DOWN = Deferral(Reply(451, "4.4.1", "Cannot connect to 192.0.2.1:25: connection refused"))
FINE = Reply(250, "2.0.0", "fine")
SMART_HOST = Route("far.test", "smtp", "smart.test:25")
NONE_SUCH = "is not in the queue: it was delivered, bounced or dropped (see the log), or never was here"


# Words.


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3599, "59m 59s"),
        (7500, "2h 5m"),
        (86399, "23h 59m"),
        (86400, "1d"),
        (86460, "1d"),
        (90000, "1d 1h"),
        (1e7, "115d 17h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5000, "4.9 KiB"),
        (102_300, "99.9 KiB"),
        (102_400, "100 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (25 * 1024**2, "25.0 MiB"),
        (2**60, "1048576 TiB"),
    ],
)
def test_sizes(octets: int, said: str) -> None:
    assert words.size(octets) == said


@given(st.floats(allow_nan=True))
def test_every_number_is_a_moment(at: float) -> None:
    assert words.iso(at)


# List.


def test_messages_as_people_see_them(lab: Lab) -> None:
    several = lab.store("a@far.test", "b@far.test", "c@near.test", age=7530, body=b"x" * 5000)
    lab.tried(several, 0, State.DEFERRED, due_in=3630)
    report = lab.store("me@here.test", reverse_path="", age=5730)
    first, second = lab.mtactl("queue", "list").stdout.splitlines()
    # One was claimed with the first for the attempt.
    assert first.split("\t") == [
        several.id,
        "2h 5m",
        "4.9 KiB",
        "2 pending, 1 deferred, being delivered",
        "in 1h",
        "me@here.test",
        "a@far.test and 2 more",
        "450 4.2.1 busy",
    ]
    assert second.split("\t") == [report.id, "1h 35m", "21 B", "pending", "now", "<>", "me@here.test", ""]


def test_recipients_that_are_done_with_are_no_more_that_wait(lab: Lab) -> None:
    message = lab.store("a@far.test", "b@far.test", "c@near.test")
    lab.tried(message, 0, State.DELIVERED)
    (line,) = lab.mtactl("queue", "list").stdout.splitlines()
    assert line.split("\t")[6] == "b@far.test and 1 more"
    (line,) = lab.mtactl("queue", "list", "--domain", "near.test").stdout.splitlines()
    assert line.split("\t")[6] == "c@near.test"


@pytest.mark.parametrize(("verb", "said"), [("list", "no message is meant\n"), ("shape", "no recipient is meant\n")])
def test_an_empty_list_says_so_to_people(lab: Lab, verb: str, said: str) -> None:
    lab.store("a@far.test")
    result = lab.mtactl("queue", verb, "--domain", "near.test")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", said)
    result = lab.mtactl("--json", "queue", verb, "--domain", "near.test")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_what_peers_say_breaks_no_line_and_no_terminal(lab: Lab) -> None:
    message = lab.store("a@far.test", helo="\x1b[31mred\x07", user="x\ty")
    lab.tried(message, 0, State.DEFERRED, Reply(450, "4.2.1", "two\nlines\x1b[2J and\ttabs"))
    for verb in (["queue", "list"], ["queue", "show", message.id], ["why", message.id]):
        said = lab.mtactl(*verb).stdout
        assert "\x1b" not in said and "\x07" not in said
        assert said.count("two / lines") == 1
    assert len(lab.mtactl("queue", "list").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "selection"),
    [
        ([], {}),
        (["--from", "<>"], {"sender": "<>"}),
        (["--to", "you@*", "--domain", "far.test"], {"recipient": "you@*", "domain": "far.test"}),
        (["--older", "1h30m", "--state", "held"], {"older": 5400.0, "state": "held"}),
        (["--code", "4.7.1", "--next-hop", "smart*"], {"code": "4.7.1", "next_hop": "smart*"}),
        (["--user", ""], {"user": ""}),
        (["--id", "a"], {"id": "0000000000000A"}),
    ],
)
def test_every_verb_takes_the_same_selectors(lab: Lab, options: list[str], selection: dict[str, Any]) -> None:
    lab.mtactl("queue", "list", *options)
    lab.mtactl("queue", "shape", *options)
    lab.store("you@far.test")
    for action in ("hold", "release", "retry", "bounce", "drop"):
        lab.mtactl("queue", action, *(options or ["--everything"]))
        assert lab.changes.asked[-1]["selection"] == Selection(**selection)
        assert lab.changes.asked[-1]["action"] == action


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["queue", "show"], "Missing argument 'ID'"),
        (["why", "1234567890ABCDEF"], '"1234567890ABCDEF" is no queue id: those are up to 14 hexadecimal digits'),
        (["queue", "list", "--id", "me"], '"me" is no queue id'),
        (["queue", "list", "--older", "2"], '"2" has no unit: write "2s" for seconds'),
        (["queue", "list", "--state", "lost"], "'lost' is not one of 'pending', 'deferred', 'held'"),
        (["queue", "list", "--code", "700"], '--code: "700" begins no reply'),
        (["queue", "list", "--from", ""], '--from: give some text, "*" for any, "<>" for nobody'),
        (["queue", "list", "--next-hop", ""], "--next-hop: give some text"),
        (["queue", "shape", "--to", "\udc80"], "--to: there are control characters in it"),
        (["queue", "list", "--limit", "0"], "0 is not in the range x>=1"),
        (["queue", "hold"], "or --everything to hold them all"),
        (["queue", "drop", "--dry-run"], "or --everything to drop them all"),
        (["queue", "drop", "--everything", "--domain", "a.test"], "not both"),
        (["queue", "drop", "--everything", "1"], "not both"),
        (["queue", "bounce", "--everything", "--reason", "a\nb"], "a reason is one line"),
        (["queue", "release", "--everything", "--reason", "x"], "No such option"),
        (["queue", "hold", "1", "x"], '"x" is no queue id'),
    ],
)
def test_wrong_usage(lab: Lab, arguments: list[str], why: str) -> None:
    result = lab.mtactl(*arguments)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
    assert lab.asked == 0


def test_only_the_pages_that_are_needed_are_asked_for(lab: Lab) -> None:
    stored = [lab.store(f"{number}@far.test").id for number in range(250)]
    assert [row["id"] for row in lab.said("queue", "list", "--limit", "5")] == stored[:5]
    assert lab.asked == 1
    assert [row["id"] for row in lab.said("queue", "list")] == stored


def test_a_list_goes_on_that_was_left_alone_for_long(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads in a pager, and the server hangs up on those who are silent."""
    stored = [lab.store(f"{number}@far.test").id for number in range(250)]
    connect = live.Client
    connections: list[int] = []

    class Forgetful(connect):
        def ask(self, command: Any, **arguments: Any) -> Any:
            connections[-1] += 1
            if connections[-1] > 1:
                raise NoServer(os.EX_TEMPFAIL, "here: the server closed the connection")
            return super().ask(command, **arguments)

    def connected(path: str, token: str | None) -> Any:
        connections.append(0)
        return Forgetful(path, token)

    monkeypatch.setattr(live, "Client", connected)
    assert [row["id"] for row in lab.said("queue", "list")] == stored
    assert connections == [2, 2, 1]


def test_a_list_ends_when_the_server_does(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(self: Any, command: Any, **arguments: Any) -> Any:
        raise NoServer(os.EX_TEMPFAIL, "here: the server closed the connection")

    monkeypatch.setattr(live.Client, "ask", ends)
    result = lab.mtactl("queue", "list")
    assert (result.exit_code, result.stderr) == (os.EX_TEMPFAIL, "mtactl: here: the server closed the connection\n")


def test_nothing_waits(lab: Lab) -> None:
    assert lab.mtactl("queue", "list").stdout == ""
    assert lab.mtactl("queue", "shape").stdout == ""
    assert lab.mtactl("queue", "stats").stdout.splitlines() == [
        "0 messages, 0 B",
        "0 recipients: 0 pending, 0 deferred, 0 held",
        "0 being delivered right now, 0 due",
    ]


# One message.


def test_a_message_as_people_see_it(lab: Lab) -> None:
    message = lab.store("a@far.test", "b@near.test", age=7530, user="me", peer="192.0.2.7", helo="mail.here.test")
    lab.tried(message, 1, State.DELIVERED, FINE)
    lines = lab.mtactl("queue", "show", message.id.lower().lstrip("0")).stdout.splitlines()
    assert lines[0] == f"{message.id}: 21 B from me@here.test for 2 recipients"
    assert re.fullmatch(
        r"Received 2h 5m ago, on \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ from 192.0.2.7, which called itself mail.here.test"
        r" in clear\.",
        lines[1],
    )
    assert lines[2] == "Sent by the user me, who had logged in."
    assert lines[3].split("\t") == ["a@far.test", "pending", "0", "now", "", ""]
    assert lines[4].split("\t") == ["b@near.test", "delivered", "1", "-", "mx.far.test", "250 2.0.0 fine"]


def test_a_message_with_more_recipients_than_a_page_has(lab: Lab) -> None:
    addresses = [f"{number}@far.test" for number in range(450)]
    message = lab.store(*addresses)
    for verb in (["queue", "show"], ["why"]):
        (told,) = lab.said(*verb, message.id)
        assert [delivery["recipient"] for delivery in told["deliveries"]] == addresses


def test_a_message_is_written_as_it_is(lab: Lab) -> None:
    body = bytes(range(256)) * 1000 + b"no end of line"
    message = lab.store("a@far.test", body=body)
    assert lab.mtactl("queue", "cat", message.id).stdout_bytes == body
    assert lab.mtactl("--json", "queue", "cat", message.id).stdout_bytes == body


def test_an_error_never_stands_where_the_message_would(lab: Lab) -> None:
    result = lab.mtactl("--json", "queue", "cat", "77")
    assert (result.exit_code, result.stdout) == (os.EX_NOINPUT, "")
    assert result.stderr == f"mtactl: 00000000000077 {NONE_SUCH}\n"


def test_a_message_that_is_gone(lab: Lab) -> None:
    for verb in (["queue", "show"], ["queue", "cat"], ["why"], ["queue", "hold"], ["queue", "bounce"]):
        result = lab.mtactl(*verb, "77")
        assert (result.exit_code, result.stdout) == (os.EX_NOINPUT, "")
        assert result.stderr == f"mtactl: 00000000000077 {NONE_SUCH}\n"


# Why.


def waiting(lab: Lab, **delivery: Any) -> dict[str, Any]:
    """A recipient of a message as Why tells of it."""
    message = lab.store("a@far.test", age=7530)
    if delivery:
        lab.tried(message, 0, **delivery)
    (told,) = lab.said("why", message.id)
    return {**told["deliveries"][0], "words": lab.mtactl("why", message.id).stdout}


def test_it_is_due(lab: Lab) -> None:
    told = waiting(lab)
    assert told["waits_for"] == "turn"
    assert "Not tried yet." in told["words"]
    assert "Goes to the exchanges of far.test, by smtp." in told["words"]
    assert "It is due, and waits for its turn." in told["words"]


def test_its_time_has_not_come(lab: Lab) -> None:
    lab.standings["far.test"] = Standing(SMART_HOST, "smart.test:25")
    told = waiting(lab, state=State.DEFERRED, due_in=7530)
    assert told["waits_for"] == "next_attempt"
    assert 'Goes to smart.test:25 by smtp, with the route for "far.test".' in told["words"]
    assert "mx.far.test: 450 4.2.1 busy" in told["words"]
    assert "The next attempt is due in 2h 5m, at " in told["words"]


def test_the_next_hop_is_left_alone(lab: Lab) -> None:
    lab.standings["far.test"] = Standing(SMART_HOST, "smart.test:25", False, 3, 250.0, DOWN)
    told = waiting(lab)
    assert told["waits_for"] == "next_hop"
    assert "could not be reached 3 times in a row: 451 4.4.1 Cannot connect to 192.0.2.1:25" in told["words"]
    assert "The next hop is left alone for another 4m 10s" in told["words"]
    # What is due later than that waits for its time.
    assert waiting(lab, state=State.DEFERRED, due_in=900)["waits_for"] == "next_attempt"


def test_the_next_hop_has_enough_to_do(lab: Lab) -> None:
    lab.standings["far.test"] = Standing(SMART_HOST, "smart.test:25", full=True)
    told = waiting(lab)
    assert told["waits_for"] == "room"
    assert "the next hop has as much to do as it is given at once" in told["words"]


def test_it_is_on_its_way(lab: Lab) -> None:
    message = lab.store("a@far.test")
    lab.claim("far.test")
    (told,) = lab.said("why", message.id)
    assert told["deliveries"][0]["waits_for"] == "delivery"
    assert "It is being delivered right now, or about to be" in lab.mtactl("why", message.id).stdout


def test_it_is_held(lab: Lab) -> None:
    told = waiting(lab, state=State.HELD)
    assert (told["waits_for"], told["next_attempt"], told["due_in"]) == ("release", None, None)
    assert re.search(r'Held until somebody says "mtactl queue release [0-9A-F]{14}"\.', told["words"])


def test_it_is_done_with(lab: Lab) -> None:
    message = lab.store("a@far.test", "b@near.test")
    lab.tried(message, 0, State.FAILED, Reply(550, "5.1.1", "no such user"), tls="TLSv1.3 X")
    (told,) = lab.said("why", message.id)
    assert told["deliveries"][0]["waits_for"] == "nothing"
    words = lab.mtactl("why", message.id).stdout
    assert "a@far.test: failed" in words and "mx.far.test over TLSv1.3 X: 550 5.1.1 no such user" in words
    assert "nothing more is to be tried" in words


def test_every_attempt_is_told_of_once(lab: Lab) -> None:
    message = lab.store("a@far.test")
    for number in range(3):
        reply = Reply(450, "4.2.1", f"busy {number}")
        lab.tried(message, 0, State.DEFERRED, reply, ago=100 - number, due_in=0)
    said = lab.mtactl("why", message.id).stdout
    assert [said.count(f"450 4.2.1 busy {number}") for number in range(3)] == [1, 1, 1]
    assert "no longer remembered" not in said


def test_old_attempts_are_forgotten(lab: Lab) -> None:
    message = lab.store("a@far.test")
    for number in range(53):
        lab.tried(message, 0, State.DEFERRED, ago=100 - number, due_in=0)
    said = lab.mtactl("why", message.id).stdout
    assert said.count("450 4.2.1 busy") == 50
    assert "3 earlier attempts, no longer remembered." in said


def test_a_report_was_made_here(lab: Lab) -> None:
    message = lab.store("me@here.test", reverse_path="")
    assert ", made by this server itself." in lab.mtactl("why", message.id).stdout


# Figures.


def test_figures(lab: Lab) -> None:
    for number in range(3):
        lab.store(f"{number}@far.test", age=7530)
    lab.tried(lab.store("x@near.test", age=100_000), 0, State.DEFERRED)
    lab.tried(lab.store("y@near.test"), 0, State.HELD, BUSY)
    lines = lab.mtactl("queue", "stats").stdout.splitlines()
    assert lines[0].startswith("5 messages, 105 B, the oldest of them received ")
    assert lines[1:3] == ["5 recipients: 3 pending, 1 deferred, 1 held", "0 being delivered right now, 3 due"]
    assert "        3  far.test" in lines and "        2  near.test" in lines and "        2  4xx" in lines
    assert [line.split("\t") for line in lab.mtactl("queue", "shape").stdout.splitlines()] == [
        ["far.test", "3", "0", "0", "3", "0", "0"],
        ["near.test", "2", "1", "0", "0", "0", "1"],
    ]


def test_the_domains_that_have_no_row_of_their_own(lab: Lab) -> None:
    lab.store(*(f"x@{number}.test" for number in range(203)))
    assert lab.mtactl("queue", "shape").stdout.splitlines()[-1] == "3 other domains\t3\t3\t0\t0\t0\t0"


# Changes.


def test_totals_are_those_of_all_parts(lab: Lab) -> None:
    lab.changes.answers = [Changed(2, 3, 1, "1.2.3"), Changed(1000, 1000, 0, "4"), Changed(1, 1, 1, None)]
    result = lab.mtactl("queue", "hold", "--domain", "far.test")
    assert result.stdout == (
        "1,004 recipients of 1,003 messages are held; 2 more recipients are being delivered right now: run it again\n"
    )
    assert [asked["after"] for asked in lab.changes.asked] == [None, "1.2.3", "4"]


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("hold", ["--dry-run"], "1 recipient of 1 message would be held\n"),
        ("hold", ["--reason", "left"], "1 recipient of 1 message is held\n"),
        ("retry", ["--dry-run"], "1 recipient of 1 message would be tried at once\n"),
        ("release", [], "1 recipient of 1 message is released\n"),
        ("retry", [], "1 recipient of 1 message is to be tried at once\n"),
        ("bounce", ["--reason", "left"], "1 recipient of 1 message is bounced\n"),
        ("drop", [], "1 recipient of 1 message is dropped\n"),
    ],
)
def test_what_has_become_of_them(lab: Lab, action: str, options: list[str], said: str) -> None:
    lab.changes.answers = [Changed(1, 1, 0, None)] * 2
    assert lab.mtactl("queue", action, "--everything", *options).stdout == said
    (told,) = lab.said("queue", action, "--everything", *options)
    assert told == {
        "level": "ok",
        "action": action,
        "dry_run": "--dry-run" in options,
        "messages": 1,
        "recipients": 1,
        "active": 0,
    }
    assert lab.changes.asked[0]["reason"] == ("left" if "--reason" in options else "")


def test_several_messages(lab: Lab) -> None:
    first, second = lab.store("a@far.test"), lab.store("b@far.test")
    lab.changes.answers = [Changed(1, 1, 0, None), Changed(0, 0, 0, None), Changed(1, 1, 0, None)]
    result = lab.mtactl("queue", "hold", first.id, "77", second.id, first.id.lower(), "--state", "deferred")
    assert result.exit_code == os.EX_NOINPUT
    assert result.stderr == f"mtactl: 00000000000077 {NONE_SUCH}\n"
    assert result.stdout == "2 recipients of 2 messages are held\n"
    assert [asked["selection"] for asked in lab.changes.asked] == [
        Selection(id=identity, state="deferred") for identity in (first.id, "00000000000077", second.id)
    ]


def test_what_was_done_before_it_was_broken_off_is_told(lab: Lab) -> None:
    lab.changes.answers = [Changed(2, 2, 0, "on"), Unavailable("the server is stopping")]
    result = lab.mtactl("queue", "drop", "--everything")
    assert (result.exit_code, result.stderr) == (os.EX_TEMPFAIL, "mtactl: the server is stopping\n")
    assert result.stdout == "2 recipients of 2 messages are dropped; that was not all\n"
    lab.changes.answers = [Unavailable("the server is stopping")]
    assert lab.mtactl("queue", "drop", "--everything").stdout == ""


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("hold", "nothing to hold: no recipient that is meant is pending or deferred\n"),
        ("release", "nothing to release: no recipient that is meant is held\n"),
        (
            "retry",
            "nothing to retry: no recipient that is meant is pending or deferred;"
            ' what is held waits for "mtactl queue release"\n',
        ),
        ("bounce", "nothing to bounce: no recipient that is meant waits\n"),
        ("drop", "nothing to drop: no recipient that is meant waits\n"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_there_was_nothing_to_do(lab: Lab, action: str, said: str, options: list[str]) -> None:
    lab.changes.answers = [Changed(0, 0, 0, None)] * 2
    assert lab.mtactl("queue", action, "--everything", *options).stdout == said
    (told,) = lab.said("queue", action, "--everything", *options)
    assert (told["level"], told["messages"], told["recipients"], told["active"]) == ("ok", 0, 0, 0)


# The manual.


def documented(verb: str) -> set[str]:
    """The fields that the manual tells of."""
    fields = re.search(
        rf"^Fields of .*``{verb}``.*:\n((?:\n|``.*\n|    .*\n)+)", MANUAL.read_text("utf-8"), re.MULTILINE
    )
    assert fields is not None, verb
    return set(re.findall(r"^``([\w.]+)``$", fields[1], re.MULTILINE))


def printed(lab: Lab, *arguments: str) -> set[str]:
    """The fields that there are; those of each recipient behind a dot."""
    fields = set()
    for row in lab.said(*arguments):
        fields |= set(row) | {f"deliveries.{name}" for delivery in row.get("deliveries", []) for name in delivery}
    return fields


def test_the_manual_tells_of_every_field_and_of_no_other(lab: Lab) -> None:
    message = lab.store("a@far.test", "b@near.test")
    lab.tried(message, 0, State.DEFERRED)
    assert printed(lab, "queue", "list") == documented("queue list")
    shown = printed(lab, "queue", "show", message.id)
    assert shown == documented("queue show")
    assert printed(lab, "why", message.id) == shown | documented("why")
    assert printed(lab, "queue", "stats") == documented("queue stats")
    assert printed(lab, "queue", "shape") == documented("queue shape")
    for action in ("hold", "release", "retry", "bounce", "drop"):
        assert printed(lab, "queue", action, "--everything") == documented(f"queue {action}")


@pytest.mark.parametrize("name", ["waits_for", "history", "way"])
def test_the_manual_tells_what_can_stand_in_a_field(lab: Lab, name: str) -> None:
    message = lab.store("a@far.test")
    lab.tried(message, 0, State.DEFERRED)
    (told,) = lab.said("why", message.id)
    value = told["deliveries"][0][name]
    words = MANUAL.read_text("utf-8").partition(f"``deliveries.{name}``\n")[2].partition("\n``")[0]
    for each in [value] if isinstance(value, str) else (value[0] if isinstance(value, list) else value):
        assert f"``{each}``" in words


# Trouble.


def test_who_may_only_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    message = lab.store("a@far.test")
    lab.site.factory.callers = Callers([Token("eye", hashlib.sha256(b"look").hexdigest(), admin=False)])
    monkeypatch.setenv("MTACTL_TOKEN", "look")
    for verb in (["queue", "list"], ["queue", "show", message.id], ["why", message.id], ["queue", "stats"]):
        assert lab.mtactl(*verb).exit_code == 0
    for verb in (["queue", "cat", message.id], ["queue", "hold", message.id], ["queue", "drop", "--everything"]):
        result = lab.mtactl(*verb)
        assert result.exit_code == os.EX_NOPERM
        assert 'the token \'eye\' has the role "read": this command takes "admin"' in result.stderr
    assert lab.changes.asked == []


def test_no_server(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(path: str, token: str | None) -> Any:
        raise NoServer(os.EX_UNAVAILABLE, "here: nobody listens there: the server is not running")

    monkeypatch.setattr(live, "Client", nobody)
    for verb in (["queue", "list"], ["why", "1"], ["queue", "hold", "1"]):
        result = lab.mtactl(*verb)
        assert result.exit_code == os.EX_UNAVAILABLE
        assert result.stderr == "mtactl: here: nobody listens there: the server is not running\n"


def test_an_error_in_json(lab: Lab) -> None:
    result = lab.mtactl("queue", "show", "77", "--json")
    assert result.exit_code == os.EX_NOINPUT
    assert result.stdout == f'{{"level": "error", "reason": "00000000000077 {NONE_SUCH}"}}\n'
