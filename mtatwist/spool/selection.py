"""Which recipients of the queue are meant, as somebody who looks after it says it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from mtatwist.domain import wire_domain
from mtatwist.envelope import Message, Recipient, State

LONGEST = 512
"""Characters of a pattern."""

STATES = {"pending": State.PENDING, "deferred": State.DEFERRED, "held": State.HELD}
"""What the states are called in which a recipient waits."""

_ID = re.compile(r"[0-9A-Fa-f]{1,14}")
_CODE = re.compile(r"[245][0-9]{0,2}")
_ENHANCED = re.compile(r"[245](\.[0-9]{1,3}){1,2}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Recipients for whom all holds that is given; with nothing given, everybody.

    In ``sender``, ``recipient``, ``domain``, ``user`` and ``next_hop`` a "*" stands for any text, and letters of ASCII
    are the same in either case; ``sender`` "<>" is the null reverse path. ``older``: seconds since it was received, at
    least. ``code``: how the last reply began: "4", "450", or an enhanced code, "4.7" or "4.7.1".

    Raises ValueError, which says what is wrong and what would be right.
    """

    id: str | None = None
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    user: str | None = None
    older: float | None = None
    state: str | None = None
    code: str | None = None
    next_hop: str | None = None

    def __post_init__(self) -> None:
        if self.id is not None:
            number_of(self.id)
        for name in ("sender", "recipient", "domain", "user", "next_hop"):
            _check_pattern(name, getattr(self, name))
        if self.older is not None and not (math.isfinite(self.older) and self.older >= 0):
            raise ValueError(f'older: "{self.older}" is no time; give the seconds, 0 or more')
        if self.state is not None and self.state not in STATES:
            raise ValueError(f'state: there is no "{self.state}"; it is one of {", ".join(STATES)}')
        if self.code is not None and not (_CODE.fullmatch(self.code) or _ENHANCED.fullmatch(self.code)):
            raise ValueError(f'code: "{self.code}" begins no reply; give "4", "450" or "4.7.1", for example')

    @property
    def everything(self) -> bool:
        """Is nothing given?"""
        return not self.given()

    def given(self) -> dict[str, str | float]:
        """What is given, by its name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    @property
    def asks_message(self) -> bool:
        """Does it take more to judge than what is known of the recipient?"""
        return self.sender is not None or self.user is not None or self.older is not None

    def conditions(self, now: float) -> tuple[list[str], dict[str, Any]]:
        """What has to hold in SQL, of the recipient ``r`` and the message ``m``, and the values for it.

        Not ``next_hop``: see :meth:`domains`. ``now`` is the queue's time.
        """
        said: list[str] = []
        values: dict[str, Any] = {}
        if self.id is not None:
            said.append("r.number=:id")
            values["id"] = number_of(self.id)
        sender = "" if self.sender == "<>" else self.sender
        for name, column, pattern in (
            ("sender", "m.reverse_path", sender),
            ("recipient", "r.address", self.recipient),
            ("domain", "r.domain", _wire(self.domain)),
            ("user", "m.user", self.user),
        ):
            if pattern is not None:
                operator = "GLOB" if "*" in pattern else "="
                said.append(f"lower({column}) {operator} :{name}")
                values[name] = _glob(pattern) if "*" in pattern else _lower(pattern)
        if self.older is not None:
            said.append("m.received_at<=:received_by")
            values["received_by"] = now - self.older
        if self.state is not None:
            said.append("r.state=:state")
            values["state"] = int(STATES[self.state])
        if self.code is not None:
            if "." in self.code:
                said.append("(r.enhanced=:code OR r.enhanced GLOB :code||'.*')")
                values["code"] = self.code
            else:
                said.append("r.code BETWEEN :code_from AND :code_to")
                values["code_from"], values["code_to"] = self._codes()
        return said, values

    def domains(self, domains: list[str], next_hop: Callable[[str], str]) -> list[str]:
        """Those of these domains whose next hop is the one that is meant."""
        if self.next_hop is None:
            return domains
        meant = _meant(self.next_hop)
        return [domain for domain in domains if meant(_lower(next_hop(domain)))]

    def matches(self, message: Message, recipient: Recipient, now: float, next_hop: Callable[[str], str]) -> bool:
        """The same without SQL: is this recipient meant?"""
        reply = recipient.last_reply
        sender = "" if self.sender == "<>" else self.sender
        return (
            (self.id is None or number_of(self.id) == message.number)
            and all(
                pattern is None or _meant(pattern)(_lower(text))
                for pattern, text in (
                    (sender, message.envelope.reverse_path),
                    (self.recipient, recipient.address),
                    (_wire(self.domain), recipient.domain),
                    (self.user, message.envelope.user),
                )
            )
            and (self.older is None or message.envelope.received_at <= now - self.older)
            and (self.state is None or recipient.state is STATES[self.state])
            and (self.code is None or (reply is not None and self._replied(reply.code, reply.enhanced)))
            and bool(self.domains([recipient.domain], next_hop))
        )

    def _codes(self) -> tuple[int, int]:
        """The first and the last code that begins so."""
        assert self.code is not None
        return int(self.code.ljust(3, "0")), int(self.code.ljust(3, "9"))

    def _replied(self, code: int, enhanced: str) -> bool:
        assert self.code is not None
        if "." in self.code:
            return enhanced == self.code or enhanced.startswith(f"{self.code}.")
        first, last = self._codes()
        return first <= code <= last


def number_of(queue_id: str) -> int:
    """The number of the message with this queue id. Raises ValueError."""
    if not _ID.fullmatch(queue_id):
        raise ValueError(f'"{queue_id[:40]}" is no queue id: those are up to 14 hexadecimal digits')
    return int(queue_id, 16)


def _check_pattern(name: str, pattern: str | None) -> None:
    if pattern is None:
        return
    if not pattern and name != "user":
        raise ValueError(f'{name}: give some text, "*" for any' + (', "<>" for nobody' if name == "sender" else ""))
    if len(pattern) > LONGEST:
        raise ValueError(f"{name}: {len(pattern)} characters are too many; give {LONGEST} at most")
    if not pattern.isprintable():
        raise ValueError(f"{name}: there are control characters in it; leave them out")


def _wire(domain: str | None) -> str | None:
    """A domain in the form in which recipients have it; as it stands where it is only a part of one."""
    if domain is None or domain.isascii():
        return domain
    try:
        return wire_domain(domain)
    except ValueError:
        return domain


def _lower(text: str) -> str:
    """As SQLite's lower(): letters of ASCII, and no others."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _glob(pattern: str) -> str:
    """For GLOB: what is special there but "*" stands for itself."""
    return re.sub(r"[?\[]", r"[\g<0>]", _lower(pattern))


def _meant(pattern: str) -> Callable[[str], bool]:
    """Whether a text, as _lower() makes it, is one of those that a pattern stands for.

    No regular expression: with a "*" after the other it would try for years, and nothing else would run (CWE-1333).
    """
    first, *parts = _lower(pattern).split("*")

    def meant(text: str) -> bool:
        if not parts:
            return text == first
        end = len(text) - len(parts[-1])
        if not (text.startswith(first) and text.endswith(parts[-1])):
            return False
        at = len(first)
        for part in parts[:-1]:
            # The first place will do: what follows has the most room behind it.
            found = text.find(part, at, max(end, 0))
            if found < 0:
                return False
            at = found + len(part)
        return at <= end

    return meant
