"""A machine clock that the test sets while the server runs; the monotonic clock is left alone."""

from __future__ import annotations

from pathlib import Path

from rigs.processes import need


class FakeClock:
    """``environment`` is for the process; what is set counts from the next look at the clock."""

    def __init__(self, directory: Path) -> None:
        need("faketime")
        # Its kind for programs with threads.
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = directory / "clock"
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """Differ from the true time by so much from now on: "+6d", "-1h"."""
        new = self._file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.rename(self._file)
