"""The Received field we put on top of each message (RFC 5321 §4.4)."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from mtatwist.smtp.address import is_domain
from mtatwist.transaction import Session

_UNSAFE = re.compile(r"[^!-~]")


def literal(address: str) -> str:
    """An IP address as an address literal (RFC 5321 §4.1.3)."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def received_field(session: Session, *, protocol: str, by: str, id: str, at: float, sole_recipient: str) -> bytes:
    """The field, with its line end. ``protocol`` is the ``with`` keyword (RFC 3848, RFC 6531 §4.3).

    ``sole_recipient`` is "" where there are several: naming one would tell the others of a Bcc (RFC 5321 §7.6). The
    login of an authenticated user is not told."""
    clause = f"\r\n\tfor <{sole_recipient}>;" if sole_recipient else ";"
    return (
        f"{_from(session.helo, session.peer, session.tls)}\r\n\tby {by} with {protocol}"
        f" id {id}{clause}\r\n\t{_date(int(at))}\r\n"
    ).encode()


@lru_cache(maxsize=1024)
def _from(helo: str, peer: str, tls: str) -> str:
    """The first line: the same for all messages of a session. A name that is none is not repeated."""
    who = literal(peer) if peer else "[unknown]"
    name = helo if is_domain(helo) and not _UNSAFE.search(helo) else who
    secured = f"\r\n\t(using {tls})" if tls else ""
    return f"Received: from {name} ({who}){secured}"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, localtime=True)
