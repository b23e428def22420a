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
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

JUMPS = {"+6d": timedelta(days=6), "-1h": timedelta(hours=-1)}


def send(mta: Mta, to: str = "a@sink.test") -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        assert client.transaction("sender@client.test", [to], HEAD).code == 250


def logged(mta: Mta, name: str) -> list[dict[str, Any]]:
    return [event for event in mta.events() if event["event"] == name]


def wait_for_attempts(mta: Mta, count: int) -> None:
    """Until ``count`` more attempts have failed."""
    before = len(logged(mta, "deferred"))
    wait_until(lambda: len(logged(mta, "deferred")) >= before + count, 60, lambda: f"another attempt: {mta.log()}")


def ahead(mta: Mta) -> float:
    """How far the queue's time is ahead of the clock, as far as the disk knows."""
    path = str(mta.data_dir / SPOOL)
    with contextlib.closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as spool:
        return sum(value for (value,) in spool.execute("SELECT ahead FROM clock"))


@pytest.mark.parametrize("restart", [False, True], ids=["running", "killed"])
@pytest.mark.parametrize("jump", JUMPS)
def test_deferred_mail_does_not_notice(make_mta: MakeMta, tmp_path: Path, jump: str, restart: bool) -> None:
    clock, port = FakeClock(tmp_path), free_port()
    config = relaying_to(port, relay={"retry": "1s, 3s", "max_age": "50m"})
    with make_mta(config, environment=clock.environment) as mta:
        send(mta)
        wait_for_attempts(mta, 1)
        clock.set(jump)
        # In the time in which the jump has not been noticed yet, too.
        wait_for_attempts(mta, 1)
        event = wait_until(lambda: logged(mta, "clock_jump"), 30, "the jump is noticed")[0]
        assert event["level"] == "warn"
        assert event["seconds"] == pytest.approx(JUMPS[jump].total_seconds(), abs=2)
        if restart:
            wait_until(lambda: ahead(mta) == pytest.approx(-JUMPS[jump].total_seconds(), abs=2), 10, "it is kept")
            mta.kill()
            mta.start()
        wait_for_attempts(mta, 2)
        assert mta.queued() == 1
        with Sink(port=port) as sink:
            assert sink.wait_for(1, 30)[0].forward_paths == ("a@sink.test",)
            send(mta, "b@sink.test")
            came = sink.wait_for(2, 30)[1]
            wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
        assert logged(mta, "failed") == []
    date = parsedate_to_datetime(came.content.partition(b"\r\nFrom:")[0].rpartition(b";")[2].strip().decode())
    # People are shown the time that the clock says now.
    assert abs(date - datetime.now(UTC) - JUMPS[jump]) < timedelta(minutes=5)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_after_a_long_outage_everything_is_tried_once_more(make_mta: MakeMta, tmp_path: Path, up: bool) -> None:
    """Nobody can tell it from a clock that was set while the server was down: the time counts, but not untried."""
    clock, port = FakeClock(tmp_path), free_port()
    config = relaying_to(port, relay={"retry": "1s", "max_age": "5d"})
    mta = make_mta(config, environment=clock.environment)
    with mta:
        send(mta)
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
    clock, port = FakeClock(tmp_path), free_port()
    config = relaying_to(port, relay={"retry": "1s", "max_age": "15s"})
    with make_mta(config, environment=clock.environment) as mta:
        send(mta)
        wait_for_attempts(mta, 1)
        clock.set("-1h")
        wait_until(lambda: logged(mta, "clock_jump"), 30, "the jump is noticed")
        (failed,) = wait_until(lambda: logged(mta, "failed"), 60, "the message is given up")
    assert 15 <= failed["delay"] < 60
