"""One reading of the configuration after the other: when, how often, and what comes of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receive.whole import Whole, toml
from rigs.fake_dns import Zone
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from mtatwist.config import Config, ConfigError, Problem, load
from mtatwist.reread import Reading, read_again
from mtatwist.wiring.files import NamedFiles
from mtatwist.wiring.reload import Reloaded, Reloader


class Rig:
    """A reloader whose thread is the test: :meth:`work` lets it do what it is to do."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "mta.toml"
        self.file.write_text(toml({}))
        self.swapped: list[int] = []
        self.trouble: Exception | None = None
        self.swap_fails = False
        self._waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.reloader = Reloader(
            load(self.file),
            read=lambda running: read_again(self.file, running),
            prepare=self._prepare,
            files=NamedFiles(None),
            in_thread=self._later,
        )

    def _later(self, work: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._waiting.append((done, work))
        return done

    def _prepare(self, running: Config, config: Config) -> list[Callable[[], None]]:
        if self.trouble is not None:
            raise self.trouble

        def fail() -> None:
            raise ZeroDivisionError

        return (
            [fail, lambda: self.swapped.append(config.limits.recipients)]
            if self.swap_fails
            else [lambda: self.swapped.append(config.limits.recipients)]
        )

    def write(self, recipients: int, **more: str) -> None:
        self.file.write_text(toml({"limits.recipients": str(recipients), **more}))

    def ask(self) -> list[Any]:
        results: list[Any] = []
        self.reloader.reload().addBoth(results.append)
        return results

    def work(self) -> None:
        ((done, work),) = self._waiting
        self._waiting.clear()
        try:
            result: Any = work()
        except Exception:
            result = Failure()
        done.callback(result)

    @property
    def is_idle(self) -> bool:
        return not self._waiting


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_who_asks_while_it_is_read_hears_of_the_next_reading(rig: Rig) -> None:
    rig.write(1)
    first = rig.ask()
    second, third = rig.ask(), rig.ask()
    rig.work()
    assert first == [Reloaded(("limits.recipients",), ())]
    assert second == third == []
    rig.write(2)
    rig.work()
    assert second == third == [Reloaded(("limits.recipients",), ())]
    assert rig.swapped == [1, 2]
    assert rig.is_idle


def test_nothing_has_changed(rig: Rig) -> None:
    said = rig.ask()
    rig.work()
    assert said == [Reloaded((), ())]


def test_a_refusal_changes_nothing_and_the_next_time_is_as_any(rig: Rig) -> None:
    rig.write(0)
    said = rig.ask()
    with capturedLogs() as events:
        rig.work()
    assert said[0].check(ConfigError)
    (refused,) = [event for event in events if event["log_format"] == "reload_refused"]
    assert (refused["file"], refused["key"]) == (str(rig.file), "limits.recipients")
    assert rig.swapped == []
    rig.write(3)
    said = rig.ask()
    rig.work()
    assert said == [Reloaded(("limits.recipients",), ())]


def test_every_problem_is_told(rig: Rig) -> None:
    rig.write(0, **{"limits.hops": "0"})
    rig.ask()[:] = []
    with capturedLogs() as events:
        said = rig.ask()
        rig.work()
        rig.work()
    keys = [event["key"] for event in events if event["log_format"] == "reload_refused"]
    assert keys == ["limits.recipients", "limits.hops"] * 2
    assert len(said[0].value.problems) == 2


def test_a_part_that_can_not_be_built_keeps_all_the_others_out(rig: Rig) -> None:
    rig.write(1)
    rig.trouble = ConfigError([Problem("x", "auth.file", "is gone")])
    said = rig.ask()
    rig.work()
    assert said[0].value is rig.trouble
    assert (rig.swapped, rig.reloader.running.limits.recipients) == ([], 100)


def test_a_bug_is_told_of_and_changes_nothing(rig: Rig) -> None:
    rig.write(1)
    rig.trouble = ZeroDivisionError()
    said = rig.ask()
    with capturedLogs() as events:
        rig.work()
    assert said[0].check(ConfigError)
    assert "bug" in str(said[0].value)
    assert any(event["log_level"] is LogLevel.critical for event in events)
    assert rig.swapped == []


def test_a_bug_in_one_part_leaves_none_of_the_others_behind(rig: Rig) -> None:
    rig.write(1)
    rig.swap_fails = True
    said = rig.ask()
    with capturedLogs() as events:
        rig.work()
    assert rig.swapped == [1]
    assert said == [Reloaded(("limits.recipients",), ())]
    assert any(event["log_format"] == "reload_failed" for event in events)


def test_a_server_that_stops_meanwhile_changes_nothing(rig: Rig) -> None:
    rig.write(1)
    said = rig.ask()
    rig.reloader.stop()
    rig.work()
    assert "stopping" in str(said[0].value)
    assert rig.swapped == []


def test_the_embedded_set_up_has_nothing_to_change(tmp_path: Path) -> None:
    config = load(None, data_dir=str(tmp_path))
    assert read_again(None, config, data_dir=str(tmp_path)) == Reading(config, (), ())


def test_the_directory_of_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mta.toml"
    file.write_text(toml({"server.data_dir": '"one"'}))
    running = load(file, data_dir=str(tmp_path / "other"))
    file.write_text(toml({"server.data_dir": '"two"'}))
    assert read_again(file, running, data_dir=str(tmp_path / "other"))[1:] == ((), ())


def test_a_path_that_hangs_on_what_takes_a_restart_stays_with_it(tmp_path: Path) -> None:
    """The users' file lies in the data directory unless it is named."""
    file = tmp_path / "mta.toml"
    file.write_text(toml({"server.data_dir": '"one"'}))
    running = load(file)
    file.write_text(toml({"server.data_dir": '"two"', "route.transport": '"maildir"', "route.next_hop": '"boxes"'}))
    config, changed, restart = read_again(file, running)
    assert restart == ("server.data_dir", "control.socket")
    assert config.auth.file == running.auth.file
    assert config.routes[0].next_hop == str(tmp_path / "one" / "boxes")
    assert set(changed) == {"route[0].transport", "route[0].next_hop"}


def test_a_session_ends_as_it_began(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its transaction, too: what was said of the domain and the size when it began holds to its end."""
    server = Whole(monkeypatch, tmp_path)
    before = server.connect()
    assert before.begin().endswith("250 2.1.5 Recipient ok\r\n")
    server.reload({"relay.domains": '["there.test"]', "limits.message_size": '"1KiB"', "server.hostname": '"b.test"'})
    before.say("DATA")
    assert before.say(b"Subject: x\r\n\r\n" + b"hello\r\n" * 1000 + b".\r\n").startswith("250")
    assert before.begin("you@here.test").endswith("250 2.1.5 Recipient ok\r\n")
    after = server.connect()
    assert after.greeting.startswith("220 b.test")
    assert after.begin("you@here.test").splitlines()[-1].startswith("550")


def test_open_sessions_count_for_other_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = Whole(monkeypatch, tmp_path)
    sessions = [server.connect() for _ in range(3)]
    server.reload({"limits.connections_per_address": "3"})
    assert server.connect().greeting.startswith("421")
    assert not any(each.ended for each in sessions)
    sessions[0].protocol.connectionLost()
    assert server.connect().greeting.startswith("220")


def test_what_was_sent_counts_for_another_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside = {"listen.role": '"submission"', "auth.require_tls": "false"}
    server = Whole(monkeypatch, tmp_path, {**beside, "submission.messages": '["5/h"]'})

    def send() -> str:
        session = server.connect()
        session.say("EHLO client.test", "AUTH PLAIN AGFsaWNlAHNlY3JldA==")
        said = session.say("MAIL FROM:<alice@example.org>")
        session.say("RCPT TO:<you@away.test>", "DATA", ".")
        return said

    assert [send()[:3] for _ in range(3)] == ["250"] * 3
    server.reload({**beside, "submission.messages": '["4/h"]'})
    assert [send()[:3] for _ in range(2)] == ["250", "450"]


def test_the_cache_of_the_dns_and_what_was_set_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both stay; but answers of other servers than are asked now are forgotten."""
    beside = {"dns.servers": '["192.0.2.1"]'}
    server = Whole(monkeypatch, tmp_path, beside)
    server.network.default = Zone("a.test 300 TXT a")
    resolver = server.mta.dns.resolver

    def look_up() -> int:
        Deferred.fromCoroutine(resolver.lookup("a.test", "TXT"))
        server.pass_time(0.1)
        return len(server.network.sent)

    resolver.overrides.set("by.hand.test", ["192.0.2.9"])
    assert look_up() == 1
    server.reload({**beside, "dns.maximum_ttl": '"2h"'})
    assert look_up() == 1
    server.reload({"dns.servers": '["192.0.2.2"]'})
    assert look_up() == 2
    assert "by.hand.test" in resolver.overrides
