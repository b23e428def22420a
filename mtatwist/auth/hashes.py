"""Password hashes: those of LDAP directories and of crypt(3) verify, argon2 is what is made."""

from __future__ import annotations

import re
import warnings
from typing import Any

from passlib import hash as passlib
from passlib.exc import PasslibHashWarning

# Of bits in a hash that have no meaning; other programs do not mind them, either.
warnings.filterwarnings("ignore", category=PasslibHashWarning)

MAX_PASSWORD = 1024
"""Octets of a password that is looked at; longer ones are wrong."""

_BCRYPT_MAX_PASSWORD = 72  # octets: it does not see the others

#: Schemes with a label of their own (RFC 2307 §5.3, and what OpenLDAP's modules added).
_LABELLED: dict[str, Any] = {
    "SSHA": passlib.ldap_salted_sha1,
    "SSHA256": passlib.ldap_salted_sha256,
    "SSHA512": passlib.ldap_salted_sha512,
    "SHA": passlib.ldap_sha1,
    "SMD5": passlib.ldap_salted_md5,
    "MD5": passlib.ldap_md5,
}

#: Labels before a hash that says what it is by itself, and what else has to stand there; the last ones are Dovecot's.
_LABELS_BEFORE_CRYPT = {
    "CRYPT": "",
    "ARGON2": "",
    "BCRYPT": "",
    "PBKDF2": "$pbkdf2$",
    "PBKDF2-SHA1": "$pbkdf2$",
    "PBKDF2-SHA256": "$pbkdf2-sha256$",
    "PBKDF2-SHA512": "$pbkdf2-sha512$",
    "ARGON2I": "",
    "ARGON2ID": "",
    "BLF-CRYPT": "",
    "MD5-CRYPT": "",
    "SHA256-CRYPT": "",
    "SHA512-CRYPT": "",
}

#: By the word between the first two "$".
_CRYPT: dict[str, Any] = {
    "argon2id": passlib.argon2,
    "argon2i": passlib.argon2,
    "argon2d": passlib.argon2,
    "2a": passlib.bcrypt,
    "2b": passlib.bcrypt,
    "2y": passlib.bcrypt,
    "bcrypt-sha256": passlib.bcrypt_sha256,
    "scrypt": passlib.scrypt,
    "pbkdf2": passlib.pbkdf2_sha1,
    "pbkdf2-sha256": passlib.pbkdf2_sha256,
    "pbkdf2-sha512": passlib.pbkdf2_sha512,
    "6": passlib.sha512_crypt,
    "5": passlib.sha256_crypt,
    "1": passlib.md5_crypt,
}

_LABEL = re.compile(r"\{([A-Za-z0-9-]{1,20})\}")
_IDENTIFIER = re.compile(r"\$([a-z0-9-]{1,20})\$")

#: Two passes over 19 MiB, as OWASP's password storage cheat sheet has it: passlib's own default costs six times as much
#: CPU, and mail programs log in all day.
_ARGON2 = passlib.argon2.using(type="ID", memory_cost=19 * 1024, time_cost=2, parallelism=1)

_CURE = "make another with mtactl users passwd"


class UnusableHash(ValueError):
    """No password can be checked with it; the message says why, and what helps. It never shows the hash."""


class CannotVerify(Exception):
    """The hash is well-formed, and yet nobody can tell now whether the password is right: memory is short, mostly."""


def load_libraries() -> None:
    """Load now what passlib would load at the first hash: after a server has given up its privileges it may not be able
    to."""
    for handler in (passlib.argon2, passlib.bcrypt, passlib.scrypt):
        handler.get_backend()


def make(password: str) -> str:
    """A new argon2id hash. Takes some hundredths of a second and 19 MiB: call it in a thread."""
    made: str = _ARGON2.hash(password)
    return made


def scheme(text: str) -> str:
    """What kind of hash it is, such as "argon2" or "{SSHA}". Raises UnusableHash."""
    handler, text = _read(text)
    return _name(handler, text)


def verify(password: str, text: str) -> bool:
    """Is it the hash of this password? Takes as long as the hash says: call it in a thread.

    Raises UnusableHash, CannotVerify.
    """
    handler, text = _read(text)
    secret = password.encode("utf-8", "surrogatepass")
    fits = len(secret) <= MAX_PASSWORD and b"\0" not in secret
    if handler is passlib.bcrypt and len(secret) > _BCRYPT_MAX_PASSWORD:
        fits = False
    try:
        # A password that can't be right costs the same time, too.
        matches: bool = handler.verify(secret if fits else b"-", text)
    except (ValueError, MemoryError) as error:
        raise CannotVerify(f"{_name(handler, text)}: {type(error).__name__}") from None
    return fits and matches


def _name(handler: Any, text: str) -> str:
    label = _LABEL.match(text)
    return label[0] if label else str(handler.name)


def _read(text: str) -> tuple[Any, str]:
    """Passlib's class for this hash, and the hash as that class has it. Raises UnusableHash."""
    handler, text = _identify(text)
    try:
        # A salt without a digest would pass, and match nothing.
        whole = handler.from_string(text).checksum is not None
    except (ValueError, TypeError):
        whole = False
    if not whole:
        raise UnusableHash(f"the hash is damaged (it begins like {_name(handler, text)}): {_CURE}")
    return handler, text


def _identify(text: str) -> tuple[Any, str]:
    label = _LABEL.match(text)
    if label is not None:
        name = label[1].upper()
        if name in _LABELLED:
            return _LABELLED[name], f"{{{name}}}{text[label.end() :]}"
        if name not in _LABELS_BEFORE_CRYPT:
            raise UnusableHash(f"{{{name}}} is not a scheme that is known here: {_CURE}")
        text = _LABELS_BEFORE_CRYPT[name] + text[label.end() :]
    identifier = _IDENTIFIER.match(text)
    if identifier is None:
        # Not shown: it may be the password itself.
        raise UnusableHash(f"there is no hash that is known here, and passwords themselves are not accepted: {_CURE}")
    handler = _CRYPT.get(identifier[1])
    if handler is None:
        name = "yescrypt" if identifier[1] == "y" else "its scheme"
        raise UnusableHash(f"${identifier[1]}$: {name} is not known here: {_CURE}")
    return handler, text
