"""What is said of a certificate and a key before they are shown to anybody."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from rigs import certificates
from tls.handshakes import shake_hands

from mtatwist.tls.client import client_context
from mtatwist.tls.examine import examine
from mtatwist.tls.keypair import CertificateError, Files, KeyPair, read
from mtatwist.tls.policy import Policy
from mtatwist.tls.server import Contexts, ServerTls

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS1, PKCS8 = serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8
CLEAR = serialization.NoEncryption()


def sign(key: Any, *extensions: x509.ExtensionType, by: Any = None, names: tuple[str, ...] = ("mta.test",)) -> Any:
    """A certificate for a key, signed by itself or by another."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "common.test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(san, critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = by or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def put(directory: Path, chain: list[Any], key: Any, format: Any = PKCS8, encryption: Any = CLEAR) -> Files:
    """Write a pair."""
    files = Files(str(directory / "x.pem"), str(directory / "x.key"))
    Path(files.certificate).write_bytes(b"".join(each.public_bytes(PEM) for each in chain))
    Path(files.private_key).write_bytes(key.private_bytes(PEM, format, encryption))
    os.chmod(files.private_key, 0o600)
    return files


def curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("format", [PKCS1, PKCS8], ids=["traditional", "PKCS#8"])
@pytest.mark.parametrize("kind", ["RSA", "EC", "Ed25519"])
def test_every_form_of_a_key_is_read(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, kind: str, format: Any) -> None:
    """PKCS#1, SEC1 and PKCS#8."""
    key: Any = {"RSA": rsa_key, "EC": curve(), "Ed25519": ed25519.Ed25519PrivateKey.generate()}[kind]
    format = PKCS8 if kind == "Ed25519" else format
    pair = read(put(tmp_path, [sign(key)], key, format))
    server = ServerTls()
    server.use(Contexts([pair], Policy()))
    assert shake_hands(server, client_context("mta.test", False))[1].heard == b"hello"
    assert pair.doubts == ()


def test_what_openssl_writes_is_read(tmp_path: Path) -> None:
    """With the curve's parameters before the key."""
    key, certificate = tmp_path / "x.key", tmp_path / "x.pem"
    names = "subjectAltName=DNS:A.test,DNS:*.b.test"
    for command in (
        f"ecparam -name prime256v1 -genkey -out {key}",
        f"req -x509 -new -key {key} -subj /CN=x -addext {names} -days 2 -out {certificate}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    assert key.read_bytes().startswith(b"-----BEGIN EC PARAMETERS-----")
    assert read(Files(str(certificate), str(key))).names == ("a.test", "*.b.test")


def test_both_may_stand_in_one_file(tmp_path: Path) -> None:
    key = curve()
    files = put(tmp_path, [sign(key)], key)
    both = Path(files.private_key)
    both.write_bytes(both.read_bytes() + Path(files.certificate).read_bytes())
    assert read(Files(str(both), str(both))).names == ("mta.test",)


def refused(files: Files) -> tuple[str, str]:
    """The key and the reason of the refusal."""
    with pytest.raises(CertificateError) as caught:
        read(files)
    assert str(caught.value) == f"{caught.value.key}: {caught.value.reason}"
    assert "\n" not in caught.value.reason
    return caught.value.key, caught.value.reason


def _text(path: Path) -> None:
    path.write_text("not PEM")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 30)


def _damaged(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][::-1], *lines[2:]]))


@pytest.mark.parametrize(
    ("spoil", "certificate", "key"),
    [
        (Path.unlink, "No such file or directory", "No such file or directory"),
        (_text, "is not a certificate in PEM form", "is not a private key in PEM form"),
        (_directory, "Is a directory", "Is a directory"),
        (_pipe, "is not a file", "is not a file"),
        (_huge, "is larger than 1 MiB", "is larger than 1 MiB"),
        (_damaged, "has a certificate that is damaged", "has a private key that is damaged"),
    ],
    ids=["missing", "text", "directory", "pipe", "huge", "damaged"],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], certificate: str, key: str
) -> None:
    for which, reason in ((0, certificate), (1, key)):
        place = tmp_path / str(which)
        place.mkdir()
        made = curve()
        files = put(place, [sign(made)], made)._replace(table="tls.name[2]")
        spoil(Path(files[which]))
        name, why = refused(files)
        assert name == ("tls.name[2].certificate", "tls.name[2].private_key")[which]
        assert why.startswith(files[which])
        assert reason in why


def test_files_that_are_taken_for_each_other(tmp_path: Path) -> None:
    key = curve()
    files = put(tmp_path, [sign(key)], key)
    swapped = Files(files.private_key, files.certificate)
    assert "but a private key: write the file with the certificate" in refused(swapped)[1]
    assert "but a certificate: write the file with its key" in refused(files._replace(private_key=files[0]))[1]


def test_der_is_recognised(tmp_path: Path) -> None:
    key = curve()
    files = put(tmp_path, [sign(key)], key)
    Path(files.private_key).write_bytes(key.private_bytes(DER, PKCS8, CLEAR))
    assert "openssl pkey -inform der" in refused(files)[1]
    Path(files.certificate).write_bytes(sign(key).public_bytes(DER))
    assert "openssl x509 -inform der" in refused(files)[1]


@pytest.mark.parametrize("format", [PKCS1, PKCS8], ids=["traditional", "PKCS#8"])
def test_an_encrypted_key_is_refused_with_a_cure(tmp_path: Path, format: Any) -> None:
    key = curve()
    files = put(tmp_path, [sign(key)], key, format, serialization.BestAvailableEncryption(b"secret"))
    name, reason = refused(files)
    assert name == "tls.private_key"
    assert "is encrypted" in reason
    assert f"openssl pkey -in {files.private_key} -out NEW" in reason


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "has 1024 bits"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "is on the curve secp256k1"),
        (lambda: dsa.generate_private_key(1024), "is of a kind that TLS can't use"),
        (x25519.X25519PrivateKey.generate, "is of a kind that TLS can't use"),
    ],
    ids=["short RSA", "odd curve", "DSA", "no signatures"],
)
def test_keys_that_no_client_takes_are_refused(tmp_path: Path, make: Callable[[], Any], reason: str) -> None:
    name, why = refused(put(tmp_path, [sign(curve())], make()))
    assert name == "tls.private_key"
    assert reason in why


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    name, reason = refused(put(tmp_path, [sign(curve())], curve()))
    assert name == "tls.private_key"
    assert "is not the key of" in reason


def test_a_chain_that_begins_with_another_is_refused(tmp_path: Path) -> None:
    key, other = curve(), curve()
    name, reason = refused(put(tmp_path, [sign(other), sign(key)], key))
    assert name == "tls.certificate"
    assert "has the key's certificate in place 2: it must come first" in reason


def doubts(pair: KeyPair) -> str:
    """What is said of a pair that works."""
    return "\n".join(pair.doubts)


def test_what_works_but_should_be_looked_at(tmp_path: Path) -> None:
    key, other = curve(), curve()
    assert "is for no DNS name" in doubts(read(put(tmp_path, [sign(key, names=())], key)))
    chain = [sign(key), sign(other)]
    assert "must be followed by the one that signed it" in doubts(read(put(tmp_path, chain, key)))
    chain = [sign(key, by=other), sign(other)]
    assert doubts(read(put(tmp_path, chain, key))) == ""
    place = x509.UniformResourceIdentifier("http://authority.test/x.crt")
    issuer = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
    alone = sign(key, x509.AuthorityInformationAccess([issuer]), by=other)
    assert "without the intermediate certificate" in doubts(read(put(tmp_path, [alone], key)))
    client = sign(key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    assert "is not for servers" in doubts(read(put(tmp_path, [client], key)))


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_that_everybody_can_read(tmp_path: Path, mode: int, told: bool) -> None:
    """A group may: Debian has one for that, ssl-cert."""
    key = curve()
    files = put(tmp_path, [sign(key)], key)
    os.chmod(files.private_key, mode)
    assert ("can be read by everybody" in doubts(read(files))) == told


@pytest.mark.parametrize(
    ("after", "words"), [(0 * DAY, ""), (2 * DAY, "has expired on"), (-2 * DAY, "is not valid before")]
)
def test_dates_are_no_reason_not_to_start(tmp_path: Path, after: datetime.timedelta, words: str) -> None:
    """Most of the others don't look at them: mail with a doubt is better than no mail."""
    key = curve()
    files = put(tmp_path, [sign(key)], key)
    problems, warnings = examine([files], Policy(), now=NOW + after)
    assert problems == []
    assert [words in warning for warning in warnings] == ([True] if words else [])


def test_all_pairs_are_examined(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        made = certificates.make(tmp_path / name)
        files.append(Files(str(made.certificate), str(made.key), name))
    Path(files[0].private_key).write_text("x")
    Path(files[2].certificate).unlink()
    problems, _ = examine(files, Policy(), now=NOW)
    assert [problem.key for problem in problems] == ["one.private_key", "three.certificate"]


@pytest.mark.parametrize("content", [None, "not PEM"])
def test_authorities_of_clients_are_examined(tmp_path: Path, content: str | None) -> None:
    """Once, however many pairs there are."""
    made = certificates.make(tmp_path)
    authorities = tmp_path / "clients.pem"
    if content is not None:
        authorities.write_text(content)
    files = Files(str(made.certificate), str(made.key))
    problems, _ = examine([files, files], Policy("1.2", "ask", str(authorities)), now=NOW)
    assert [problem.key for problem in problems] == ["tls.client_ca_file"]
    assert str(authorities) in problems[0].reason
