"""Choices, paths, secrets and other strings."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from mtatwist.regular_file import TooLarge, read_regular
from mtatwist.values.base import Context, any_of, nearest, quoted, string, type_words, wrong_type

SECRET_BYTES = 65536

# RFC 4514 §3, and what servers take besides: OIDs with a prefix, quotation marks and spaces as in RFC 2253 §4.
_TYPE = r" *(?:[A-Za-z][A-Za-z0-9_-]*|(?:[Oo][Ii][Dd]\.)?[0-9]+(?:\.[0-9]+)*) *"
_VALUE = r" *(?:\\.|\"(?:\\.|[^\"\\])*\"|[^ \\\",;+])(?:\\.|\"(?:\\.|[^\"\\])*\"|[^\\\",;+])*"
_DN = re.compile(rf"{_TYPE}={_VALUE}(?:[,;+]{_TYPE}={_VALUE})*")
# Active Directory's own: "<GUID=…>", "<SID=…>", "<WKGUID=…,dc=…>"; [MS-ADTS] §3.1.1.3.1.2.4.
_AD_DN = re.compile(r"<(?:GUID|SID|WKGUID)=[^<>]+>")
_AD_NAME = re.compile(r"[^@\\\"]+@[^@\\\"\s]+|[^@\\\"/]+\\[^@\\\"/]+")


class Secret:
    """A password or key, which no ``repr``, log line or traceback shows by accident.

    :ivar literal: true when it stood in the configuration file itself.
    :ivar open_file: the file that it stood in, where everybody on this machine can read that; else None.
    """

    __slots__ = ("_value", "literal", "open_file")

    def __init__(self, value: str, *, literal: bool = False, open_file: str | None = None) -> None:
        self._value = value
        self.literal = literal
        self.open_file = open_file

    def reveal(self) -> str:
        """Return the secret itself; call this only where it is handed to the peer that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def parse_choice(raw: object, choices: Sequence[str]) -> str:
    """Read one of a few words."""
    words = any_of(choices)
    if isinstance(raw, str) and raw in choices:
        return raw
    if not isinstance(raw, str):
        if str(raw) in choices:
            raise ValueError(f'expected a string, but found {type_words(raw)}: write "{raw}", in quotes')
        raise wrong_type(raw, words, f'"{choices[0]}"')
    close = nearest(raw, choices)
    hint = f'; did you mean "{close}"?' if close else ""
    raise ValueError(f"{quoted(raw)} is not known: write {words}{hint}")


def parse_text(raw: object, must_contain: str = "", example: str = '"text"') -> str:
    """Read any string that is not empty and, where asked, contains a mark."""
    text = string(raw, "a string", example)
    if must_contain not in text:
        raise ValueError(f'{quoted(raw)} lacks "{must_contain}": write it where its value belongs, such as {example}')
    return text


def parse_recipient_filter(raw: object) -> str:
    """Read an LDAP filter that depends on a recipient."""
    text = string(raw, "a filter", '"(mail={address})"')
    if not re.search(r"\{(?:address|local)\}", text):
        raise ValueError(
            f'{quoted(raw)} has neither "{{address}}" nor "{{local}}": write it where that belongs, such as '
            '"(mail={address})"'
        )
    return text


def parse_base_dn(raw: object) -> str:
    """Read the DN of an entry; "" is the root of the directory."""
    if raw == "":
        return ""
    text = string(raw, "a DN", '"dc=example,dc=org"')
    if not _is_dn(text):
        labels = text.split(".")
        meant = all(re.fullmatch(r"[A-Za-z0-9-]+", each) for each in labels)
        dn = ",".join(f"dc={each}" for each in labels) if meant and len(labels) > 1 else "dc=example,dc=org"
        raise ValueError(f"{quoted(raw)} is not a DN: write the whole name of an entry, such as {quoted(dn)}")
    return text


def parse_bind_name(raw: object) -> str:
    """Read whom to bind as: a DN, or a name as Active Directory has them ([MS-ADTS] §5.1.1.1.1)."""
    text = string(raw, "a DN", '"cn=mta,dc=example,dc=org"')
    if not _is_dn(text) and not _AD_NAME.fullmatch(text):
        raise ValueError(
            f'{quoted(raw)} is not a DN: write the whole name of an entry, such as "cn=mta,dc=example,dc=org"; Active '
            'Directory also knows "mta@example.org" and "EXAMPLE\\\\mta"'
        )
    return text


def _is_dn(text: str) -> bool:
    return bool(_DN.fullmatch(text) or _AD_DN.fullmatch(text))


def parse_delimiter(raw: object) -> str:
    """Read one character, or "" for none."""
    if not isinstance(raw, str):
        raise wrong_type(raw, "one character", '"+"')
    if len(raw) > 1 or (raw and not re.fullmatch(r"[!#$%&'*+\-/=?^_`{|}~]", raw)):
        raise ValueError(
            f'{quoted(raw)} cannot divide a local part: write one mark, such as "+" or "-", or "" for none'
        )
    return raw


def parse_sha256(raw: object) -> str:
    """Read the 64 hexadecimal digits of a SHA-256."""
    text = string(raw, "a SHA-256 in hexadecimal", '"9f86d0…"').strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("is not a SHA-256: write its 64 hexadecimal digits, as sha256sum prints them")
    return text


def parse_path(raw: object, start: str) -> str:
    """Read a path; a relative one starts at ``start``."""
    return os.path.normpath(os.path.join(start, string(raw, "a path", '"/var/lib/mtatwist"')))


def parse_secret(raw: object, context: Context) -> Secret:
    """Read "env:NAME", "file:PATH" or a literal secret. No message contains the secret."""
    if not isinstance(raw, str):
        raise ValueError(f'expected a secret, such as "env:NAME" or "file:PATH", but found {type_words(raw)}')
    scheme, _, rest = raw.partition(":")
    if scheme == "env":
        value = context.environ.get(rest, "")
        if not value:
            raise ValueError(
                f"the environment variable {quoted(rest)} is not set, or is empty: set it for this process"
            )
        return Secret(value)
    if scheme == "file":
        return _secret_file(os.path.join(context.directory, rest))
    if not raw:
        raise ValueError('is empty: write "env:NAME" or "file:PATH", or leave the key out')
    return Secret(raw, literal=True)


def _secret_file(path: str) -> Secret:
    try:
        content, facts = read_regular(path, SECRET_BYTES)
    except TooLarge:
        raise ValueError(f"the secret in {quoted(path)} is longer than {SECRET_BYTES} bytes") from None
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else "not a path"
        raise ValueError(f"cannot read the secret from {quoted(path)}: {words}") from None
    try:
        value = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"the secret in {quoted(path)} is not UTF-8 text") from None
    if not value:
        raise ValueError(f"the file {quoted(path)} is empty: write the secret into it")
    # A group may be the server's own.
    return Secret(value, open_file=path if facts.st_mode & stat.S_IROTH else None)
