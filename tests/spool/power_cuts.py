"""Accepts and delivers, with a power cut after each step: ``power_cuts.py DATA_DIR IMAGES LIES``.

For test_crash_states: prints the numbers of the messages that are acknowledged and not delivered at each cut.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from crashing import LARGE, SMALL, Run, say
from rigs.stable_storage import StableStorage

from mtatwist.envelope import Message, State


def main(data_dir: str, images: str, lies: str) -> None:
    disk = StableStorage(Path(data_dir), lies)
    run = Run(data_dir)
    run.spool.start()
    waiting: list[Message] = []
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        disk.power_cut(Path(images) / str(cuts))
        say("cut", cuts, *(message.number for message in waiting))
        cuts += 1

    for size in (SMALL, LARGE, SMALL, SMALL, LARGE, LARGE, SMALL):
        waiting.append(run.store(size))
        cut()
    for _ in range(3):
        run.settle(waiting.pop(0), State.DELIVERED)
        cut()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
