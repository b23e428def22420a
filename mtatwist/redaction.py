"""Personal data in the log, replaced by pseudonyms: nobody can tell who it was, only that it was the same one."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

FIELDS = frozenset(
    (
        "account",
        "address",
        "addresses",
        "after",
        "alias",
        "cursor",
        "entries",
        "forward_path",
        "forward_paths",
        "from",
        "helo",
        "login",
        "member",
        "members",
        "named",
        "peer",
        "recipient",
        "reverse_path",
        "sender",
        "subject",
        "to",
        "user",
    )
)
"""The fields about people, in any event, at any depth. Of a mail address the domain stays, of all else nothing.
Where a page begins or ends may be a person: ``after`` and ``cursor``.
In other texts mail addresses are found by their form, and what stands in one of these fields by comparison."""

ADMINISTRATORS = ("control", "control_client_refused")
"""Events that say who administered the server, by a user name of this machine: that stays, it is what they are for.
So does ``by``, in any event."""

FOREIGN = ("failure", "message", "traceback")
"""Texts that others wrote. A client's IP address is looked for in them, too."""

REMEMBERED = 4096
"""Pseudonyms that need not be made again."""

REFUSED_WORDS = 20
"""Of a refused command no more are written."""

_NOT_LOCAL = r"\s<>()\[\],;:\"\\|@"
_MAIL = rf"""
    (?P<local> "(?:[^"\\\r\n]|\\.){{1,256}}+" | (?<![^{_NOT_LOCAL}])[^{_NOT_LOCAL}]++ )
    @ (?P<domain> \[[0-9A-Za-z:.]++\] | [^{_NOT_LOCAL}'`/{{}}]++ )
"""
_DOMAIN = re.compile(r"\[[0-9A-Za-z:.]+\]|[\w.-]+")
_IP = r"(?P<ip> (?<![\w.:])(?: \d{1,3}(?:\.\d{1,3}){3} | [0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:] )(?![\w:]) )"
_BEFORE = re.compile(r"(?:FROM:|TO:|[A-Z0-9-]{1,10}=)<?", re.IGNORECASE)
_HARMLESS = re.compile(
    r"(?:FROM:|TO:|ORCPT=rfc822;)?(?:<>|<?~[0-9a-f]{10}@(?:\[[0-9A-Za-z:.]+\]|[\w.-]+)>?)?"
    r"|SIZE=[0-9]*|BODY=(?:7BIT|8BITMIME|BINARYMIME)|RET=(?:FULL|HDRS)|SMTPUTF8"
    r"|NOTIFY=(?:NEVER|SUCCESS|FAILURE|DELAY|,)*",
    re.IGNORECASE,
)
_LAST = frozenset("0123456789abcdefABCDEF:")
_IN_OURS = re.compile(_MAIL, re.VERBOSE)
_IN_FOREIGN = re.compile(f"{_MAIL}|{_IP}", re.VERBOSE)

_Known = Mapping[str, str]


class Redaction:
    """Replaces what is personal in the facts of events: the same by the same pseudonym, as long as this lives."""

    def __init__(self, key: bytes | None = None) -> None:
        """``key`` makes the pseudonyms: a random one unless given, so that nobody can try who is behind one."""
        self._key = key or secrets.token_bytes(32)
        self.pseudonym = lru_cache(maxsize=REMEMBERED)(self._pseudonym)
        self._person = lru_cache(maxsize=REMEMBERED)(self._of_person)

    def _pseudonym(self, value: str) -> str:
        """What stands in the log for ``value``, however that is capitalised: "~" and ten hexadecimal digits."""
        folded = value.casefold().encode("utf-8", "surrogatepass")
        return "~" + hashlib.blake2b(folded, key=self._key, digest_size=5).hexdigest()

    def __call__(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of one event without what is personal."""
        kept: tuple[str, ...] = ("event", "by")
        if facts.get("event") in ADMINISTRATORS:
            kept = (*kept, "user")
        if facts.get("event") == "refused":
            kept = (*kept, "command")
            facts = {**facts, "command": self._refused(str(facts.get("command", "")))}
        if "host" in facts:
            # Its address, and nobody's of a person.
            kept = (*kept, "address")
        known = dict(self._known(facts, kept))
        return {key: value if key in kept else self._clean(key, value, known) for key, value in facts.items()}

    def text(self, text: str, known: _Known, *, foreign: bool = False) -> str:
        """A text without mail addresses and what is ``known`` to be personal."""
        if not (foreign or "@" in text):
            return _without(text, known)
        parts, end = [], 0
        for match in (_IN_FOREIGN if foreign else _IN_OURS).finditer(text):
            parts += [_without(text[end : match.start()], known), self._found(match)]
            end = match.end()
        return "".join([*parts, _without(text[end:], known)])

    def _refused(self, command: str) -> str:
        """A command that may be no good: what is not known to be harmless is somebody's name."""
        verb, *words = self.text(command, {}).split()[:REFUSED_WORDS] or [""]
        return " ".join([verb, *(self._word(word) for word in words)])

    def _word(self, word: str) -> str:
        if _HARMLESS.fullmatch(word):
            return word
        before = _BEFORE.match(word)
        start = before.end() if before else 0
        return f"{word[:start]}{self.pseudonym(word[start:])}"

    def _found(self, match: re.Match[str]) -> str:
        found = match.groupdict()
        if found["local"]:
            # A quotation mark before it, or the end of a sentence, is no part of the address.
            local = found["local"].lstrip("'`")
            quote = found["local"].removesuffix(local)
            return f"{quote}{self.pseudonym(local + '@' + found['domain'].rstrip('.'))}@{found['domain']}"
        text = match.group()
        return self._person(text) if _ip(text) is not None else text

    def _known(self, facts: Mapping[str, Any], kept: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
        """What is personal in this event, folded, and what to write for it: it may be repeated in a text."""
        for key, value in facts.items():
            if isinstance(value, dict):
                yield from self._known({name: _read(each) for name, each in value.items()})
            elif key in FIELDS and key not in kept:
                for each in map(str, value if isinstance(value, list | tuple) else [value]):
                    new = self._person(each)
                    if new != each:
                        yield each.casefold(), new
                        local, at, _ = each.rpartition("@")
                        if at:
                            yield local.casefold(), self.pseudonym(each)

    def _clean(self, key: str, value: Any, known: _Known) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {str(name): self._clean(str(name), _read(each), known) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(key, each, known) for each in value]
        if key in FIELDS:
            return self._person(str(value))
        return self.text(str(value), known, foreign=key in FOREIGN)

    def _of_person(self, value: str) -> str:
        local, at, domain = value.rpartition("@")
        if at and _DOMAIN.fullmatch(domain):
            return f"{self.pseudonym(value)}@{domain}" if local else value
        ip = _ip(value)
        if not value or (ip is not None and (ip.is_loopback or ip.is_unspecified)):
            # This machine's own.
            return value
        return self.pseudonym(value)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if text[-1:] not in _LAST:
        # What parsing would say, sooner.
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _read(value: Any) -> Any:
    """An argument of a command may be JSON, and cut."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return "{...}"


def _without(text: str, known: _Known) -> str:
    """A text without these words."""
    folded = text.casefold()
    here = [word for word in known if word in folded]
    if not here:
        return text
    words = "|".join(re.escape(word) for word in sorted(here, key=len, reverse=True))
    # Where folding is more than small letters ("ß" is "ss"), only the folded text has the words.
    same = len(folded) == len(text)
    return re.sub(
        rf"(?<!\w)(?:{words})(?!\w)",
        lambda match: known.get(match.group().casefold(), "~"),
        text if same else folded,
        flags=re.IGNORECASE,
    )
