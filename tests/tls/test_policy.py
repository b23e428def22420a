"""What clients may use, and what the server tells them."""

from __future__ import annotations

import pytest
from OpenSSL import SSL
from rigs import certificates
from tls.handshakes import Limited, server, shake_hands

from mtatwist.tls.policy import Policy


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Files:
    return certificates.make(tmp_path_factory.mktemp("certificates"), "mta.test")


@pytest.mark.parametrize(
    ("minimum", "client", "heard"),
    [
        ("1.2", Limited(SSL.TLS1_2_VERSION), b"hello"),
        ("1.3", Limited(SSL.TLS1_2_VERSION), b""),
        ("1.3", Limited(SSL.TLS1_3_VERSION), b"hello"),
        ("1.2", Limited(SSL.TLS1_1_VERSION), b""),
        ("1.2", Limited(SSL.TLS1_2_VERSION, b"AES128-SHA:ECDHE-ECDSA-AES128-SHA"), b""),
    ],
    ids=["1.2", "1.2 is too old", "1.3", "1.1 is too old", "weak ciphers"],
)
def test_what_clients_may_use(files: certificates.Files, minimum: str, client: Limited, heard: bytes) -> None:
    _, there = shake_hands(server(files, policy=Policy(minimum)), client)
    assert there.heard == heard
