"""A certificate and its private key, read from PEM files and looked at closely before anybody is shown them."""

from __future__ import annotations

import datetime
import os
import stat
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from mtatwist.regular_file import NotRegular, TooLarge, read_regular

FILE_LIMIT = 1 << 20
"""Octets of a file that are read: a chain and its key have a few thousand."""

RSA_BITS = 2048
"""What an RSA key must have at least (NIST SP 800-57 part 1, until 2030)."""

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""The curves whose signatures clients of TLS know (RFC 8422 §5.1.1)."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class CertificateError(Exception):
    """The certificate or its key can't be used; the message says which, why and what helps.

    :ivar key: the configuration key that names the file.
    :ivar reason: what is wrong with it.
    :ivar forbidden: whether that is only that this user may not read it.
    """

    def __init__(self, key: str, reason: str, *, forbidden: bool = False) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
        self.forbidden = forbidden


class Files(NamedTuple):
    """Where a pair lies. ``table`` is where the configuration says so, such as "tls" or "tls.name[0]"."""

    certificate: str
    private_key: str
    table: str = "tls"

    @property
    def certificate_key(self) -> str:
        """The configuration key that names the certificate."""
        return f"{self.table}.certificate"

    @property
    def private_key_key(self) -> str:
        """The configuration key that names the private key."""
        return f"{self.table}.private_key"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What was read, and fits together.

    ``chain``: ours first. ``names``: the DNS names it is for, in lower case, perhaps with a ``*`` for the first label.
    ``begins`` and ``ends`` are aware datetimes. ``doubts``: what an administrator should look at, though it works.
    """

    files: Files
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey
    names: tuple[str, ...]
    begins: datetime.datetime
    ends: datetime.datetime
    doubts: tuple[str, ...] = ()

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days until the certificate ends, below 0 once it has."""
        return (self.ends - now).days

    def date_doubts(self, now: datetime.datetime) -> list[str]:
        """What is wrong with its dates."""
        where = f"{self.files.certificate_key}: {self.files.certificate}"
        if now >= self.ends:
            return [f"{where} has expired on {self.ends:%Y-%m-%d %H:%M} UTC: renew it; until then clients refuse it"]
        if now < self.begins:
            return [
                f"{where} is not valid before {self.begins:%Y-%m-%d %H:%M} UTC: clients refuse it until then; "
                "check this machine's clock"
            ]
        return []


def read(files: Files) -> KeyPair:
    """Read a pair and check that it fits together; its dates are for others to judge. Raises CertificateError."""
    chain = _read_chain(files)
    key = _read_key(files)
    _check_match(files, chain, key)
    ours = chain[0]
    return KeyPair(
        files,
        chain,
        key,
        names := _names(ours),
        ours.not_valid_before_utc,
        ours.not_valid_after_utc,
        tuple(_doubts(files, chain, names)),
    )


def _content(key: str, path: str) -> bytes:
    try:
        return read_regular(path, FILE_LIMIT).content
    except NotRegular as error:
        raise CertificateError(key, f"{path} {error.strerror}: write the path of a file in PEM form") from None
    except TooLarge:
        raise CertificateError(key, f"{path} is larger than 1 MiB, and so neither a certificate nor a key") from None
    except OSError as error:
        forbidden = isinstance(error, PermissionError)
        raise CertificateError(key, f"{path}: {error.strerror}", forbidden=forbidden) from None


def _read_chain(files: Files) -> tuple[x509.Certificate, ...]:
    key, path = files.certificate_key, files.certificate
    content = _content(key, path)
    try:
        chain = x509.load_pem_x509_certificates(content)
        # Some damage is noticed only by those who look.
        for each in chain:
            each.public_key()
            _ = each.extensions
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = "is not a certificate in PEM form"
        if b"-----BEGIN CERTIFICATE" in content:
            reason = f"has a certificate that is damaged or of an unknown kind ({_brief(error)}): fetch it again"
        elif content[:1] == b"\x30":
            reason += f", but looks like DER: openssl x509 -inform der -in {path} -out NEW makes PEM of it"
        elif b"PRIVATE KEY-----" in content:
            reason += ", but a private key: write the file with the certificate, for most authorities fullchain.pem"
        raise CertificateError(key, f"{path} {reason}") from None
    return tuple(chain)


def _read_key(files: Files) -> PrivateKey:
    """PKCS#1, PKCS#8 and SEC1 alike."""
    key, path = files.private_key_key, files.private_key
    content = _content(key, path)
    try:
        found = load_pem_private_key(content, None)
    except TypeError:
        raise CertificateError(
            key,
            f"{path} is encrypted, and at its start a server has nobody to ask for the password: openssl pkey -in "
            f"{path} -out NEW takes it off; keep NEW readable by its owner only",
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = "is not a private key in PEM form"
        if b"PRIVATE KEY-----" in content:
            reason = f"has a private key that is damaged or of an unknown kind ({_brief(error)})"
        elif content[:1] == b"\x30":
            reason += f", but looks like DER: openssl pkey -inform der -in {path} -out NEW makes PEM of it"
        elif b"-----BEGIN CERTIFICATE" in content:
            reason += ", but a certificate: write the file with its key, for most authorities privkey.pem"
        raise CertificateError(key, f"{path} {reason}") from None
    if not isinstance(found, PrivateKey):
        raise CertificateError(key, f"{path} is of a kind that TLS can't use: make an ECDSA or RSA key")
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size < RSA_BITS:
        raise CertificateError(key, f"{path} has {found.key_size} bits, which clients refuse: make one with 2048")
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name not in CURVES:
        raise CertificateError(key, f"{path} is on the curve {found.curve.name}, unknown to TLS clients: use P-256")
    return found


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def _check_match(files: Files, chain: tuple[x509.Certificate, ...], key: PrivateKey) -> None:
    public = key.public_key()
    if chain[0].public_key() == public:
        return
    for position, each in enumerate(chain[1:], 2):
        if each.public_key() == public:
            raise CertificateError(
                files.certificate_key,
                f"{files.certificate} has the key's certificate in place {position}: it must come first, then the one "
                "that signed it",
            )
    raise CertificateError(
        files.private_key_key,
        f"{files.private_key} is not the key of {files.certificate}: give the two that were made together",
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The common name counts no more (RFC 9525 §2)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(dict.fromkeys(name.lower() for name in found.get_values_for_type(x509.DNSName)))


def _doubts(files: Files, chain: tuple[x509.Certificate, ...], names: tuple[str, ...]) -> list[str]:
    where = f"{files.certificate_key}: {files.certificate}"
    doubts = []
    if _is_open_to_all(files.private_key):
        doubts.append(
            f"{files.private_key_key}: {files.private_key} can be read by everybody on this machine: chmod o= "
            f"{files.private_key}"
        )
    if not names:
        doubts.append(f"{where} is for no DNS name (subject alternative name): clients that verify refuse it")
    if any(not _issued(one, by) for one, by in pairwise(chain)):
        doubts.append(f"{where}: each certificate must be followed by the one that signed it, and these are not")
    if len(chain) == 1 and _has_public_issuer(chain[0]):
        doubts.append(
            f"{where} comes without the intermediate certificate that signed it: clients that verify refuse it; write "
            "the file with the whole chain, for most authorities fullchain.pem"
        )
    if not _is_for_servers(chain[0]):
        doubts.append(f"{where} is not for servers (extended key usage): clients that verify refuse it")
    return doubts


def _is_open_to_all(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        # It has gone since it was read: the next look at it will tell.
        return False


def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _has_public_issuer(certificate: x509.Certificate) -> bool:
    """Does it say where the certificate that signed it is found? Those of public authorities do."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return False
    return any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)


def _is_for_servers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
