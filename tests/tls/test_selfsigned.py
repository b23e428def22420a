"""The certificate that the embedded set-up makes for itself."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from rigs import certificates
from tls.handshakes import Visitor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory

from mtatwist.config import load
from mtatwist.metrics.instruments import Instruments
from mtatwist.tls import selfsigned
from mtatwist.tls.keypair import CertificateError
from mtatwist.wiring import tls as wiring

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Made(NamedTuple):
    certificate: Path
    key: Path

    def ensure(self, hostname: str = "localhost", *, after: datetime.timedelta = 0 * DAY) -> bool:
        return selfsigned.ensure(str(self.certificate), str(self.key), hostname, now=NOW + after)

    def read(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "data" / "tls" / "x.pem", tmp_path / "data" / "tls" / "x.key")
    assert made.ensure()
    return made


def test_what_is_made(made: Made) -> None:
    certificate = made.read()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    for path in made:
        assert path.stat().st_mode & 0o777 == 0o600
    assert made.key.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(made.key.parent)) == ["x.key", "x.pem"]


def test_another_name_has_no_addresses(tmp_path: Path) -> None:
    long = ".".join(["name" * 10] * 5)
    made = Made(tmp_path / "x.pem", tmp_path / "x.key")
    made.ensure(long)
    names = made.read().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(long)]


def test_clients_that_are_told_to_trust_it_do(made: Made) -> None:
    """Also those that look at it strictly, as Python 3.13 does."""
    client = ssl.create_default_context(cafile=str(made.certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (here, there, here):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    there.do_handshake()
    assert there.version() == "TLSv1.3"


def test_later_starts_use_it_again(made: Made) -> None:
    before = [path.read_bytes() for path in made]
    assert not made.ensure(after=300 * DAY)
    assert [path.read_bytes() for path in made] == before


@pytest.mark.parametrize("after", [-2 * DAY, 380 * DAY, 500 * DAY], ids=["not yet valid", "soon over", "expired"])
def test_one_out_of_date_is_made_again_with_the_same_key(made: Made, after: datetime.timedelta) -> None:
    key = made.key.read_bytes()
    assert made.ensure(after=after)
    assert made.key.read_bytes() == key
    assert made.read().not_valid_before_utc <= NOW + after < made.read().not_valid_after_utc
    assert not made.ensure(after=after)


def test_one_for_another_name_is_made_again(made: Made) -> None:
    assert made.ensure("mta.test")
    assert not made.ensure("mta.test")


@pytest.mark.parametrize("content", [None, b"", b"not PEM"], ids=["missing", "empty", "text"])
@pytest.mark.parametrize("which", [0, 1], ids=["certificate", "key"])
def test_what_is_damaged_is_made_again(made: Made, which: int, content: bytes | None) -> None:
    made[which].unlink()
    if content is not None:
        made[which].write_bytes(content)
    assert made.ensure()
    assert not made.ensure()


def test_a_key_of_another_pair_is_not_shown_with_it(made: Made, tmp_path: Path) -> None:
    made.key.write_bytes(certificates.make(tmp_path).key.read_bytes())
    assert made.ensure()
    assert not made.ensure()


def test_what_a_crash_left_does_not_matter(made: Made) -> None:
    left = made.certificate.with_name(f".{made.certificate.name}.new")
    left.write_bytes(b"half a certif")
    left.chmod(0o644)
    assert made.ensure(after=500 * DAY)
    assert not left.exists()
    assert made.certificate.stat().st_mode & 0o777 == 0o600


def test_the_set_up_without_a_file_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made when the server starts, not before; the same at the next start; replaced while it runs."""
    monkeypatch.setattr(wiring, "_in_thread", lambda reactor, work, **arguments: maybeDeferred(work, **arguments))
    config = load(None, data_dir=str(tmp_path / "data"))
    clock = Clock()
    later = [0.0]
    serials = []
    for begins in (0, 1, 380):
        watch = wiring.make_tls(config, clock, Instruments(), wall=lambda: NOW.timestamp() + later[0])
        assert watch is not None
        if not begins:
            assert not (tmp_path / "data").exists()
        watch.load()
        watch.startService()
        if begins == 380:
            later[0] = 380 * DAY.total_seconds()
            clock.advance(30)
        factory = TLSMemoryBIOFactory(watch.server, False, Factory.forProtocol(Protocol), clock)
        visitor = Visitor(factory, name="localhost").shake_hands()
        assert visitor.saw == "localhost"
        certificate = visitor.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        serials.append(certificate.serial_number)
        watch.stopService()
    assert serials[0] == serials[1] != serials[2]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    watch = wiring.make_tls(load(None, data_dir=str(tmp_path / "data")), Clock(), Instruments(), wall=NOW.timestamp)
    assert watch is not None
    with pytest.raises(CertificateError, match=r"tls\.certificate: .*localhost\.pem can't be made: "):
        watch.load()
