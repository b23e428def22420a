"""Final delivery into real Maildirs."""

from __future__ import annotations

import email
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.pump import Pump
from transports.peer import message
from twisted.internet.defer import Deferred, gatherResults, succeed

from mtatwist.envelope import Deferral, Delivered, Failure, Message, Outcome
from mtatwist.interfaces import DirectoryTrouble
from mtatwist.spool.memory import MemorySpool
from mtatwist.transports.maildir import READ_SIZE, MaildirTransport

BODY = b"Subject: x\r\n\r\nhello\r\n"


class Rig:
    """A transport with a spool, into Maildirs below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pump: Any = Pump()
        self.spool: Any = MemorySpool()
        self.own: set[str] = set()
        self.trouble = False
        self.transport = MaildirTransport(
            spool=self.spool, reactor=self.pump, recipient_delimiter="+", keeps_detail=self.keeps_detail
        )

    async def keeps_detail(self, address: str) -> bool:
        """Those in ``own`` have a Maildir with their detail; in ``trouble``, nobody can tell."""
        if self.trouble:
            raise DirectoryTrouble("ldap1.test: connection refused")
        return address in self.own

    def boxes(self) -> list[str]:
        """The Maildirs there are at d.test."""
        return sorted(os.listdir(self.directory / "d.test"))

    def begin(self, what: Message, template: str = "{domain}/{local}") -> Deferred[list[Outcome]]:
        self.spool.messages[what.number] = what

        async def deliver() -> list[Outcome]:
            delivery = await self.transport.connect(f"{self.directory}/{template}")
            assert delivery.usable
            return await delivery.deliver(what, what.envelope.recipients)

        return Deferred.fromCoroutine(deliver())

    def deliver(self, what: Message, template: str = "{domain}/{local}") -> list[Outcome]:
        return self.pump.wait(self.begin(what, template))

    def files(self, box: str) -> list[bytes]:
        """The messages in a Maildir."""
        assert os.listdir(self.directory / box / "tmp") == []
        return [path.read_bytes() for path in (self.directory / box / "new").iterdir()]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "mail")
    made.directory.mkdir()
    yield made
    made.transport.stop()


def test_each_recipient_gets_a_file_with_line_feeds_and_one_return_path(rig: Rig) -> None:
    body = b"Subject: x\r\nReturn-Path: <liar@b.test>\r\nReturn-path : <liar\r\n @b.test>\r\nTo: y\r\n\r\n"
    body += b"Return-Path: z\r\n"
    outcomes = rig.deliver(message(body, "C@D.test", "e@d.test"))
    assert [type(outcome) for outcome in outcomes] == [Delivered] * 2
    expected = b"Return-Path: <a@b.test>\nSubject: x\nTo: y\n\nReturn-Path: z\n"
    assert rig.files("d.test/c") == rig.files("d.test/e") == [expected]


def test_a_message_that_is_all_header_has_one_return_path_too(rig: Rig) -> None:
    rig.deliver(message(b"Return-Path: <liar@b.test>\r\nSubject: x\r\n", reverse_path=""))
    assert rig.files("d.test/c") == [b"Return-Path: <>\nSubject: x\n"]


@pytest.mark.parametrize("detail", ["+random0", "+", "+a+b", "+../x", "+É"])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_detail_makes_no_maildir(rig: Rig, detail: str, quoted: bool) -> None:
    local = f'"user2{detail}"' if quoted else f"user2{detail}"
    assert [type(outcome) for outcome in rig.deliver(message(BODY, f"{local}@d.test"))] == [Delivered]
    assert rig.boxes() == ["user2"]


def test_quotes_that_are_needed_without_the_detail_stay(rig: Rig) -> None:
    rig.deliver(message(BODY, '"john doe"@d.test', '"john doe+x y"@d.test', '"John \\"doe+x"@d.test'))
    assert rig.boxes() == ['"john \\"doe"', '"john doe"']
    assert len(rig.files('d.test/"john doe"')) == 2


def test_nobody_is_left_of_a_detail_alone(rig: Rig) -> None:
    rig.deliver(message(BODY, "+x@d.test"))
    assert rig.boxes() == ["+x"]


@pytest.mark.parametrize("address", ['"../x+y"@d.test', '"+/../y"@d.test', "a/b+c@d.test", "x+y@.."])
def test_no_address_with_a_detail_leads_out_of_the_directory(rig: Rig, address: str) -> None:
    (outcome,) = rig.deliver(message(BODY, address))
    assert isinstance(outcome, Failure)
    assert (outcome.reply.code, outcome.reply.enhanced) == (550, "5.1.3")
    assert os.listdir(rig.directory.parent) == ["mail"]
    assert os.listdir(rig.directory) == []


def test_whoever_exists_with_the_detail_has_a_maildir_of_their_own(rig: Rig) -> None:
    rig.own = {"Jean+Luc@d.test"}
    rig.deliver(message(BODY, "Jean+Luc@d.test", "jean@d.test", "jean+x@d.test"))
    assert rig.boxes() == ["jean", "jean+luc"]
    assert len(rig.files("d.test/jean")) == 2


def test_mail_waits_while_nobody_can_tell_whose_it_is(rig: Rig) -> None:
    """Whoever has no detail gets theirs."""
    rig.trouble = True
    waiting, delivered = rig.deliver(message(BODY, "jean+luc@d.test", "jean@d.test"))
    assert isinstance(waiting, Deferral)
    assert (waiting.reply.code, waiting.reply.enhanced) == (451, "4.4.3")
    assert "ldap" not in waiting.reply.text
    assert isinstance(delivered, Delivered)
    assert rig.boxes() == ["jean"]


def test_all_spellings_of_an_address_have_one_maildir(rig: Rig) -> None:
    rig.deliver(message(BODY, "É@d.test", "e\u0301@d.test", "E\u0301@D.test"))
    assert [unicodedata.normalize("NFC", name) for name in rig.boxes()] == ["é"]


def test_others_may_not_read_it(rig: Rig) -> None:
    rig.deliver(message(BODY))
    assert (rig.directory / "d.test/c").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "address",
    [
        "../x@d.test",
        ".x@d.test",
        "a/b@d.test",
        "a\0b@d.test",
        "x@..",
        "x@d/e",
        "x@.d.test",
        "..@d.test",
        "@d.test",
        "x@",
    ],
)
def test_no_address_leads_out_of_the_directory(rig: Rig, address: str) -> None:
    outcomes = rig.deliver(message(BODY, address, "c@d.test"))
    assert isinstance(outcomes[0], Failure)
    assert (outcomes[0].reply.code, outcomes[0].reply.enhanced) == (550, "5.1.3")
    assert isinstance(outcomes[1], Delivered)
    assert os.listdir(rig.directory.parent) == ["mail"]
    assert os.listdir(rig.directory) == ["d.test"]
    assert os.listdir(rig.directory / "d.test") == ["c"]


def test_braces_in_an_address_are_no_template(rig: Rig) -> None:
    assert isinstance(rig.deliver(message(BODY, "{domain}@d.test"))[0], Delivered)
    assert len(rig.files("d.test/{domain}")) == 1


@pytest.mark.parametrize("blocked", ["d.test", "d.test/c", "d.test/c/new"])
def test_a_directory_that_cannot_be_written_defers(rig: Rig, blocked: str) -> None:
    path = rig.directory / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file where a directory should be")
    (outcome,) = rig.deliver(message(BODY))
    assert isinstance(outcome, Deferral)
    assert (outcome.reply.code, outcome.reply.enhanced) == (451, "4.2.0")
    assert str(rig.directory) not in outcome.reply.text
    path.unlink()
    assert isinstance(rig.deliver(message(BODY))[0], Delivered)


@pytest.mark.parametrize("there", [[], ["tmp"], ["tmp", "new", "cur"]])
def test_a_maildir_that_is_only_half_there_is_completed(rig: Rig, there: list[str]) -> None:
    """An administrator may have made the directory, or a crash come between."""
    for name in ("", *there):
        (rig.directory / "d.test" / "c" / name).mkdir(parents=True, exist_ok=True)
    assert isinstance(rig.deliver(message(BODY))[0], Delivered)
    assert len(rig.files("d.test/c")) == 1


def test_many_first_messages_for_a_new_mailbox_at_once(rig: Rig) -> None:
    pending = []
    for number in range(1, 21):
        what = message(BODY)
        what.number = number
        pending.append(rig.begin(what))
    outcomes = rig.pump.wait(gatherResults(pending))
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    assert len(rig.files("d.test/c")) == 20


def test_a_large_message_is_read_by_the_piece(rig: Rig) -> None:
    body = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 200_000
    asked: list[int] = []
    read: Callable[..., Deferred[bytes]] = rig.spool.read

    def spy(what: Message, offset: int, size: int) -> Deferred[bytes]:
        asked.append(size)
        return read(what, offset, size)

    rig.spool.read = spy
    rig.deliver(message(body))
    assert rig.files("d.test/c") == [b"Return-Path: <a@b.test>\n" + body.replace(b"\r\n", b"\n")]
    assert max(asked) <= READ_SIZE
    assert len(asked) > 8


def test_a_spool_that_cannot_be_read_leaves_nothing_behind(rig: Rig) -> None:
    body = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20_000
    read: Callable[..., Deferred[bytes]] = rig.spool.read

    def breaks(what: Message, offset: int, size: int) -> Any:
        if offset:
            raise OSError("the disk is broken")
        return read(what, offset, size)

    rig.spool.read = breaks
    (outcome,) = rig.deliver(message(body))
    assert isinstance(outcome, Deferral)
    assert rig.files("d.test/c") == []


def test_a_message_that_is_gone_is_not_delivered_empty(rig: Rig) -> None:
    rig.spool.read = lambda what, offset, size: succeed(b"")
    (outcome,) = rig.deliver(message(BODY))
    assert isinstance(outcome, Deferral)
    assert not (rig.directory / "d.test/c").exists()


def binary(body: bytes) -> Message:
    made = message(body, "c@d.test")
    made.envelope.body_type = "BINARYMIME"
    return made


def test_what_a_change_of_line_ends_would_spoil_is_encoded(rig: Rig) -> None:
    octets = b"\0\r\n\r\r\n\n\xff." * 1000
    header = b"MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    assert [type(outcome) for outcome in rig.deliver(binary(header + octets))] == [Delivered]
    (file,) = rig.files("d.test/c")
    stored = email.message_from_bytes(file)
    assert stored["Content-Transfer-Encoding"] == "base64"
    assert stored.get_payload(decode=True) == octets


def test_binary_that_is_text_stays_as_it_is(rig: Rig) -> None:
    assert isinstance(rig.deliver(binary(b"Subject: x\r\n\r\n\xe9\r\n"))[0], Delivered)
    assert rig.files("d.test/c") == [b"Return-Path: <a@b.test>\nSubject: x\n\n\xe9\n"]


def test_binary_that_cannot_be_encoded_fails(rig: Rig) -> None:
    (outcome,) = rig.deliver(binary(b"Subject: \0\r\n\r\nx\r\n"))
    assert isinstance(outcome, Failure)
    assert (outcome.reply.code, outcome.reply.enhanced) == (554, "5.6.9")
    assert not (rig.directory / "d.test/c").exists()
