"""What we ask of a next hop's TLS."""

from __future__ import annotations

import pytest
from rigs import certificates
from tls.handshakes import server, shake_hands

from mtatwist.tls.client import client_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.make(tmp_path_factory.mktemp("certificates"), "mta.test")


def test_any_certificate_will_do_where_it_is_not_verified(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("elsewhere.test", False))
    assert (here.heard, there.heard) == (b"hello", b"hello")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("mta.test", b"mta.test"),
        ("b\u00fccher.test", b"xn--bcher-kva.test"),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ],
)
def test_the_client_says_whom_it_looks_for(
    files: certificates.Files, host: str, asked: bytes | None, verify: bool
) -> None:
    names: list[bytes | None] = []
    context = server(files)
    context._contexts.default.set_tlsext_servername_callback(
        lambda connection: names.append(connection.get_servername())
    )
    shake_hands(context, client_context(host, verify))
    assert names == [asked]


@pytest.fixture
def trusted(files: certificates.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test authority is one of the system's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))


@pytest.mark.usefixtures("trusted")
def test_verify_takes_the_right_name(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("mta.test", True))
    assert (here.heard, there.heard) == (b"hello", b"hello")


@pytest.mark.usefixtures("trusted")
def test_verify_refuses_another_name(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("other.test", True))
    assert there.heard == here.heard == b""
    assert "for another host name" in there.why


def test_verify_refuses_an_unknown_authority(files: certificates.Files) -> None:
    here, there = shake_hands(server(files), client_context("mta.test", True))
    assert there.heard == here.heard == b""
    assert there.why == "certificate verify failed: unable to get local issuer certificate"
