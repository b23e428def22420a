"""mtactl's verbs of the queue at a real server: what waits is explained, held, retried, bounced and dropped."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rigs.backlog import fill
from rigs.client import Client
from rigs.control import SOCKET, commands, mtactl_command
from rigs.mta import Config, Mta, relaying_to
from rigs.processes import keep_port, wait_until
from rigs.sink import Sink

from mtatwist.control.cli import main

GONE = "is not in the queue: it was delivered, bounced or dropped (see the log), or never was here"
CONTENT = b"Subject: x\r\n\r\n.\r\n..dots\r\n\x00\xff and 8 bits\r\n"

MakeMta = Callable[..., Mta]


def run(mta: Mta, *words: str, token: str | None = None) -> Result:
    """mtactl in this process: the server is in another."""
    return CliRunner().invoke(
        main, ["--socket", str(mta.data_dir / SOCKET), *words], env={"MTACTL_TOKEN": token} if token else {}
    )


def told(mta: Mta, *words: str) -> list[dict[str, Any]]:
    """What it says in JSON, all being well."""
    done = run(mta, "--json", *words)
    assert done.exit_code == 0, f"{words}: {done.output}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def counted(mta: Mta, *words: str) -> tuple[int, int, int]:
    """The totals of a change: messages, recipients, active."""
    (totals,) = told(mta, "queue", *words)
    assert totals["level"] == "ok"
    return totals["messages"], totals["recipients"], totals["active"]


def changed(mta: Mta, messages: int, recipients: int, *words: str) -> None:
    """Do it until all of them are done that are meant: some may have been on their way."""
    done = [0, 0]

    def all_of_them() -> bool:
        for place, count in enumerate(counted(mta, *words)[:2]):
            done[place] += count
        return done[1] >= recipients

    wait_until(all_of_them, 60, lambda: f"{words}: {done}")
    assert done == [messages, recipients]


def left_early(mta: Mta, *words: str) -> bytes:
    """The first line of what it prints, to somebody who reads no more; that is no reason to complain."""
    command = [*mtactl_command(), "--socket", str(mta.data_dir / SOCKET), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as printing:
        assert printing.stdout is not None and printing.stderr is not None
        line = printing.stdout.readline()
        printing.stdout.close()
        assert printing.stderr.read() == b""
    return line


def send(mta: Mta, *paths: str, sender: str = "<me@here.test>", content: bytes = CONTENT) -> str:
    """A message, as MAIL and RCPT have it; its queue id."""
    with Client(mta.address()) as client:
        client.ehlo("client.test")
        client.expect(250, f"MAIL FROM:{sender}")
        for path in paths:
            client.expect(250, f"RCPT TO:{path}")
        client.expect(354, "DATA")
        lines = content.split(b"\r\n")
        client.send(b"\r\n".join(b"." + line if line[:1] == b"." else line for line in lines) + b".\r\n")
        return client.reply().text.rpartition(" ")[2]


def resting(mta: Mta, count: int) -> list[dict[str, Any]]:
    """The queue, once it has so many messages, all of them tried and none of them on its way."""

    def rows() -> list[dict[str, Any]] | None:
        listed = told(mta, "queue", "list")
        at_rest = all(not row["active"] and not row["pending"] for row in listed)
        return listed if len(listed) == count and at_rest else None

    return wait_until(rows, 60, lambda: f"not {count} that wait: {told(mta, 'queue', 'list')}")


@pytest.fixture
def dead() -> Iterator[int]:
    """A port where nobody listens."""
    keeper = keep_port()
    yield keeper.getsockname()[1]
    keeper.close()


def patient(sink: Sink, dead: int, **tables: Any) -> Config:
    """dead.test and what is below it can't be reached; all else goes to the sink. Nothing is tried again by itself for
    an hour."""
    config = relaying_to(sink.port, relay={"retry": "1h", "max_age": "5d"}, **tables)
    for domain in ("*.dead.test", "dead.test"):
        far = {"domain": domain, "transport": "smtp", "next_hop": f"127.0.0.1:{dead}", "tls": "none"}
        config["route"].insert(0, far)
    return config


def test_what_waits_is_listed_shown_and_explained(make_mta: MakeMta, sink: Sink, dead: int) -> None:
    with make_mta(patient(sink, dead)) as mta:
        first = send(mta, "<a@dead.test>", "<b@dead.test>", "<taken@sink.test>")
        second = send(mta, "<c@dead.test>", sender="<you@there.test>")
        rows = resting(mta, 2)
        assert [row["id"] for row in rows] == [first, second]
        assert [(row["sender"], row["recipient"], row["deferred"]) for row in rows] == [
            ("me@here.test", "a@dead.test", 2),
            ("you@there.test", "c@dead.test", 1),
        ]
        assert all(3000 < row["due_in"] < 4200 and row["age"] < 300 for row in rows)
        for selectors, meant in (
            (["--from", "me@*"], [first]),
            (["--to", "c@dead.test"], [second]),
            (["--domain", "sink.test"], []),
            (["--next-hop", f"127.0.0.1:{dead}"], [first, second]),
            (["--code", "4.4"], [first, second]),
            (["--code", "5"], []),
            (["--state", "held"], []),
            (["--older", "1h"], []),
            (["--older", "0s", "--user", ""], [first, second]),
            (["--id", second], [second]),
            (["--limit", "1"], [first]),
        ):
            assert [row["id"] for row in told(mta, "queue", "list", *selectors)] == meant, selectors

        (shown,) = told(mta, "queue", "show", first.lower())
        assert [(one["recipient"], one["state"]) for one in shown["deliveries"]] == [
            ("a@dead.test", "deferred"),
            ("b@dead.test", "deferred"),
            ("taken@sink.test", "delivered"),
        ]
        came = [shown[name] for name in ("peer", "helo", "protocol", "tls")]
        assert came == ["127.0.0.1", "client.test", "ESMTP", ""]

        (story,) = told(mta, "why", first)
        waiting, _, taken = story["deliveries"]
        assert (waiting["way"]["next_hop"], waiting["way"]["route"]) == (f"127.0.0.1:{dead}", "dead.test")
        assert waiting["way"]["failures"] >= 1
        assert waiting["waits_for"] == "next_attempt"
        assert [attempt["code"] for attempt in waiting["history"]] == [451]
        assert (taken["waits_for"], taken["reply"]) == ("nothing", "250 2.0.0 taken")
        words = run(mta, "why", first).stdout
        assert "from 127.0.0.1, which called itself client.test, by ESMTP in clear" in words
        assert f"in session {story['session']}" in words
        assert "connection refused" in words
        assert "The next attempt is due in" in words

        (stats,) = told(mta, "queue", "stats")
        assert (stats["messages"], stats["recipients"], stats["deferred"]) == (2, 3, 3)
        assert stats["next_hops"] == [{"name": f"127.0.0.1:{dead}", "recipients": 3}]
        (row,) = told(mta, "queue", "shape")
        assert (row["domain"], row["recipients"], row["ages"][0]) == ("dead.test", 3, {"below": 300, "recipients": 3})


def test_a_message_is_written_octet_for_octet(make_mta: MakeMta, sink: Sink, dead: int) -> None:
    large = b"Subject: large\r\n\r\n" + os.urandom(300_000).replace(b"\r", b"r").replace(b"\n", b"n")
    lines = b"".join(large[at : at + 900] + b"\r\n" for at in range(0, len(large), 900))
    with make_mta(patient(sink, dead)) as mta:
        for content in (CONTENT, lines):
            identity = send(mta, "<a@dead.test>", content=content)
            done = subprocess.run(
                [*mtactl_command(), "--socket", str(mta.data_dir / SOCKET), "queue", "cat", identity],
                capture_output=True,
                check=True,
            )
            received, _, written = done.stdout.partition(b"+0000\r\n")
            assert received.startswith(b"Received: from client.test ([127.0.0.1])")
            assert written == content
            (shown,) = told(mta, "queue", "show", identity)
            assert shown["size"] == len(done.stdout)
        # Whoever has seen enough leaves, and nobody says a word about it.
        assert left_early(mta, "queue", "cat", identity).startswith(b"Received: from client.test")


def test_what_is_held_stays_held_over_a_restart_until_it_is_released(make_mta: MakeMta, sink: Sink) -> None:
    sink.go_down()
    mta = make_mta(relaying_to(sink.port, relay={"retry": "1h"}))
    with mta:
        held = send(mta, "<held@sink.test>")
        resting(mta, 1)
        assert counted(mta, "hold", "--everything", "--dry-run") == (1, 1, 0)
        assert told(mta, "queue", "list")[0]["deferred"] == 1
        changed(mta, 1, 1, "hold", "--domain", "sink.test")
        assert "queue release" in run(mta, "why", held).stdout
    sink.come_up()
    with mta:
        send(mta, "<other@sink.test>")
        assert [arrival.forward_paths for arrival in sink.wait_for(1)] == [("other@sink.test",)]
        (row,) = resting(mta, 1)
        assert (row["id"], row["held"], row["next_attempt"]) == (held, 1, None)
        assert counted(mta, "retry", "--everything") == (0, 0, 0)
        assert counted(mta, "release", held) == (1, 1, 0)
        assert sink.wait_for(2)[1].forward_paths == ("held@sink.test",)
        wait_until(lambda: not told(mta, "queue", "list"), 30, "the queue is empty")


def test_a_retry_delivers_at_once_what_comes_back(make_mta: MakeMta, sink: Sink) -> None:
    sink.go_down()
    with make_mta(relaying_to(sink.port, relay={"retry": "1h"})) as mta:
        identity = send(mta, "<a@sink.test>")
        resting(mta, 1)
        (story,) = told(mta, "why", identity)
        assert story["deliveries"][0]["way"]["failures"] >= 1
        sink.come_up()
        assert counted(mta, "retry", "--code", "451") == (1, 1, 0)
        sink.wait_for(1)
        wait_until(lambda: not told(mta, "queue", "list"), 30, "the queue is empty")


def test_a_bounce_tells_the_sender_who_wants_to_know(make_mta: MakeMta, sink: Sink, dead: int) -> None:
    with make_mta(patient(sink, dead)) as mta:
        told_of = send(mta, "<a@dead.test>", "<b@dead.test> NOTIFY=NEVER")
        quiet = send(mta, "<c@dead.test> NOTIFY=NEVER")
        dropped = send(mta, "<d@dead.test>")
        resting(mta, 3)
        assert counted(mta, "drop", dropped, "--reason", "of no use") == (1, 1, 0)
        assert counted(mta, "bounce", "--from", "me@here.test", "--reason", "The owner has left") == (2, 3, 0)
        # Whatever there is to tell is told before this one comes.
        send(mta, "<last@sink.test>")
        reports = [arrival for arrival in wait_for_last(sink) if not arrival.reverse_path]
        assert [report.forward_paths for report in reports] == [("me@here.test",)]
        assert b"The owner has left" in reports[0].content
        assert b"a@dead.test" in reports[0].content
        assert b"Final-Recipient: rfc822; b@dead.test" not in reports[0].content
        wait_until(lambda: not told(mta, "queue", "list"), 30, "the queue is empty")
        for identity in (told_of, quiet, dropped):
            for words in (["why", identity], ["queue", "show", identity], ["queue", "cat", identity]):
                done = run(mta, *words)
                assert (done.exit_code, done.stderr) == (os.EX_NOINPUT, f"mtactl: {identity} {GONE}\n")


def wait_for_last(sink: Sink) -> list[Any]:
    """What has arrived, with the message to last@sink.test."""
    return wait_until(
        lambda: (
            list(sink.arrivals)
            if any(arrival.forward_paths == ("last@sink.test",) for arrival in sink.arrivals) and len(sink.arrivals) > 1
            else None
        ),
        60,
        lambda: f"{sink.arrivals}",
    )


def test_what_is_being_delivered_is_left_alone_and_told(make_mta: MakeMta, sink: Sink) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(stage: str, what: str) -> None:
        if stage == "RCPT":
            asked.set()
            go_on.wait(60)

    sink.policy = slow
    with make_mta(relaying_to(sink.port)) as mta:
        try:
            identity = send(mta, "<slow@sink.test>")
            assert asked.wait(60)
            (row,) = told(mta, "queue", "list")
            assert (row["id"], row["active"]) == (identity, 1)
            assert told(mta, "why", identity)[0]["deliveries"][0]["waits_for"] == "delivery"
            for verb in ("hold", "bounce", "drop"):
                assert counted(mta, verb, identity) == (0, 0, 1), verb
            done = run(mta, "queue", "hold", identity)
            assert "1 more recipient is being delivered right now: run it again" in done.stdout
            assert told(mta, "queue", "stats")[0]["active"] == 1
        finally:
            go_on.set()
        (arrival,) = sink.wait_for(1)
        assert arrival.forward_paths == ("slow@sink.test",)
        wait_until(lambda: not told(mta, "queue", "list"), 30, "the queue is empty")
        assert run(mta, "queue", "hold", identity).exit_code == os.EX_NOINPUT


def test_who_may_read_may_not_change(make_mta: MakeMta, sink: Sink, dead: int) -> None:
    tokens = [
        {"name": name, "role": role, "sha256": hashlib.sha256(secret.encode()).hexdigest()}
        for name, secret, role in (("ops", "s3cret", "admin"), ("eye", "look", "read"))
    ]
    with make_mta(patient(sink, dead, **{"control.token": tokens})) as mta:
        identity = send(mta, "<a@dead.test>")
        for words in (["queue", "list"], ["queue", "show", identity], ["queue", "stats"], ["why", identity]):
            assert run(mta, *words, token="look").exit_code == 0
        assert run(mta, "queue", "list").exit_code == os.EX_NOPERM
        for words in (["queue", "hold", identity], ["queue", "drop", "--everything"], ["queue", "cat", identity]):
            done = run(mta, *words, token="look")
            assert done.exit_code == os.EX_NOPERM
            assert "the role" in done.stderr and '"admin"' in done.stderr
        assert run(mta, "queue", "hold", identity, "--dry-run", token="s3cret").exit_code == 0
        refused = [
            (event["command"], event["token"])
            for event in commands(mta, 9)
            if event["result"] == "not_allowed" and event["token"]
        ]
        assert refused == [("QueueChange", "eye"), ("QueueChange", "eye"), ("QueueRead", "eye")]


def test_a_long_queue_is_printed_as_it_comes(make_mta: MakeMta, sink: Sink, dead: int) -> None:
    mta = make_mta(patient(sink, dead))
    count = fill(mta.data_dir, (f"{number}@{number % 300}.dead.test" for number in range(3000)))
    with mta:
        changed(mta, count, count, "hold", "--everything")
        rows = told(mta, "queue", "list")
        identities = [row["id"] for row in rows]
        assert len(set(identities)) == count and identities == sorted(identities)
        assert {row["held"] for row in rows} == {1}
        shape = told(mta, "queue", "shape", "--state", "held")
        assert sum(row["recipients"] for row in shape) == count
        assert (shape[-1]["domain"], shape[-1]["domains"]) == ("", 100)
        assert left_early(mta, "queue", "list").startswith(identities[0].encode())
        assert counted(mta, "drop", "--everything")[:2] == (count, count)
        assert told(mta, "queue", "stats")[0]["messages"] == 0
