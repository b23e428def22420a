"""The certificate of the set-up that needs no file: made by ourselves, for trying things out. It convinces nobody."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtatwist.store.datadir import replace_file

VALID_FOR = datetime.timedelta(days=397)
"""The longest that today's clients accept of anybody."""

RENEWED_BEFORE = datetime.timedelta(days=30)
"""How long before its end a certificate is made again: early enough that nobody is warned of it."""

_BACKDATED = datetime.timedelta(hours=1)

LOCALHOST = "localhost"


def ensure(certificate: str, private_key: str, hostname: str, *, now: datetime.datetime) -> bool:
    """Make sure that both files are there and good for ``hostname``; tell whether the certificate is a new one.

    A key that is there stays, whatever becomes of the certificate. Both are for their owner only. Whatever else was in
    the files is overwritten: these paths must be ours. Raises OSError.
    """
    key = _read_key(private_key)
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(private_key, private)
    if _is_good(certificate, key, hostname, now):
        return False
    _write(certificate, _sign(key, hostname, now).public_bytes(serialization.Encoding.PEM))
    return True


def _read_key(path: str) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _is_good(path: str, key: ec.EllipticCurvePrivateKey, hostname: str, now: datetime.datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(Path(path).read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    return (
        found.public_key() == key.public_key()
        and hostname in names.get_values_for_type(x509.DNSName)
        and found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEWED_BEFORE
    )


def _sign(key: ec.EllipticCurvePrivateKey, hostname: str, now: datetime.datetime) -> x509.Certificate:
    """A certificate that vouches for itself (RFC 5280 §3.2)."""
    # A common name has room for 64 characters, and nobody looks at it any more.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    names: list[x509.GeneralName] = [x509.DNSName(hostname)]
    if hostname == LOCALHOST:
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: str, content: bytes) -> None:
    """Put a whole file in place, on disk, readable by its owner only."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    replace_file(path, content)
