"""The Received field we put on top of each message (RFC 5321 §4.4)."""

from __future__ import annotations

import re
from email.header import Header
from email.utils import formatdate
from functools import lru_cache

from mtatwist.smtp.address import is_domain
from mtatwist.transaction import Session

_UNSAFE = re.compile(r"[^!-~]")

NAMED = 255
"""Characters of a login in the field."""


def literal(address: str) -> str:
    """An IP address as an address literal (RFC 5321 §4.1.3)."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def received_field(
    session: Session, *, protocol: str, by: str, id: str, at: float, sole_recipient: str, user: str = ""
) -> bytes:
    """The field, with its line end. ``protocol`` is the ``with`` keyword (RFC 3848, RFC 6531 §4.3).

    ``sole_recipient`` is "" where there are several: naming one would tell the others of a Bcc (RFC 5321 §7.6). All
    recipients see ``user``, the login of who has authenticated: "" unless that is wanted."""
    clause = f"\r\n\tfor <{sole_recipient}>;" if sole_recipient else ";"
    login = _authenticated(user) if user else ""
    return (
        f"{_from(session.helo, session.peer, session.tls)}{login}\r\n\tby {by} with {protocol}"
        f" id {id}{clause}\r\n\t{date_time(int(at))}\r\n"
    ).encode()


def _authenticated(user: str) -> str:
    """A comment that names the user (RFC 5322 §3.2.2), beyond ASCII as an encoded word (RFC 2047 §5)."""
    user = user[:NAMED].encode("utf-8", "replace").decode()
    if _UNSAFE.search(user):
        name = Header(user, "utf-8", header_name="authenticated user", continuation_ws="\t").encode(linesep="\r\n")
    else:
        name = re.sub(r"([()\\])", r"\\\1", user)
    return f"\r\n\t(authenticated user {name})"


@lru_cache(maxsize=1024)
def _from(helo: str, peer: str, tls: str) -> str:
    """The first line: the same for all messages of a session. A name that is none is not repeated."""
    who = literal(peer) if peer else "[unknown]"
    name = helo if is_domain(helo) and not _UNSAFE.search(helo) else who
    secured = f"\r\n\t(using {tls})" if tls else ""
    return f"Received: from {name} ({who}){secured}"


@lru_cache(maxsize=2)
def date_time(second: int) -> str:
    """A moment of the machine's time as fields have it (RFC 5322 §3.3)."""
    return formatdate(second, localtime=True)
