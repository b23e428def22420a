"""What can be asked of the server as a whole, and changed of it, over the control socket."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from control.visitor import Site
from receive.whole import Whole
from rigs.probe import ask as probe
from rigs.probe import health
from twisted.internet.defer import Deferred

from mtatwist.control.commands import (
    PAGE_BYTES,
    BadArgument,
    Drain,
    Reload,
    SetLogLevel,
    Status,
    Unavailable,
)
from mtatwist.control.system import LONGEST_REASON, Refused, SystemVerbs
from mtatwist.health.readiness import Phase
from mtatwist.wiring.control import make_responders
from mtatwist.wiring.system import COUNT_SECONDS

HEALTH = {"health.endpoint": '"tcp:8080:interface=127.0.0.1"'}


class Asking:
    """An administrator before a whole server in memory."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path) -> None:
        self.server = Whole(patch, directory, HEALTH)
        self.visitor = Site(make_responders(self.server.mta, self.server.reactor)).visitor()
        self.visitor.hello()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.visitor.ask(Status)["status"]
        return status

    def ready(self) -> tuple[int, Any]:
        answer = probe(health(self.server))
        return answer.code, answer.said["reasons"]


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asking:
    return Asking(monkeypatch, tmp_path)


def test_status(asking: Asking) -> None:
    server = asking.server
    server.connect().send()
    status = asking.status()
    assert (status["phase"], status["ready"], status["reasons"]) == ("running", True, {})
    assert status["queue"] == {"pending": 0, "deferred": 0, "held": 0, "due": 0, "oldest": 0.0}
    assert (status["sessions"], status["in_flight"]) == (1, 1)
    assert status["health"]["port"] == 8080
    assert status["certificates"] == status["directory"] == []
    assert status["collector"] is None
    server.pass_time(90)
    assert asking.status()["uptime"] == pytest.approx(status["uptime"] + 90)


def test_the_status_of_a_server_in_trouble(asking: Asking) -> None:
    asking.server.spool.trouble = "no disk"
    status = asking.status()
    assert status["queue"] is None
    assert status["spool"]["trouble"] == "no disk"
    assert status["reasons"] == {"spool": "trouble: no disk"}
    assert not status["ready"]


def test_the_status_does_not_wait_for_a_disk_that_hangs(asking: Asking) -> None:
    asking.server.spool.survey = lambda now: Deferred()
    asked = asking.visitor.send(Status)
    assert asking.visitor.answer(Status, asked) is None
    asking.server.pass_time(COUNT_SECONDS)
    assert asking.visitor.answer(Status, asked)["status"]["queue"] is None


def test_draining_and_its_end(asking: Asking) -> None:
    server = asking.server
    patient = server.connect()
    assert asking.visitor.ask(Drain, drain=True) == {"phase": "draining"}
    assert asking.ready() == (503, {"server": "draining"})
    assert asking.status()["phase"] == "draining"
    assert server.connect().greeting.startswith("421 4.3.2 ")
    assert asking.visitor.ask(Drain, drain=False) == {"phase": "running"}
    assert asking.ready() == (200, {})
    assert patient.send().startswith("250 ")
    assert server.connect().greeting.startswith("220 ")


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
@pytest.mark.parametrize("drain", [True, False])
def test_a_server_that_starts_or_stops_is_left_alone(asking: Asking, phase: Phase, drain: bool) -> None:
    asking.server.mta.watching.readiness.phase = phase
    assert asking.visitor.ask(Drain, drain=drain) == (Unavailable, "the server is starting or stopping")
    assert asking.server.mta.watching.readiness.phase is phase
    assert not asking.server.mta.sessions.draining


def test_the_log_level(asking: Asking) -> None:
    assert asking.visitor.ask(SetLogLevel, level="debug") == {"before": "info"}
    assert asking.visitor.ask(SetLogLevel, level="warn") == {"before": "debug"}
    assert asking.status()["log_level"] == "warn"
    for level in ("", "critical", "INFO", "x" * 5000):
        assert asking.visitor.ask(SetLogLevel, level=level)[0] is BadArgument
    assert asking.server.mta.threshold.level == "warn"


class Played:
    """Verbs on a server that is played."""

    def __init__(self, **settings: Any) -> None:
        async def nothing() -> dict[str, Any]:
            return {}

        given: dict[str, Any] = {
            "status": nothing,
            "reload": nothing,
            "drain": lambda drain: None,
            "log_level": lambda level: "info",
            **settings,
        }
        self.visitor = Site(SystemVerbs(**given).responders()).visitor()
        self.visitor.hello()


def test_a_long_status_is_shortened_to_what_fits() -> None:
    async def long() -> dict[str, Any]:
        return {
            "phase": "running",
            "certificates": [{"names": ["x" * 250] * 50} for _ in range(100)],
            "warnings": [f"warning {number}" for number in range(10)],
        }

    status = Played(status=long).visitor.ask(Status)["status"]
    assert len(orjson.dumps(status)) <= PAGE_BYTES
    assert len(status["warnings"]) == 10
    assert status["certificates"]
    assert status["left_out"] == {"certificates": 100 - len(status["certificates"])}


def test_a_reload() -> None:
    async def taken() -> Any:
        return SimpleNamespace(
            changed=("relay.retry",), restart=("listen",), certificates=("mta.pem",), warnings=("w" * 5000,)
        )

    assert Played(reload=taken).visitor.ask(Reload) == {
        "outcome": "taken",
        "changed": ["relay.retry"],
        "restart": ["listen"],
        "certificates": ["mta.pem"],
        "warnings": ["w" * LONGEST_REASON],
        "problems": [],
    }


def test_a_reload_that_is_refused_for_very_many_reasons() -> None:
    async def refused() -> Any:
        raise Refused([SimpleNamespace(file="mta.toml", key=f"key{n}", reason="r" * 5000) for n in range(500)])

    answer = Played(reload=refused).visitor.ask(Reload)
    assert (answer["outcome"], answer["changed"], answer["restart"]) == ("refused", [], [])
    assert len(orjson.dumps(answer["problems"])) <= PAGE_BYTES
    assert answer["problems"][0] == {"file": "mta.toml", "key": "key0", "reason": "r" * LONGEST_REASON}
    assert len(answer["problems"]) > 50
