"""Several certificates, chosen by the name that the client asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import certificates
from tls.handshakes import Visitor, server
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> TLSMemoryBIOFactory:
    """Of a server with several certificates."""
    made = []
    for name in ("mx.example.org", "*.example.org", "mail.example.net", "*.Example.NET", "mail.example.net"):
        directory: Path = tmp_path_factory.mktemp("certificates")
        made.append(certificates.make(directory, name))
    return TLSMemoryBIOFactory(server(*made), False, Factory.forProtocol(Protocol), Clock())


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("", "mx.example.org"),
        ("mx.example.org", "mx.example.org"),
        ("MX.Example.Org", "mx.example.org"),
        ("mx.example.org.", "mx.example.org"),
        ("mail.example.org", "*.example.org"),
        ("a.mail.example.org", "mx.example.org"),
        ("example.org", "mx.example.org"),
        (".example.org", "mx.example.org"),
        ("mail.example.net", "mail.example.net"),
        ("imap.example.net", "*.Example.NET"),
        ("elsewhere.test", "mx.example.org"),
        ("localhost", "mx.example.org"),
        ("a" * 250, "mx.example.org"),
    ],
)
@pytest.mark.parametrize("newest", [0x303, 0x304], ids=["1.2", "1.3"])
def test_the_certificate_that_has_the_name(factory: TLSMemoryBIOFactory, asked: str, shown: str, newest: int) -> None:
    """Exactly, or with a star for the first label and only that; else the default."""
    assert Visitor(factory, name=asked, newest=newest).shake_hands().saw == shown
