"""Certificate authorities in a PEM file: those we trust when we ask others who they are."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from mtatwist.regular_file import read_regular

FILE_LIMIT = 1 << 24
"""Octets of a file that are read: those that a machine trusts have about 200 kB."""


class AuthoritiesError(Exception):
    """The file can't be used; the message has the file, and why.

    :ivar forbidden: whether that is only that this user may not read it.
    """

    def __init__(self, file: str, why: str, *, forbidden: bool = False) -> None:
        super().__init__(f"{file}: {why}")
        self.forbidden = forbidden


def read_authorities(file: str) -> list[x509.Certificate]:
    """All certificates in it, one at least. Raises AuthoritiesError. It blocks, and belongs to the start."""
    try:
        content = read_regular(file, FILE_LIMIT).content
    except OSError as error:
        raise AuthoritiesError(
            file, error.strerror or "can't be read", forbidden=isinstance(error, PermissionError)
        ) from None
    if b"-----BEGIN " not in content:
        raise AuthoritiesError(file, "has no certificates in PEM form")
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, UnsupportedAlgorithm):
        raise AuthoritiesError(file, "has no certificates in PEM form, or a broken one") from None
