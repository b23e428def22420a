"""The machine's clock is set while mail is deferred: nothing is sent back too early, and nothing waits too long."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from rigs.client import Client
from rigs.content import HEAD
from rigs.faketime import FakeClock
from rigs.mta import SPOOL, Mta, relaying_to
from rigs.processes import free_port, wait_until
from rigs.sink import Arrival, Policy, Sink

MakeMta = Callable[..., Mta]

JUMPS = {"+6d": timedelta(days=6), "-1h": timedelta(hours=-1)}


def send(mta: Mta, *to: str) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        for path in to:
            assert client.transaction("sender@client.test", [path], HEAD).code == 250


def logged(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == name]


def wait_for_attempts(mta: Mta, count: int, to: str = "a@sink.test") -> None:
    """Until ``count`` more attempts have failed."""

    def failed() -> int:
        return sum(event["forward_path"] == to for event in logged(mta, "deferred"))

    before = failed()
    wait_until(lambda: failed() >= before + count, 60, lambda: f"another attempt for {to}: {mta.log()}")


def ahead(mta: Mta) -> float:
    """How far the queue's time is ahead of the clock, as far as the disk knows."""
    path = str(mta.data_dir / SPOOL)
    with contextlib.closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as spool:
        return sum(value for (value,) in spool.execute("SELECT ahead FROM clock"))


def busy_for(*paths: str) -> Policy:
    """Policy: these recipients are told to try again."""
    return lambda stage, what: "450 4.2.1 busy" if stage == "RCPT" and what in paths else None


def shown(came: Arrival) -> datetime:
    """The date of our own Received field."""
    return parsedate_to_datetime(came.content.partition(b"\r\nFrom:")[0].rpartition(b";")[2].strip().decode())


@pytest.mark.parametrize("jump", JUMPS)
def test_deferred_mail_does_not_notice(make_mta: MakeMta, tmp_path: Path, jump: str) -> None:
    """Nor does it after a crash. "c" is for a next hop that is down, and left alone for longer each time."""
    clock, down = FakeClock(tmp_path), free_port()
    config = relaying_to(1, relay={"retry": "1s", "max_age": "50m"})
    with Sink(busy_for("a@sink.test", "b@sink.test")) as sink:
        (route,) = config["route"]
        config["route"] = [
            {**route, "domain": "down.test", "next_hop": f"127.0.0.1:{down}"},
            {**route, "next_hop": f"127.0.0.1:{sink.port}"},
        ]
        with make_mta(config, environment=clock.environment) as mta:
            send(mta, "a@sink.test", "b@sink.test", "c@down.test")
            wait_for_attempts(mta, 1)
            clock.set(jump)
            # In the time in which the jump has not been noticed yet, too.
            wait_for_attempts(mta, 1)
            event = wait_until(lambda: logged(mta, "clock_jump"), 30, "the jump is noticed")[0]
            assert event["level"] == "warn"
            assert event["seconds"] == pytest.approx(JUMPS[jump].total_seconds(), abs=2)
            wait_for_attempts(mta, 2)
            wait_for_attempts(mta, 1, "c@down.test")
            sink.policy = busy_for("b@sink.test")
            assert sink.wait_for(1, 30)[0].forward_paths == ("a@sink.test",)
            # Or the crash would have it delivered again.
            wait_until(lambda: mta.queued() == 2, 10, "the delivery is recorded")
            wait_until(lambda: ahead(mta) == pytest.approx(-JUMPS[jump].total_seconds(), abs=2), 10, "it is kept")
            assert logged(mta, "failed") == []
            mta.kill()
            mta.start()
            wait_for_attempts(mta, 2, "b@sink.test")
            assert mta.queued() == 2
            sink.policy = busy_for()
            assert sink.wait_for(2, 30)[1].forward_paths == ("b@sink.test",)
            with Sink(port=down) as late:
                assert late.wait_for(1, 30)[0].forward_paths == ("c@down.test",)
            send(mta, "d@sink.test")
            came = sink.wait_for(3, 30)[2]
            wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
            assert logged(mta, "failed") == []
    # People are shown the time that the clock says now.
    assert abs(shown(came) - datetime.now(UTC) - JUMPS[jump]) < timedelta(minutes=5)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_after_a_long_outage_everything_is_tried_once_more(make_mta: MakeMta, tmp_path: Path, up: bool) -> None:
    """Nobody can tell it from a clock that was set while the server was down: the time counts, but not untried."""
    clock, port = FakeClock(tmp_path), free_port()
    config = relaying_to(port, relay={"retry": "1s", "max_age": "5d"})
    mta = make_mta(config, environment=clock.environment)
    with mta:
        send(mta, "a@sink.test")
        wait_for_attempts(mta, 1)
    clock.set("+6d")
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink(port=port)) if up else None
        stack.enter_context(mta)
        if sink is not None:
            assert sink.wait_for(1, 30)[0].forward_paths == ("a@sink.test",)
            assert logged(mta, "failed") == []
        else:
            (failed,) = wait_until(lambda: logged(mta, "failed"), 60, "the message is given up")
            assert "refused" in failed["reply"]
            assert failed["delay"] > 5 * 86400


def test_a_message_does_get_too_old(make_mta: MakeMta, tmp_path: Path) -> None:
    """After a jump back, too, what has been tried for max_age is given up, no later."""
    clock = FakeClock(tmp_path)
    with Sink(busy_for("a@sink.test")) as sink:
        config = relaying_to(sink.port, relay={"retry": "1s", "max_age": "10s"})
        with make_mta(config, environment=clock.environment) as mta:
            send(mta, "a@sink.test")
            wait_for_attempts(mta, 1)
            clock.set("-1h")
            wait_until(lambda: logged(mta, "clock_jump"), 30, "the jump is noticed")
            (failed,) = wait_until(lambda: logged(mta, "failed"), 60, "the message is given up")
    assert 10 <= failed["delay"] < 60
