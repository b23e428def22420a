"""Many sessions that do nothing take little memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs import certificates
from rigs.idle import octets_a_session
from rigs.mta import Mta, relaying_to

MakeMta = Callable[..., Mta]

pytestmark = pytest.mark.fresh_start

FIRST_TARGET = 40_000


@pytest.mark.parametrize("tls", ["none", "implicit"])
def test_the_memory_of_an_idle_session(make_mta: MakeMta, tmp_path: Path, tls: str) -> None:
    files = certificates.make(tmp_path)
    config = relaying_to(
        2525,
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx", "tls": tls}],
        tls={"certificate": str(files.certificate), "private_key": str(files.key)},
    )
    context = ssl.create_default_context(cafile=str(files.authority)) if tls == "implicit" else None
    with make_mta(config) as mta:
        assert octets_a_session(mta, 0, 300, context) < FIRST_TARGET
