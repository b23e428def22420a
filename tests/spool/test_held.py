"""However many messages come at once, only so much of them is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.pump import Pump

from mtatwist.envelope import Envelope, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.spool import writer
from mtatwist.spool.sqlite import SqliteSpool

WRITERS, CHUNK, SIZE = 30, 8 * 1024, 200_000
LIMIT = 10 * SIZE


class Rig:
    """A spool whose writers may hold ten of the messages together."""

    def __init__(self, directory: Path) -> None:
        self.pump: Any = Pump()
        self.metrics = Instruments()
        self.spool = SqliteSpool(directory, reactor=self.pump, metrics=self.metrics)
        self.spool.start()

    @property
    def held(self) -> int:
        return self.spool._held.octets

    def begin(self) -> list[Any]:
        """Writers that have come far, in turns; at no time too much is held."""
        writers = [self.spool.create(Envelope("a@b", [Recipient(0, "c@d", "d")])) for _ in range(WRITERS)]
        for start in range(0, SIZE, CHUNK):
            for number, one in enumerate(writers):
                pause = one.write(bytes([number]) * min(CHUNK, SIZE - start))
                if pause is not None:
                    self.pump.wait(pause)
                assert self.held <= LIMIT + WRITERS * (writer.LITTLE + 2 * CHUNK)
        return writers


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(writer, "HELD_LIMIT", LIMIT)
    made = Rig(tmp_path / "data")
    yield made
    made.spool.stop()


def test_what_is_too_much_goes_to_files_and_all_arrives(rig: Rig) -> None:
    messages = [rig.pump.wait(one.commit()) for one in rig.begin()]
    assert rig.held == 0
    # How often depends on the threads; but half of the limit must have become free in between, and come again.
    assert 1 <= rig.metrics.memory_short.value <= WRITERS * SIZE // (LIMIT // 2)
    assert {message.body is None for message in messages} == {True}
    for number, message in enumerate(messages):
        assert rig.pump.wait(rig.spool.read(message, 0, SIZE + 1)) == bytes([number]) * SIZE


def test_what_is_given_up_is_held_no_more(rig: Rig) -> None:
    writers = rig.begin()
    for one in writers:
        one.abort()
    assert rig.held == 0
    # What a thread still wrote of them is not counted a second time when it is done.
    another = rig.spool.create(Envelope("a@b", [Recipient(0, "c@d", "d")]))
    another.write(b"x" * SIZE * 2)
    rig.pump.wait(another.commit())
    assert rig.held == 0


def test_what_could_not_be_stored_is_held_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (rig.spool.create(Envelope("a@b", [Recipient(0, "c@d", "d")])) for _ in range(2))
    monkeypatch.setattr(rig.spool._ballast, "given_back", True, raising=False)
    one.write(b"x" * 1000)
    with pytest.raises(OSError, match="full"):
        rig.pump.wait(one.commit())
    other.write(b"x" * 1000)
    other.abort()
    assert rig.held == 0


def test_a_little_message_stays_in_its_row_all_the_same(rig: Rig) -> None:
    rig.begin()
    little = rig.spool.create(Envelope("a@b", [Recipient(0, "c@d", "d")]))
    little.write(b"x" * 5000)
    assert rig.pump.wait(little.commit()).body == b"x" * 5000
