"""A file that changes while the server runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mtatwist.metrics.instruments import Instruments
from mtatwist.recipients.files import PATIENCE, READ_LIMIT, FileError, WatchedTable
from mtatwist.recipients.tables import Aliases, parse_aliases


class Watched:
    """A file of aliases; threads answer at once, or when ``hold`` is over."""

    def __init__(self, path: Path, content: bytes = b"a: b\n") -> None:
        self.path = path
        self.clock = Clock()
        self.metrics = Instruments()
        self.hold = False
        self.held: list[Callable[[], None]] = []
        self.reads = 0
        path.write_bytes(content)
        self.table: WatchedTable[Aliases] = WatchedTable(
            str(path),
            lambda text: parse_aliases(text, lambda domain: True),
            clock=self.clock,
            in_thread=self._in_thread,
            metrics=self.metrics,
        )

    def _in_thread(self, read: Callable[[], Any]) -> Deferred[Any]:
        self.reads += 1
        done: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                done.callback(read())
            except Exception as error:
                done.errback(error)

        if self.hold:
            self.held.append(run)
        else:
            run()
        return done

    def write(self, content: str) -> None:
        """Another file in its place."""
        other = self.path.with_suffix(".new")
        other.write_text(content)
        os.replace(other, self.path)

    def ask(self) -> list[list[str]]:
        """The keys of the aliases, in a list once they are there."""
        answers: list[list[str]] = []
        asked = Deferred.fromCoroutine(self.table.current())
        asked.addCallback(lambda aliases: answers.append([name.local for name in aliases.members]))
        return answers

    def keys(self) -> list[str]:
        (answer,) = self.ask()
        return answer


@pytest.fixture
def file(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "aliases")


def test_a_change_is_seen_after_a_second_by_who_asks_then(file: Watched) -> None:
    file.write("a: b\nc: d\n")
    assert file.keys() == ["a"]
    assert file.reads == 0
    file.clock.advance(1)
    assert file.keys() == ["a", "c"]
    assert file.keys() == ["a", "c"]
    assert file.reads == 1


def test_what_did_not_change_is_not_parsed_again(file: Watched) -> None:
    before = Deferred.fromCoroutine(file.table.current())
    file.clock.advance(1)
    after = Deferred.fromCoroutine(file.table.current())
    assert after.result is before.result
    assert file.reads == 1


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda file: file.write("a: b\nbroken\n"), "aliases:2: is not an alias"),
        (lambda file: file.path.write_bytes(b"a: b\nx: \xff\n"), "aliases:2: is not UTF-8"),
        (lambda file: file.path.unlink(), "cannot be read: No such file"),
        (lambda file: file.write("x:\n" * 25), "aliases:20:"),
    ],
    ids=["syntax", "encoding", "gone", "much"],
)
def test_what_is_wrong_is_told_of_once_and_changes_nothing(
    file: Watched, break_it: Callable[[Watched], None], words: str
) -> None:
    break_it(file)
    with capturedLogs() as events:
        for _ in range(3):
            file.clock.advance(1)
            assert file.keys() == ["a"]
    (event,) = events
    assert event["log_format"] == "file_refused"
    assert event["path"] == str(file.path)
    assert words in event["reason"]
    assert len(event["reason"]) < 5000
    assert file.metrics.recipient_files_refused.value == 1
    file.write("c: d\n")
    file.clock.advance(1)
    assert file.keys() == ["c"]


def test_the_same_mistake_again_is_told_of_again(file: Watched) -> None:
    for content in ("broken\n", "a: b\n", "broken\n"):
        file.write(content)
        file.clock.advance(1)
        file.keys()
    assert file.metrics.recipient_files_refused.value == 2


def test_nobody_waits_long_for_a_disk_that_is_away(file: Watched) -> None:
    file.hold = True
    file.write("c: d\n")
    file.clock.advance(1)
    first = file.ask()
    second = file.ask()
    assert (first, second, file.reads) == ([], [], 1)
    file.clock.advance(PATIENCE)
    assert (first, second) == ([["a"]], [["a"]])
    # The next one does not wait at all, and no other thread is taken.
    file.clock.advance(10)
    assert (file.keys(), file.reads) == (["a"], 1)
    file.held.pop()()
    assert file.keys() == ["c"]


def test_an_exception_in_a_round_does_not_end_it(file: Watched) -> None:
    """Whatever a thread may raise."""

    def crash(read: Any) -> Deferred[Any]:
        raise RuntimeError("no thread")

    works, file.table._in_thread = file.table._in_thread, crash
    file.clock.advance(1)
    with capturedLogs() as events:
        assert file.keys() == ["a"]
    assert [event["log_format"] for event in events] == ["file_check_failed"]
    file.table._in_thread = works
    file.write("c: d\n")
    file.clock.advance(1)
    assert file.keys() == ["c"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"broken\n", ["aliases:1: is not an alias"]),
        (b"a: |x\nb: c\nd:\n", ["aliases:1: ", "aliases:3: "]),
        (b"x:\n" * 22, ["aliases:"] * 20 + ["aliases: and 2 more wrong lines"]),
        (b"\n\xfe", ["aliases:2: is not UTF-8 text"]),
    ],
)
def test_a_wrong_file_at_the_start(tmp_path: Path, content: bytes, words: list[str]) -> None:
    with pytest.raises(FileError) as caught:
        Watched(tmp_path / "aliases", content)
    assert len(caught.value.reasons) == len(words)
    for reason, word in zip(caught.value.reasons, words, strict=True):
        assert reason.startswith(str(tmp_path))
        assert word in reason


def test_a_file_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="larger than 32 MiB"):
        Watched(tmp_path / "aliases", b"#" * (READ_LIMIT + 1))


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert Watched(tmp_path / "aliases", b"\xef\xbb\xbfa: b\r\n").keys() == ["a"]
