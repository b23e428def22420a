"""Reads the dialogues in ``dialogues/`` and replays them, in memory, cut up in every way a network may cut them.

``dialogues/README.rst`` says how a dialogue is written. Nothing in this module knows what a correct answer is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

DIALOGUES = Path(__file__).parent / "dialogues"
READ_SIZE = 65_536
"""A transport never hands over more at once."""
SPLIT_EVERYWHERE = 2048
"""Dialogues up to this size are split at every offset, larger ones only where it is interesting."""


class Mismatch(AssertionError):
    """The server did not do what the dialogue says."""


class BadDialogue(Exception):
    """The file is not a dialogue."""


# --- What a file says ------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """The header of a dialogue: the server it speaks to."""

    role: str = "mx"
    tls: str = "starttls"
    peer: str = "192.0.2.7"
    relay_domains: str = "example.org"
    relay_networks: str = ""
    message_size: int = 200_000
    recipients: int = 10
    hops: int = 30
    errors: int = 10
    spool: str = "works"
    validator: str = ""
    require_tls: bool = True
    failures: int = 3
    checker: str = "works"
    lockstep_only: bool = False
    one_write_only: bool = False
    not_yet: str = ""

    def set(self, key: str, value: str) -> None:
        """Set what the header line ``key: value`` says."""
        name = key.replace(" ", "_")
        old = getattr(self, name, None)
        if old is None or not isinstance(old, str | int):
            raise BadDialogue(f"unknown setting {key!r}")
        if isinstance(old, bool):
            setattr(self, name, value == "yes")
        else:
            setattr(self, name, type(old)(value))


@dataclass
class Expected:
    """An ``S:`` line, or (``whole``) an ``S*:`` reply of any number of lines."""

    line: int
    text: str
    whole: bool = False

    @property
    def code(self) -> str:
        """The reply code, or as many digits of it as are given."""
        digits = re.match(r"\d+", self.text)
        return digits[0][:3] if digits else ""

    @property
    def ends_reply(self) -> bool:
        """False for all but the last line of a multi-line reply."""
        return self.whole or self.text[3:4] != "-"

    def pattern(self) -> bytes:
        """A regular expression for the bytes this stands for."""
        if self.whole:
            return rb"(?:%s-[^\r\n]*\r\n)*%s [^\r\n]*\r\n" % ((re.escape(self.text).encode(),) * 2)
        parts = (re.escape(unescape(part)) for part in self.text.split("..."))
        return rb"[^\r\n]*".join(parts) + rb"\r\n"


@dataclass
class Turn:
    """What the client does (nothing, when it only waits for the greeting), and all that must follow from it."""

    line: int
    writes: list[bytes] = field(default_factory=list)
    wait: float = 0.0
    handshake: bool = False
    expected: list[Expected] = field(default_factory=list)
    closed: bool = False

    @property
    def over(self) -> bool:
        """True when a further client line would belong to another turn."""
        return bool(self.expected or self.closed or self.wait or self.handshake)


@dataclass
class Stored:
    """A message, as it lies in the spool: the body is what follows our own Received field."""

    reverse_path: str
    forward_paths: list[str]
    body: bytes = b""
    attributes: dict[str, str] = field(default_factory=dict)

    def agrees(self, expected: Stored, basics_only: bool = False) -> bool:
        """Is this what a dialogue expects? Only attributes it names are compared (``basics_only``: none)."""
        return (
            self.reverse_path == expected.reverse_path
            and self.forward_paths == expected.forward_paths
            and self.body == expected.body
            and (basics_only or expected.attributes.items() <= self.attributes.items())
        )


@dataclass
class Dialogue:
    """One file."""

    name: str
    settings: Settings
    turns: list[Turn]
    spooled: list[Stored]

    @property
    def streamable(self) -> bool:
        """May the client send everything ahead, without waiting for a single reply?"""
        settings = self.settings
        waits = any(turn.wait or turn.handshake for turn in self.turns)
        return not (settings.lockstep_only or settings.one_write_only or waits)


_HEADER = re.compile(r"([a-z ]+): *(.*)")
_STEP = re.compile(r"(C:|C>|S:|S\*:|B:|B>|WAIT|TLS:|CLOSED|SPOOLED:)(?: (.*))?")
_SPOOLED = re.compile(r"from <(.*?)> to ((?:<.*?>(?= |$) ?)+)(.*)")
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)|(?<!\\)\{((?:[^\\{}]|\\.)*?) \* (\d+)\}")
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\", "{": b"{", "}": b"}"}


def unescape(text: str) -> bytes:
    """The bytes that a C:, S: or B: line stands for."""
    out, position = b"", 0
    for match in _ESCAPE.finditer(text):
        out += text[position : match.start()].encode()
        position = match.end()
        escape, repeated, times = match.groups()
        if times:
            out += unescape(repeated) * int(times)
        elif len(escape) == 3:
            out += bytes.fromhex(escape[1:])
        elif escape in _PLAIN:
            out += _PLAIN[escape]
        else:
            raise BadDialogue(f"unknown escape \\{escape}")
    return out + text[position:].encode()


def parse(name: str, text: str) -> Dialogue:
    """Read a dialogue. Raises BadDialogue, with the line number."""
    dialogue = Dialogue(name, Settings(), [Turn(0)], [])
    spooled_said = False
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        try:
            step = _STEP.fullmatch(line)
            header = _HEADER.fullmatch(line)
            if step:
                spooled_said |= step[1] == "SPOOLED:"
                _add(dialogue, number, step[1], step[2] or "")
            elif header and not dialogue.turns[0].over:
                dialogue.settings.set(header[1], header[2])
            else:
                raise BadDialogue("not a line of a dialogue")
        except (BadDialogue, ValueError) as error:
            raise BadDialogue(f"{name}:{number}: {error}") from None
    if not spooled_said:
        raise BadDialogue(f"{name}: no SPOOLED line")
    return dialogue


def _add(dialogue: Dialogue, number: int, kind: str, text: str) -> None:
    turn = dialogue.turns[-1]
    if kind in ("C:", "C>"):
        if turn.over or turn.line == 0:
            turn = Turn(number)
            dialogue.turns.append(turn)
        turn.writes.append(unescape(text) + (b"\r\n" if kind == "C:" else b""))
    elif kind in ("S:", "S*:"):
        turn.expected.append(Expected(number, text, kind == "S*:"))
    elif kind == "WAIT":
        dialogue.turns.append(Turn(number, wait=float(text.removesuffix("s"))))
    elif kind == "TLS:":
        dialogue.turns.append(Turn(number, handshake=True))
    elif kind == "CLOSED":
        turn.closed = True
    elif kind == "SPOOLED:" and text != "nothing":
        match = _SPOOLED.fullmatch(text)
        if match is None:
            raise BadDialogue("SPOOLED: nothing, or SPOOLED: from <> to <> ...")
        reverse_path = unescape(match[1]).decode()
        forward_paths = [unescape(path).decode() for path in re.findall(r"<(.*?)>(?= |$)", match[2])]
        attributes = dict(word.split("=", 1) for word in match[3].split())
        dialogue.spooled.append(Stored(reverse_path, forward_paths, b"", attributes))
    elif kind in ("B:", "B>"):
        if not dialogue.spooled:
            raise BadDialogue("a body line without SPOOLED: from <> to <>")
        dialogue.spooled[-1].body += unescape(text) + (b"\r\n" if kind == "B:" else b"")


def load_all() -> dict[str, Dialogue]:
    """Every dialogue, by name."""
    return {path.stem: parse(path.stem, path.read_text()) for path in sorted(DIALOGUES.glob("*.txt"))}


# --- A connection to a server in memory ------------------------------------------------------------------------


class Wire:
    """The server's transport: keeps what is written, can be paused, closed, aborted and brought into TLS."""

    def __init__(self, peer: Any, host: Any, tls_interfaces: Callable[[Wire, bool], None], tls: bool) -> None:
        """``tls_interfaces``: declares which TLS interfaces a Wire provides, outside TLS and in it."""
        self.written = b""
        self.paused = False
        self.closing: type[Exception] | None = None
        self.closed = False
        self.tls = tls
        self.protocol: Any = None
        self._peer, self._host, self._tls_interfaces = peer, host, tls_interfaces
        tls_interfaces(self, tls)

    disconnecting = property(lambda self: self.closing is not None)
    connected = property(lambda self: not self.closed)
    disconnected = property(lambda self: self.closed)

    def write(self, data: bytes) -> None:
        """Keep it; after a close it is lost, as on a socket."""
        if not self.closing and not self.closed:
            self.written += data

    def writeSequence(self, data: list[bytes]) -> None:
        """Keep them."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close: everything written arrives first, for this peer reads."""
        self.closing = self.closing or ConnectionDone

    def abortConnection(self) -> None:
        """Close at once."""
        self.closing = ConnectionAborted

    def pauseProducing(self) -> None:
        """Deliver no more."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        self.paused = False

    def stopProducing(self) -> None:
        """The same as loseConnection, for a real transport."""
        self.loseConnection()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Nothing: this peer reads everything at once."""

    def unregisterProducer(self) -> None:
        """Nothing."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing."""

    def getPeer(self) -> Any:
        """Where the client is."""
        return self._peer

    def getHost(self) -> Any:
        """Where the server is."""
        return self._host

    def getHandle(self) -> Wire:
        """The TLS connection to ask."""
        return self

    def get_protocol_version_name(self) -> str:
        """As OpenSSL says it."""
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        """As OpenSSL says it."""
        return "TLS_AES_256_GCM_SHA384"

    def getPeerCertificate(self) -> None:
        """The client has none."""

    def startTLS(self, context: object, normal: bool = True) -> None:
        """From here on in TLS."""
        if self.tls:
            raise RuntimeError("TLS within TLS")
        self.tls = True
        self._tls_interfaces(self, True)


class Server(Protocol):
    """A server to replay dialogues against, made new for each replay."""

    clock: Clock
    pending: deque[Deferred[Any]]
    """Answers that a slow validator owes; the replay gives them one at a time."""

    def connect(self) -> Wire:
        """A new connection, ``protocol`` set and told of it."""

    def stored(self) -> list[Stored]:
        """What is on stable storage now, in the order it came."""


OpenServer = Callable[[Settings], Server]

_QUEUE_ID = re.compile(rb"\b[0-9A-F]{14}\b")


@dataclass
class Outcome:
    """What came of a replay."""

    replies: bytes
    stored: list[Stored]
    closed: bool


class Session:
    """One connection, seen from the client's side."""

    def __init__(self, dialogue: Dialogue, how: str, open_server: OpenServer) -> None:
        self._dialogue, self._how = dialogue, how
        self._server = open_server(dialogue.settings)
        self.wire = self._server.connect()
        self.settle()

    def fail(self, words: str, line: int = 0) -> Mismatch:
        """The Mismatch to raise."""
        return Mismatch(f"{self._dialogue.name}.txt:{line or ''} ({self._how}): {words}")

    def write(self, data: bytes) -> None:
        """Send ``data``: reads of at most READ_SIZE, none while the server has paused us, none after the close."""
        wire = self.wire
        for start in range(0, len(data), READ_SIZE):
            if wire.paused:
                self.settle()
                if wire.paused and not wire.closed:
                    raise self.fail("the server has paused us for ever")
            if wire.closing or wire.closed:
                return
            try:
                wire.protocol.dataReceived(data[start : start + READ_SIZE])
            except Exception as error:
                raise self.fail(f"the server raised {error!r}") from error

    def settle(self) -> None:
        """Let everything happen that needs no time to pass: due calls, closes, one slow answer after the other."""
        wire, server = self.wire, self._server
        while True:
            server.clock.advance(0)
            if wire.closing and not wire.closed:
                wire.closed = True
                wire.protocol.connectionLost(Failure(wire.closing()))
            elif server.pending:
                server.pending.popleft().callback(None)
            elif not any(call.getTime() <= server.clock.seconds() for call in server.clock.getDelayedCalls()):
                return

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second."""
        while seconds > 0:
            self._server.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            self.settle()

    def handshake(self) -> None:
        """The client's part of the TLS handshake."""
        if not self.wire.tls:
            raise self.fail("the server has not begun TLS")
        if hasattr(self.wire.protocol, "handshakeCompleted"):
            self.wire.protocol.handshakeCompleted()

    def leave(self) -> Outcome:
        """Hang up, and see what is left."""
        self.settle()
        wire, closed = self.wire, self.wire.closed
        if not closed:
            wire.closed = True
            wire.protocol.connectionLost(Failure(ConnectionDone()))
            self.settle()
        left = [call for call in self._server.clock.getDelayedCalls() if call.active()]
        if left:
            raise self.fail(f"still to be called after the connection's end: {left}")
        return Outcome(_QUEUE_ID.sub(b"<id>", wire.written), self._server.stored(), closed)


# --- Replays ---------------------------------------------------------------------------------------------------


def lockstep(dialogue: Dialogue, open_server: OpenServer, codes_only: bool = False) -> Outcome:
    """Turn by turn, each turn in one write; every reply is compared as soon as it is due. Raises Mismatch.

    ``codes_only``: compare only reply codes, and no attributes in the spool, for servers that differ in these.
    """
    session = Session(dialogue, "in lockstep", open_server)
    compare = _compare_codes if codes_only else _compare_replies
    seen = 0
    for turn in dialogue.turns:
        if turn.handshake:
            session.handshake()
        session.write(b"".join(turn.writes))
        session.settle()
        session.wait(turn.wait)
        got = session.wire.written[seen:]
        seen += len(got)
        compare(session, turn, _QUEUE_ID.sub(b"<id>", got))
        if session.wire.closed != turn.closed:
            raise session.fail("closed" if session.wire.closed else "not closed", turn.line)
    outcome = session.leave()
    _compare_stored(session, outcome.stored, dialogue.spooled, codes_only)
    return outcome


def _compare_replies(session: Session, turn: Turn, got: bytes) -> None:
    for expected in turn.expected:
        match = re.match(expected.pattern(), got)
        if match is None:
            said = got.split(b"\r\n")[0].decode("utf-8", "replace") or "nothing"
            raise session.fail(f"expected {expected.text!r}, the server said {said!r}", expected.line)
        got = got[match.end() :]
    if got:
        raise session.fail(f"the server went on: {got[:200]!r}", turn.line)


def _compare_codes(session: Session, turn: Turn, got: bytes) -> None:
    codes = [code.decode() for code in re.findall(rb"(?m)^(\d{3})(?: |\r?$)", got)]
    expected = [item.code for item in turn.expected if item.ends_reply]
    if len(codes) != len(expected) or not all(map(str.startswith, codes, expected)):
        raise session.fail(f"expected {expected}, the server said {codes}", turn.line)


def _compare_stored(session: Session, got: list[Stored], expected: list[Stored], basics_only: bool) -> None:
    for stored, wanted in zip(got, expected, strict=False):
        if not stored.agrees(wanted, basics_only):
            raise session.fail(f"expected in the spool: {_short(wanted)}, found: {_short(stored)}")
    if len(got) != len(expected):
        raise session.fail(f"{len(got)} messages in the spool, expected {len(expected)}")


def _short(stored: Stored) -> str:
    words = f"{stored.reverse_path!r} {stored.forward_paths} {stored.attributes} {stored.body!r}"
    return words if len(words) < 600 else f"{words[:300]} ... {words[-300:]}"


def replays(dialogue: Dialogue) -> Iterator[tuple[str, list[list[bytes]]]]:
    """Every other way to send a dialogue: what to call it, and for each turn its chunks.

    A dialogue that can be streamed is one turn, sent without waiting.
    """
    turns = [turn.writes for turn in dialogue.turns]
    if dialogue.settings.one_write_only:
        yield "first lines byte by byte", [_first_line_cut(writes) for writes in turns]
        return
    yield "line by line", turns
    if dialogue.streamable:
        turns = [[b"".join(b"".join(writes) for writes in turns)]]
        yield "in one write", turns
    yield "byte by byte", [_cut(b"".join(writes), 1) for writes in turns]
    whole = [[b"".join(writes)] for writes in turns]
    for index, (data,) in enumerate(whole):
        for offset in offsets(data):
            where = f"split at {offset}" if len(whole) == 1 else f"turn {index} split at {offset}"
            yield where, [*whole[:index], [data[:offset], data[offset:]], *whole[index + 1 :]]


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _first_line_cut(writes: list[bytes]) -> list[bytes]:
    """The bytes of the first line one by one, but its last together with all other lines."""
    first = b"".join(writes[:1])
    return [*_cut(first[:-1], 1), first[-1:] + b"".join(writes[1:])]


def offsets(data: bytes) -> list[int]:
    """Where to split ``data``."""
    if len(data) <= SPLIT_EVERYWHERE:
        return list(range(1, len(data)))
    edges = {edge for match in re.finditer(rb"\r|\n|\.+", data) for edge in match.span()}
    near = {edge + step for edge in edges for step in (-1, 0, 1)}
    return sorted(offset for offset in near if 0 < offset < len(data))


def replay(dialogue: Dialogue, how: str, turns: list[list[bytes]], open_server: OpenServer) -> Outcome:
    """Send a dialogue as ``turns`` has it; compare nothing."""
    session = Session(dialogue, how, open_server)
    streamed = len(turns) != len(dialogue.turns)
    for index, chunks in enumerate(turns):
        if not streamed and dialogue.turns[index].handshake:
            session.handshake()
        for chunk in chunks:
            session.write(chunk)
            # Some replays let the server finish what it has before more arrives, the others don't.
            if how == "byte by byte" and chunk == b"\n":
                session.settle()
        session.settle()
        session.wait(0 if streamed else dialogue.turns[index].wait)
    return session.leave()


def check(dialogue: Dialogue, open_server: OpenServer) -> int:
    """Replay a dialogue in every way: all must give what the file says. Raises Mismatch; returns the number of ways."""
    reference = lockstep(dialogue, open_server)
    count = 1
    for how, turns in replays(dialogue):
        outcome = replay(dialogue, how, turns, open_server)
        count += 1
        if outcome != reference:
            raise Mismatch(f"{dialogue.name}.txt ({how}): {_difference(outcome, reference)}")
    return count


def _difference(got: Outcome, reference: Outcome) -> str:
    if got.replies != reference.replies:
        ours, theirs = got.replies.split(b"\r\n"), reference.replies.split(b"\r\n")
        for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
            if one != other:
                return f"reply line {number} is {one!r}, in lockstep it is {other!r}"
        return f"{len(ours)} reply lines, in lockstep {len(theirs)}"
    if got.stored != reference.stored:
        found, wanted = map(str, map(list, (map(_short, got.stored), map(_short, reference.stored))))
        return f"in the spool: {found}, in lockstep: {wanted}"
    return f"closed: {got.closed}, in lockstep: {reference.closed}"
