"""The directory in force, and the ones that it has replaced."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receive.whole import toml
from rigs.certificates import Authority
from rigs.pump import Pump
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mtatwist.config import Config, ConfigError, load
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.metrics.instruments import Instruments
from mtatwist.wiring import directory as module
from mtatwist.wiring.directory import CurrentDirectory
from mtatwist.wiring.swap import KEPT, KEPT_SECONDS, nothing

FILTER = "(uid=x)"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def config(directory: Path, port: int, **ldap: str) -> Config:
    file = directory / "mta.toml"
    settings = {"uris": f'["ldap://127.0.0.1:{port}"]', "base_dn": '"dc=test"', "start_tls": "false", **ldap}
    file.write_text(toml({f"auth.ldap.{key}": value for key, value in settings.items()}))
    return load(file)


def told(asked: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    asked.addBoth(results.append)
    return results


def test_the_patience_of_another_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: int) -> None:
    """Who asked before waits as long as was said then."""
    made: list[float] = []
    access = module.Access

    def noted(**settings: Any) -> Any:
        made.append(settings["connect_seconds"])
        return access(**settings)

    monkeypatch.setattr(module, "Access", noted)
    pump = Pump()
    current = CurrentDirectory(config(tmp_path, silent, timeout='"9s"'), pump, Instruments())
    current.start()
    before = told(current.search(FILTER, ["mail"]))
    current.prepare(config(tmp_path, silent, timeout='"3s"', connect_timeout='"1s"'))()
    after = told(current.search(FILTER, ["mail"]))
    for_recipients = told(current.for_recipients.search(FILTER, ["mail"]))
    pump.advance(4)
    assert not before
    assert [each[0].type for each in (after, for_recipients)] == [DirectoryTrouble] * 2
    pump.advance(6)
    assert isinstance(before[0], Failure)
    assert made == [3.0, 1.0]
    pump.wait(Deferred.fromCoroutine(current.stop()))


def test_with_the_same_settings_it_is_the_same(tmp_path: Path, silent: int) -> None:
    current = CurrentDirectory(config(tmp_path, silent), Pump(), Instruments())
    assert current.prepare(config(tmp_path, silent)) is nothing


def test_its_authorities_may_be_others_in_the_same_file(tmp_path: Path, silent: int) -> None:
    one, two = Authority(tmp_path / "one.pem"), Authority(tmp_path / "two.pem")
    same = {"start_tls": "true", "ca_file": f'"{one.file}"'}
    current = CurrentDirectory(config(tmp_path, silent, **same), Pump(), Instruments())
    shutil.copy(two.file, one.file)
    assert current.prepare(config(tmp_path, silent, **same)) is not nothing
    one.file.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"auth\.ldap\.ca_file"):
        current.prepare(config(tmp_path, silent, **same))


def test_one_that_is_named_no_more(tmp_path: Path, silent: int) -> None:
    pump = Pump()
    current = CurrentDirectory(config(tmp_path, silent), pump, Instruments())
    current.start()
    assert current.exists
    file = tmp_path / "mta.toml"
    file.write_text(toml({}))
    current.prepare(load(file))()
    assert not current.exists
    for asked in (current.search(FILTER, []), current.bind("uid=x", "y"), current.for_recipients.search(FILTER, [])):
        (failed,) = told(asked)
        assert failed.type is DirectoryTrouble
    current.prepare(config(tmp_path, silent))()
    assert current.exists
    pump.wait(Deferred.fromCoroutine(current.stop()))


def test_those_that_were_replaced_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: int) -> None:
    """A while later, or when there are too many of them; and who still asks one of them then hears of it."""
    stopped: list[object] = []
    stop = module.Directory.stop

    def noted(self: Any) -> Deferred[None]:
        stopped.append(self)
        return stop(self)

    monkeypatch.setattr(module.Directory, "stop", noted)
    pump = Pump()
    current = CurrentDirectory(config(tmp_path, silent), pump, Instruments())
    current.start()
    for seconds in range(20, 21 + KEPT):
        current.prepare(config(tmp_path, silent, timeout=f'"{seconds}s"'))()
    assert len(stopped) == 1
    pump.advance(KEPT_SECONDS)
    assert len(stopped) == 1 + KEPT
    pump.wait(Deferred.fromCoroutine(current.stop()))
    assert len(stopped) == 2 + KEPT
