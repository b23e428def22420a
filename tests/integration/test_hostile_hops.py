"""Next hops that lie, stall, babble and leave: each recipient meets the right fate, and nobody else notices.

One server delivers to all of them at once. What counts is what its log, its DSNs and the other side saw.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from rigs.client import Client
from rigs.hostile import (
    COMMAND,
    ENDLESS,
    HostileHop,
    HostileHops,
    Script,
    after_content,
    close,
    drip,
    echo,
    endless,
    note,
    pause,
    reset,
    silence,
    then,
)
from rigs.mime import fit, parts
from rigs.mta import Mta, relaying_to
from rigs.processes import wait_until
from rigs.sink import Arrival, Sink

SENDER = "sender@client.test"

#: The first letter of a log event.
DELIVERED, DEFERRED, FAILED = "delivered", "deferred", "failed"
FATES = {"D": DELIVERED, "W": DEFERRED, "F": FAILED}

#: More than the rig's buffers and the kernel's hold.
HEAD = b"From: <sender@client.test>\r\nSubject: hostile\r\n\r\n"
#: What a server executes that believes the message to be commands, or a dot to be the end of it.
TRAP = (
    b"RSET\r\nMAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<victim@evil.test>\r\nDATA\r\n"
    b".\r\n..\r\nMAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<victim@evil.test>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n"
)
SMALL = HEAD + TRAP
LARGE = HEAD + (b"x" * 76 + b"\r\n") * 100_000
EIGHT_BIT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" + HEAD + "Grüße\r\n".encode() + TRAP

UTF8_HEADER = b"Subject: \xc3\xbc\r\n" + EIGHT_BIT
BINARY = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n" + HEAD + b"\0 \r bare \n.\n\r.\r" + TRAP

IDLE = "idle"

SOON = {
    "connect": "5s",
    "greeting": "3s",
    "ehlo": "3s",
    "mail": "3s",
    "rcpt": "3s",
    "data_init": "3s",
    "data_block": "3s",
    "data_done": "3s",
    "quit": "1s",
}

#: What the process may need beside what it needs anyway: several large messages are under way at once.
MEMORY_GROWTH = 60_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A next hop, and what becomes of three recipients (one letter for all): Delivered, Waiting or Failed.

    ``follower``: the fate of a second message, for d@, that is queued together with the first; several where it
    depends on whether the server's bad manners show before or after its transaction has begun.
    """

    name: str
    fates: str
    script: Script
    later: Script | None = None
    follower: str = ""
    #: The fate of a message for e@ that comes when the script has noted IDLE.
    latecomer: str = ""
    content: bytes = SMALL
    route: dict[str, Any] = field(default_factory=dict)
    parameters: str = ""
    #: What the log must say of each recipient that waits or failed.
    reply: str = ""

    def fate(self, number: int) -> str:
        return FATES[self.fates[number] if len(self.fates) > 1 else self.fates]


def ehlo(*extensions: bytes) -> bytes:
    return b"\r\n".join([b"250-hop.test", *(b"250-" + extension for extension in extensions), b"250 HELP\r\n"])


#: One command at a time, so that the stages are what they seem.
STEPS = {"ehlo": ehlo()}
TLS = {"ehlo": ehlo(b"STARTTLS", b"PIPELINING")}
OK = b"250 2.0.0 ok\r\n"
BUSY = b"421 4.3.2 closing\r\n"
CHUNKS = ehlo(b"CHUNKING", b"8BITMIME", b"PIPELINING")
LMTP = {"transport": "lmtp"}

CASES = [
    Case("honest", "D", {}, follower="D"),
    # Replies ahead of time.
    Case("all-replies-in-greeting", "W", {"greeting": b"220 hi\r\n" + OK * 5 + b"354 go on\r\n" + OK}),
    Case("all-replies-after-ehlo", "W", {"ehlo": ehlo(b"PIPELINING") + OK * 4 + b"354 go on\r\n" + OK}),
    Case("all-replies-after-mail", "W", {**STEPS, "mail": OK * 4 + b"354 go on\r\n" + OK}),
    Case("data-replies-before-data", "W", {**STEPS, "rcpt": [OK, OK, OK + b"354 go on\r\n" + OK]}),
    Case("taken-with-354", "W", {"data": b"354 go on\r\n" + OK}),
    Case("taken-with-354-without-pipelining", "W", {**STEPS, "data": b"354 go on\r\n" + OK}),
    Case("taken-in-the-middle", "W", {"data": after_content(65536, OK)}, content=LARGE),
    Case(
        "half-a-reply-in-the-middle",
        "W",
        {"data": after_content(65536, b"250-2.0.0 o", pause(1), b"k\r\n250 x\r\n")},
        content=LARGE,
    ),
    Case("one-reply-too-many", "D", {"dot": OK + OK}, later={}, follower="D"),
    Case(
        "one-reply-too-many-while-idle",
        "D",
        {"dot": then(OK, pause(0.2), OK, note(IDLE))},
        later={},
        latecomer="D",
    ),
    Case("421-while-idle", "D", {"dot": then(OK, pause(0.2), BUSY, note(IDLE))}, later={}, latecomer="D"),
    Case("closed-while-idle", "D", {"dot": then(OK, pause(0.2), note(IDLE), close)}, later={}, latecomer="D"),
    # Replies in odd pieces and odd spellings.
    Case(
        "octet-by-octet",
        "D",
        {
            "greeting": drip(b"220-hop\r\n220 hop\r\n"),
            "ehlo": drip(ehlo(b"PIPELINING")),
            "mail": drip(OK),
            "rcpt": drip(OK),
            "data": drip(b"354 go\r\n"),
            "dot": drip(b"250-2.0.0 a\r\n250 2.0.0 b\r\n"),
        },
        follower="D",
    ),
    Case("bare-line-feeds", "D", {"ehlo": b"250-hop\n250 PIPELINING\n", "mail": b"250 ok\n", "dot": b"250 ok\n"}),
    Case("codes-without-text", "D", {"mail": b"250\r\n", "rcpt": b"250\r\n", "data": b"354\r\n", "dot": b"250\r\n"}),
    Case(
        "octets-beyond-ascii",
        "F",
        {"rcpt": b"550 5.1.1 \x1b[31mn\xff\xfe \x00\x07\x9b nope \xe2\x80\xae\r\n"},
        reply="550",
    ),
    Case("codes-of-one-reply-differ", "F", {"dot": b"250-2.0.0 taken\r\n550 5.7.1 or not\r\n"}, reply="550"),
    Case("no-number", "W", {"mail": b"OK then\r\n"}),
    Case("code-199", "W", {"dot": b"199 2.0.0 fine\r\n"}),
    Case("code-600", "W", {**STEPS, "rcpt": b"600 2.0.0 fine\r\n"}),
    Case("code-of-four-digits", "W", {"dot": b"2500 fine\r\n"}),
    Case("code-of-two-digits", "W", {"greeting": b"22 fine\r\n"}),
    Case("our-own-words", "W", {"mail": echo()}),
    Case("our-own-words-as-success", "D", {"mail": echo(b"250 ")}),
    Case("half-a-reply-and-gone", "W", {"dot": then(b"250-2.0.0 tak", close)}),
    Case("web-server", "W", {"greeting": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"}),
    # Without end.
    Case("endless-line", "W", {"greeting": then(b"220 ", endless(b"x"))}),
    Case("endless-greeting", "W", {"greeting": endless(b"220-and so on\r\n")}),
    Case("endless-ehlo", "W", {"ehlo": endless(b"250-X" + b"y" * 500 + b"\r\n")}),
    Case("endless-line-after-the-dot", "W", {"dot": then(b"250 ", endless(b"x"))}),
    Case("greeting-of-100000-lines", "W", {"greeting": then(b"220-line\r\n" * 100_000, b"220 done\r\n")}),
    Case("endless-after-success", "D", {"dot": then(OK, endless(OK))}, later={}, follower="DW"),
    # The wrong answer.
    Case("250-where-354-is-due", "W", {"data": OK}, later={}, follower="D"),
    Case("250-where-354-is-due-without-pipelining", "W", {**STEPS, "data": OK}, later={}, follower="D"),
    Case("354-to-mail", "W", {**STEPS, "mail": b"354 go on\r\n"}),
    Case("354-to-rcpt", "W", {**STEPS, "rcpt": b"354 go on\r\n"}),
    Case("354-after-the-dot", "W", {"dot": b"354 more\r\n"}),
    Case("354-although-mail-was-refused", "F", {"mail": b"550 5.7.1 not you\r\n"}, reply="550"),
    Case("354-although-all-were-refused", "F", {"rcpt": b"550 5.1.1 no\r\n"}, follower="F", reply="550"),
    Case(
        "rset-refused", "F", {**STEPS, "rcpt": b"550 5.1.1 no\r\n", "rset": b"500 what?\r\n"}, follower="F", reply="550"
    ),
    Case("refuses-everybody", "W", {"greeting": b"554 5.7.1 no service\r\n"}, reply="554"),
    # TLS.
    Case(
        "injected-behind-starttls",
        "W",
        {**TLS, "starttls": b"220 go\r\n" + ehlo(b"PIPELINING") + OK},
        route={"tls": "may"},
    ),
    Case(
        "garbage-for-tls-may",
        "D",
        {**TLS, "starttls": then(b"220 go\r\n", pause(0.1), b"this is no TLS\r\n")},
        later=TLS,
        route={"tls": "may"},
    ),
    Case(
        "garbage-for-tls-require",
        "W",
        {**TLS, "starttls": then(b"220 go\r\n", pause(0.1), b"this is no TLS\r\n")},
        route={"tls": "require"},
    ),
    Case(
        "silence-for-tls-may", "D", {**TLS, "starttls": then(b"220 go\r\n", silence)}, later=TLS, route={"tls": "may"}
    ),
    Case("silence-for-tls-require", "W", {**TLS, "starttls": then(b"220 go\r\n", silence)}, route={"tls": "require"}),
    Case("starttls-refused-may", "D", TLS, route={"tls": "may"}),
    Case("starttls-refused-require", "W", TLS, route={"tls": "require"}),
    Case("starttls-gone-require", "W", {}, route={"tls": "require"}),
    # Slow, and silent.
    Case("slow", "D", {"greeting": then(pause(1), b"220 yawn\r\n"), "dot": then(pause(1), OK)}),
    *(
        Case(f"silent-at-{stage}", "W", {**STEPS, stage: silence})
        for stage in ("greeting", "ehlo", "mail", "rcpt", "data")
    ),
    # Each octet comes in time, and the reply never does.
    Case("greeting-drop-by-drop", "W", {"greeting": drip(b"220-" + b"x" * 60, 0.5)}, reply="no reply in time"),
    Case("lines-drop-by-drop", "W", {**STEPS, "rcpt": then(*[then(b"250-ok\r\n", pause(0.5))] * 60)}),
    Case("silent-after-the-dot", "W", {"dot": silence}),
    Case("silent-at-second-recipient", "W", {**STEPS, "rcpt": [OK, silence]}),
    Case("silent-at-quit", "D", {"quit": silence}),
    Case("reads-nothing", "W", {"data": then(b"354 go on\r\n", silence)}, content=LARGE, reply="not take"),
    Case("stops-reading", "W", {"data": after_content(500_000, silence)}, content=LARGE),
    # Gone.
    *(
        Case(f"reset-at-{stage}", "W", {**STEPS, stage: reset})
        for stage in ("greeting", "ehlo", "mail", "rcpt", "data")
    ),
    Case("reset-in-the-middle", "W", {"data": after_content(200_000, reset)}, content=LARGE),
    Case("reset-after-the-dot", "W", {"dot": reset}),
    Case("closed-after-the-dot", "W", {"dot": close}),
    Case("closed-right-after-success", "D", {"dot": then(OK, close)}, follower="D"),
    Case("closed-with-a-reply-missing", "W", {"rcpt": [OK, OK, close]}),
    # 421 anywhere.
    Case("421-at-greeting", "W", {"greeting": then(BUSY, close)}, reply="421"),
    Case("421-at-ehlo", "W", {"ehlo": then(BUSY, close)}, reply="421"),
    Case("421-at-mail", "W", {"mail": then(BUSY, close)}, reply="421"),
    Case("421-at-second-recipient", "W", {"rcpt": [OK, then(BUSY, close)]}, reply="421"),
    Case("421-at-second-recipient-without-pipelining", "W", {**STEPS, "rcpt": [OK, then(BUSY, close)]}, reply="421"),
    Case("421-at-data", "W", {"data": then(BUSY, close)}, reply="421"),
    Case("421-in-the-middle", "W", {"data": after_content(200_000, BUSY, close)}, content=LARGE, reply="421"),
    Case("421-after-the-dot", "W", {"dot": then(BUSY, close)}, later={}, follower="D", reply="421"),
    Case("421-after-success", "D", {"dot": then(OK, BUSY, close)}, later={}, follower="D"),
    # Refusals, each recipient's its own.
    Case("mixed-recipients", "DWF", {"rcpt": [OK, b"450 4.2.1 later\r\n", b"550 5.1.1 never\r\n"]}),
    Case(
        "mixed-recipients-without-pipelining",
        "FDW",
        {**STEPS, "rcpt": [b"551 5.1.6 moved\r\n", OK, b"452 4.2.2 full\r\n"]},
    ),
    Case("too-many-recipients-by-552", "DWW", {"rcpt": [OK, b"552 too many recipients\r\n"]}),
    Case("mail-refused-for-now", "W", {**STEPS, "mail": b"451 4.7.1 greylisted\r\n"}, reply="451"),
    Case("mail-refused-for-good", "F", {**STEPS, "mail": b"553 5.1.8 not you\r\n"}, reply="553"),
    Case("data-refused-for-now", "W", {"data": b"451 4.3.0 trouble\r\n"}, reply="451"),
    Case("data-refused-for-good", "F", {"data": b"554 5.7.1 no\r\n"}, reply="554"),
    Case(
        "552-in-the-middle", "F", {"data": after_content(100_000, b"552 5.3.4 too big\r\n")}, content=LARGE, reply="552"
    ),
    # Limits and missing extensions.
    Case("smaller-than-the-message", "F", {"ehlo": ehlo(b"SIZE 100", b"PIPELINING")}, reply="552"),
    Case("size-is-no-number", "D", {"ehlo": ehlo(b"SIZE much", b"PIPELINING")}),
    Case("size-beyond-all-numbers", "D", {"ehlo": ehlo(b"SIZE " + b"9" * 400, b"PIPELINING")}),
    Case("no-8bitmime", "D", {"ehlo": ehlo(b"PIPELINING")}, content=EIGHT_BIT),
    Case(
        "no-8bitmime-and-an-encoded-part",
        "F",
        {"ehlo": ehlo(b"PIPELINING")},
        content=b"Content-Transfer-Encoding: base64\r\n" + EIGHT_BIT,
        reply="5.6.3",
    ),
    Case("no-8bitmime-and-a-utf8-header", "F", {"ehlo": ehlo(b"PIPELINING")}, content=UTF8_HEADER, reply="5.6.9"),
    Case("no-smtputf8", "F", {}, content=UTF8_HEADER, parameters="SMTPUTF8", reply="5.6.7"),
    Case("no-binarymime", "D", {"ehlo": CHUNKS}, content=BINARY, parameters="BODY=BINARYMIME"),
    Case("neither-8bitmime-nor-binarymime", "D", STEPS, content=BINARY, parameters="BODY=BINARYMIME"),
    Case(
        "takes-binary-before-its-end",
        "W",
        {"ehlo": ehlo(b"CHUNKING", b"BINARYMIME", b"PIPELINING"), "rcpt": [OK, OK, OK + OK]},
        content=BINARY,
        parameters="BODY=BINARYMIME",
    ),
    Case("no-pipelining", "D", STEPS, follower="D"),
    Case("helo-only", "D", {"ehlo": b"502 5.5.1 what?\r\n"}, content=EIGHT_BIT),
    # BDAT.
    Case("bdat", "D", {"ehlo": CHUNKS}, content=EIGHT_BIT, follower="D"),
    Case("bdat-refused", "F", {"ehlo": CHUNKS, "dot": b"554 5.6.0 no\r\n"}, reply="554"),
    Case("421-at-bdat", "W", {"ehlo": CHUNKS, "dot": then(BUSY, close)}, reply="421"),
    # LMTP: a reply for each recipient.
    Case("lmtp-mixed", "DWF", {"dot": OK + b"452 4.2.2 full\r\n550 5.2.0 no\r\n"}, route=LMTP),
    Case("lmtp-too-few", "DDW", {"dot": then(OK * 2, close)}, route=LMTP),
    Case("lmtp-too-few-and-silent", "DFW", {"dot": then(OK, b"550 5.2.0 no\r\n", silence)}, route=LMTP),
    Case("lmtp-one-for-all", "DWW", {"dot": then(OK, silence)}, route=LMTP),
    Case("lmtp-too-many", "D", {"dot": OK * 4}, later={"dot": OK}, follower="D", route=LMTP),
]


#: Those that can't take the message as it is.
CONVERTED = ("no-8bitmime", "helo-only", "no-binarymime", "neither-8bitmime-nor-binarymime")

#: Those that get the whole message, and give no answer that counts, or one that servers give when they are stopped.
UNCERTAIN = {
    *("silent-after-the-dot", "reset-after-the-dot", "closed-after-the-dot", "half-a-reply-and-gone"),
    *("code-199", "code-of-four-digits", "endless-line-after-the-dot"),
    *("421-after-the-dot", "421-at-bdat", "lmtp-too-few", "lmtp-too-few-and-silent", "lmtp-one-for-all"),
}


@dataclass(slots=True)
class Campaign:
    """What was left when everything had its fate."""

    events: list[dict[str, Any]]
    log: str
    complaints: list[str]
    hops: dict[str, HostileHop]
    sink: list[Arrival]
    honest: dict[str, str]
    memory: tuple[int, int]

    def fates(self, address: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e.get("forward_path") == address and e.get("event") in FATES.values()]

    def reports(self, address: str) -> list[tuple[Message, Message]]:
        """The DSNs about a recipient, and the fields of each about it."""
        found = []
        for arrival in self.sink:
            if not arrival.reverse_path:
                report = message_from_bytes(arrival.content)
                fields = [part for part in report.walk() if str(part["Final-Recipient"]).endswith(address)]
                found += [(report, part) for part in fields]
        return found


def domain(case: Case) -> str:
    return f"{case.name}.test"


def letters(case: Case) -> str:
    """The local parts of all its recipients."""
    return "abc" + ("d" if case.follower else "") + ("e" if case.latecomer else "")


def send(client: Client, content: bytes, parameters: str, *recipients: str) -> None:
    client.expect(250, f"MAIL FROM:<{SENDER}> {parameters or 'BODY=8BITMIME'}")
    for recipient in recipients:
        client.expect(250, f"RCPT TO:<{recipient}>")
    client.send(b"BDAT %d LAST\r\n" % len(content) + content)
    reply = client.reply()
    assert reply.code == 250, reply


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """Everything at once: a message to each next hop, and one to an honest server after each."""
    hops = {case.name: HostileHop(case.script, case.later) for case in CASES}
    expected = {f"{letter}@{domain(case)}" for case in CASES for letter in letters(case)}
    honest: dict[str, str] = {}
    with Sink() as sink, HostileHops(list(hops.values())):
        config = relaying_to(sink.port, relay={"retry": "1h"}, limits={"connections": 50})
        config["timeouts.client"] = SOON
        (to_sink,) = config["route"]
        to_each = [
            {
                **to_sink,
                "domain": domain(case),
                "next_hop": f"127.0.0.1:{hops[case.name].port}",
                "connections": 1,
                **case.route,
            }
            for case in CASES
        ]
        config["route"] = [*to_each, to_sink]
        with Mta(tmp_path_factory.mktemp("hostile"), config) as mta, Client(mta.address()) as client:
            client.ehlo()
            before = mta.process.peak_memory()
            for number, case in enumerate(CASES):
                send(client, case.content, case.parameters, *(f"{letter}@{domain(case)}" for letter in "abc"))
                if case.follower:
                    send(client, SMALL, "", f"d@{domain(case)}")
                content = SMALL + b"number %d\r\n" % number
                honest[f"{number}@sink.test"] = hashlib.sha256(content).hexdigest()
                send(client, content, "", f"{number}@sink.test")

            for case in (case for case in CASES if case.latecomer):
                notes = hops[case.name].heard.notes
                wait_until(lambda notes=notes: IDLE in notes, 20, f"{case.name} is idle")
                send(client, SMALL, "", f"e@{domain(case)}")

            def undecided() -> set[str]:
                return expected - {e["forward_path"] for e in mta.events() if e.get("event") in FATES.values()}

            wait_until(lambda: not undecided(), 40, lambda: f"no fate yet: {sorted(undecided())}\n{mta.log()[-5000:]}")
            # What waits stays in the queue; what doesn't, and the reports, leave it.
            waiting = len({e["id"] for e in mta.events() if e.get("event") == DEFERRED})
            wait_until(lambda: mta.queued() == waiting, 20, lambda: f"{mta.queued()} in the queue, not {waiting}")
            memory = before, mta.process.peak_memory()
        yield Campaign(list(mta.events()), mta.log(), mta.complaints(), hops, sink.arrivals, honest, memory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_recipient_meets_its_fate(campaign: Campaign, case: Case) -> None:
    heard = campaign.hops[case.name].heard
    possible_fates = [[case.fate(number)] for number in range(3)]
    possible_fates += [[FATES[letter] for letter in fate] for fate in (case.follower, case.latecomer) if fate]
    for letter, possible in zip(letters(case), possible_fates, strict=True):
        address = f"{letter}@{domain(case)}"
        events = campaign.fates(address)
        assert len(events) == 1, (address, events)
        fate = events[0]["event"]
        assert fate in possible, (address, events)
        assert (
            not case.reply
            or fate == DELIVERED
            or case.reply in f"{events[0]['code']} {events[0]['enhanced']} {events[0]['reply']}"
        )
        # The sender is told of what failed, once, and of nothing else.
        reports = campaign.reports(address)
        assert [str(fields["Action"]) for _, fields in reports] == (["failed"] if fate == FAILED else []), address
    assert heard.crashes == []
    assert heard.connections > 0

    # Nothing reached the server that is no command of ours, and no message that is not one of ours, whole.
    assert [line for line in heard.commands if not COMMAND.fullmatch(line)] == []
    messages = {case.content, SMALL} if case.follower or case.latecomer else {case.content}
    for content in heard.contents:
        own = re.sub(rb"\AReceived:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", content)
        if case.name in CONVERTED:
            assert fit(own)
            assert parts(own) == parts(case.content)
        else:
            # An empty one ends what a server waits for that has refused everybody (RFC 2920 §3.1).
            assert own in messages or (own == b"" and case.fates == "F")
    assert len(heard.contents) <= 1 + bool(case.follower) + bool(case.latecomer)
    # No false "delivered": the server had the message.
    delivered = (DELIVERED in [case.fate(number) for number in range(3)]) + (case.follower == "D")
    delivered += case.latecomer == "D"
    assert len([content for content in heard.contents if content]) >= delivered
    assert heard.said < ENDLESS // 4


def test_honest_mail_is_delivered_beside_them_once_and_unchanged(campaign: Campaign) -> None:
    came = [arrival for arrival in campaign.sink if arrival.reverse_path]
    assert {arrival.forward_paths[0]: arrival.digest for arrival in came} == campaign.honest
    assert len(came) == len(campaign.honest)
    assert {arrival.forward_paths for arrival in campaign.sink if not arrival.reverse_path} == {(SENDER,)}


def test_memory_stays_flat(campaign: Campaign) -> None:
    before, peak = campaign.memory
    print(f"{len(CASES)} next hops: memory {before / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")
    assert peak - before < MEMORY_GROWTH


def test_what_they_said_does_no_harm_in_log_and_reports(campaign: Campaign) -> None:
    assert campaign.complaints == []
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", campaign.log) is None
    (address,) = [f"a@{domain(case)}" for case in CASES if case.name == "octets-beyond-ascii"]
    ((report, fields),) = campaign.reports(address)
    text = b"".join(octets or b"" for _, octets in parts(report.as_bytes())).decode()
    assert re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text) is None
    assert str(fields["Diagnostic-Code"]).startswith("smtp; 550 5.1.1")
    assert fields.as_bytes().isascii()


def test_what_may_have_arrived_is_said(campaign: Campaign) -> None:
    """RFC 5321 §4.5.3.2.6: the message was out, and no answer came; it will be sent again."""
    uncertain = {event["id"] for event in campaign.events if event["event"] == "delivery_uncertain"}
    names = {
        event["forward_path"].partition("@")[2].removesuffix(".test")
        for event in campaign.events
        if event.get("id") in uncertain and event["event"] == DEFERRED
    }
    assert names == UNCERTAIN


def test_nothing_was_sent_ahead_to_a_server_without_pipelining(campaign: Campaign) -> None:
    assert campaign.hops["no-pipelining"].heard.most_at_once == 1
    assert campaign.hops["honest"].heard.most_at_once > 1
    assert campaign.hops["no-pipelining"].heard.connections == 1
