"""docs/administration-session.rst: an administrator's session with 200,000 messages in the queue, replayed."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.backlog import fill
from rigs.client import Client
from rigs.control import SOCKET, mtactl_command
from rigs.dnslab import DnsLab
from rigs.mta import Mta, _environment, relaying_to
from rigs.sink import Sink
from rigs.transcript import replay, steps

PAGE = Path(__file__).parents[2] / "docs" / "administration-session.rst"
WAITING = 200_000
PARTNERS = 100

LOOKS = re.compile(r"mtactl (?:--json )?(queue (list|show|stats|shape)|why|system (ping|status)|dns list|auth locks)\b")
"""Commands that change nothing: what they tell of may take a moment to happen."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as it:
        yield it


def login(mta: Mta, user: str, secret: str) -> None:
    with Client(mta.address("submission")) as client:
        client.expect(250, "EHLO client.test")
        client.expect(535, "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{secret}".encode()).decode())


def test_the_session(tmp_path: Path, sink: Sink) -> None:
    partners = (f"user{number}@partner.test" for number in range(PARTNERS))
    customers = (f"user{number}@customer.test" for number in range(WAITING - PARTNERS))
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "mtactl"
    words = " ".join(f"'{word}'" if " " not in word else f'"{word}"' for word in mtactl_command())
    shim.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "lab").mkdir(exist_ok=True)
    with DnsLab(tmp_path / "lab") as lab:
        mta = Mta(
            tmp_path,
            relaying_to(
                sink.port,
                listen=[
                    {"endpoint": f"tcp:0:interface={host}", "role": role, "tls": "none"}
                    for role, host in (("mx", "127.0.0.1"), ("submission", "127.0.0.2"))
                ],
                relay={"networks": ["127.0.0.0/8"], "domains": ["example.org"], "retry": "1h", "max_age": "5d"},
                route=[
                    {"domain": "customer.test", "transport": "smtp", "next_hop": "127.0.0.1:9", "tls": "none"},
                    {
                        "domain": "partner.test",
                        "transport": "smtp",
                        "next_hop": f"127.0.0.1:{sink.port}",
                        "tls": "none",
                    },
                    {"domain": "example.org", "transport": "maildir", "next_hop": str(tmp_path / "mail" / "{local}")},
                ],
                auth={"backend": "file", "require_tls": False, "file": str(tmp_path / "users")},
                dns={"servers": [lab.server]},
            ),
        )
        fill(mta.data_dir, [*partners, *customers], age=7500)
        (tmp_path / "users").touch(0o600)
        environment = {
            **_environment(),
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "MTACTL_SOCKET": str(mta.data_dir / SOCKET),
        }
        sink.go_down()
        with mta:
            for number in range(5):
                login(mta, "ann", f"guess{number}")
            for step in steps(PAGE.read_text("utf-8")):
                if "--domain partner.test" in step.command and " retry " in step.command:
                    # The story has it that their server is there again.
                    sink.come_up()
                replay(step, tmp_path, environment, again=LOOKS.match(step.command) is not None)
            assert len(sink.wait_for(PARTNERS)) >= PARTNERS
            assert not mta.complaints()
