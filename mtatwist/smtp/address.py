"""Mailbox grammar of RFC 5321 §4.1.2, with the UTF-8 extension of RFC 6531 §3.3."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

MAX_LOCAL_PART = 64  # octets, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 255  # octets, RFC 5321 §4.5.3.1.2

# Said by what is left out: a set that names all of Unicode takes a second to compile.
_ATEXT = r'[^\x00-\x20\x7f"(),.:;<>@\[\]\\]'
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED = r'"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*"'
# Underscores are outside LDH, but hosts that have them send mail.
_LABEL = r"[^\x00-/:-@\[-^`{-\x7f][^\x00-,./:-@\[-^`{-\x7f]{0,62}(?<!-)"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9.:-]{{1,100}}\])"
_SOURCE_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PATH = re.compile(
    rf" *(?:<{_SOURCE_ROUTE}({_DOT_STRING}|{_QUOTED})@({_DOMAIN})>|({_DOT_STRING}|{_QUOTED})@({_DOMAIN})|<([Pp][Oo]"
    rf"[Ss][Tt][Mm][Aa][Ss][Tt][Ee][Rr])>|(<>))(?: +(.*))?"
)
_DOMAIN_ONLY = re.compile(_DOMAIN)
_SAFE_LOCAL = re.compile(_DOT_STRING)


class Address(NamedTuple):
    """A mailbox: ``local`` without quotes or backslashes, ``domain`` as it was written ("" for bare postmaster).

    The null reverse path is Address("", "").
    """

    local: str
    domain: str

    @lru_cache(maxsize=1024)  # noqa: B019 - bounded
    def __str__(self) -> str:
        """The mailbox as it stands between < and >, quoted where it must be."""
        local, domain = self
        if not domain:
            return local
        if is_dot_string(local):
            return f"{local}@{domain}"
        quoted = re.sub(r'(["\\])', r"\\\1", local)
        return f'"{quoted}"@{domain}'


NULL = Address("", "")


class AddressError(ValueError):
    """The text is not a mailbox; the message says what is wrong, for a person."""


class DomainSet:
    """Domains of ours: "example.org" is itself, "*.example.org" each of its subdomains. All lower case."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in patterns if not pattern.startswith("*."))
        self._parents = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))

    def __contains__(self, domain: str) -> bool:
        return domain in self._exact or domain.endswith(self._parents)


def parse_path(text: str) -> tuple[Address, str]:
    """Read ``<mailbox>`` (or ``<>``, ``<postmaster>``, or a mailbox without brackets); also give what follows it.

    Source routes are read and dropped (RFC 5321 §3.3, appendix C). Raises AddressError.
    """
    match = _PATH.fullmatch(text)
    if match is None:
        raise AddressError("not a valid address")
    local, domain, bare_local, bare_domain, postmaster, _null, rest = match.groups()
    if local is None:
        local, domain = bare_local, bare_domain
    if local is not None:
        if local[0] == '"':
            local = _unquoted(local)
        if len(local if local.isascii() else local.encode()) > MAX_LOCAL_PART:
            raise AddressError("the local part is longer than 64 octets")
        if len(domain if domain.isascii() else domain.encode()) > MAX_DOMAIN:
            raise AddressError("the domain is longer than 255 octets")
        return Address(local, domain), rest or ""
    if postmaster is not None:
        return Address(postmaster, ""), rest or ""
    return NULL, rest or ""


def without_detail(local: str, delimiter: str) -> str:
    """The local part up to the first ``delimiter`` ("": there are no details), as in "user+detail" (RFC 5233)."""
    name = local.partition(delimiter)[0] if delimiter else local
    return name or local


def drop_detail(mailbox: str, delimiter: str) -> str:
    """``mailbox``, as it stands between < and >, without its detail; the detail may stand in quotes."""
    local, _, domain = mailbox.rpartition("@")
    local = _unquoted(local)
    name = without_detail(local, delimiter)
    return mailbox if name == local else str(Address(name, domain))


def is_dot_string(local: str) -> bool:
    """Can the local part stand without quotes (RFC 5321 §4.1.2)?"""
    return _SAFE_LOCAL.fullmatch(local) is not None


def is_domain(text: str) -> bool:
    """Is ``text`` a domain name or an address literal (RFC 5321 §4.1.2)?"""
    return len(text.encode()) <= MAX_DOMAIN and _DOMAIN_ONLY.fullmatch(text) is not None


def _unquoted(local: str) -> str:
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local
