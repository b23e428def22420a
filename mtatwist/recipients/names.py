"""Addresses as they are looked up and compared."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from mtatwist.domain import wire_domain
from mtatwist.smtp.address import Address, AddressError, parse_path, without_detail


class Name(NamedTuple):
    """An address of ours as it is looked up: ``local`` without quotes, in lower case (RFC 5321 §2.4 leaves that to the
    host it belongs to), ``domain`` in wire form."""

    local: str
    domain: str

    def __str__(self) -> str:
        """As it stands between < and >."""
        return str(Address(*self))


def parse(text: str, domain: str = "") -> Address:
    """Read a mailbox, or a local part alone, which is one at ``domain``; the result's domain is in wire form.

    Raises AddressError, whose message is for a person; without ``domain``, a local part alone keeps none.
    """
    bare = _is_bare(text)
    address, rest = parse_path(f"{text}@{domain or 'invalid'}" if bare else text)
    if rest or not address.domain:
        raise AddressError("not a valid address")
    if bare and not domain:
        return address._replace(domain="")
    try:
        return address._replace(domain=wire_domain(address.domain))
    except ValueError:
        raise AddressError("not a valid domain") from None


def name_of(address: Address) -> Name:
    """How this address is looked up; its domain is in wire form."""
    return Name(unicodedata.normalize("NFC", address.local).lower(), address.domain)


def plain(name: Name, delimiter: str) -> Name | None:
    """The name without its detail; None when it has none."""
    local = without_detail(name.local, delimiter)
    return None if local == name.local else name._replace(local=local)


def _is_bare(text: str) -> bool:
    """Is there no domain? An @ inside of quotes begins none."""
    if text.startswith('"'):
        return text.endswith('"') and len(text) > 1
    return "@" not in text
