"""Who tries to log in, in the forms in which that is counted."""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from functools import lru_cache
from typing import NamedTuple

LONGEST_NAME = 255
"""Characters of a name that are counted as they are. No account has a longer one; what is longer is hashed."""

NOWHERE = "local"
"""The network of peers without an address: those behind a unix socket, among them the clients of an onion service."""

FINGERPRINT_BYTES = 2
"""Enough to tell a repeated password from another one; too little to find out the password, even with the key."""

# Directories ignore them when they compare names (RFC 4518 §2.2), so they must not make another name here.
_IGNORED = frozenset({"Cc", "Cf", "Cs"})


class Client(NamedTuple):
    """An account's name and where somebody who gave it comes from: a pair, as the lockout counts it."""

    account: str
    network: str


def client(user: str, peer: str) -> Client:
    """What is counted for a login as ``user`` from ``peer``, an IP address or ""."""
    return Client(counted_name(user), counted_network(peer))


def counted_name(user: str) -> str:
    """One form for all spellings that a directory may take for the same name.

    Two accounts that differ in nothing else would be counted together; one with two counts would be guessed twice as
    fast.
    """
    if len(user) > LONGEST_NAME:
        return f"{user[:32]}~{hashlib.blake2b(user.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", user).casefold())
    seen = "".join(each for each in folded if unicodedata.category(each) not in _IGNORED)
    return " ".join(seen.split()) or "~"


@lru_cache(maxsize=4096)
def counted_network(peer: str) -> str:
    """IPv4 addresses are counted one by one, IPv6 by the /64 that one customer has; see NOWHERE for the rest."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return NOWHERE
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def fingerprint(key: bytes, account: str, secret: str) -> str:
    """Tells one wrong password of an account from another one."""
    keyed = hashlib.blake2b(key=key, digest_size=FINGERPRINT_BYTES)
    keyed.update(account.encode("utf-8", "surrogatepass") + b"\0" + secret.encode("utf-8", "surrogatepass"))
    return keyed.hexdigest()
