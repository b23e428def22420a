"""Transcripts in the manual, replayed: commands as they stand there have to print what stands there.

In what is printed, "…" stands for any text within a line and, on a line of its own, for any lines. How many blanks are
between words makes no difference: tables are as wide as what is in them.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rigs.processes import wait_until

ANY = "…"


class Step(NamedTuple):
    """A command, and what it prints."""

    command: str
    expected: list[str]


def steps(page: str) -> list[Step]:
    """Those of all console blocks of a page, in order."""
    found: list[Step] = []
    for block in re.findall(r"^\.\. code-block:: console\n\n((?: {4}.*\n|\n)+)", page, re.MULTILINE):
        for line in block.rstrip("\n").split("\n"):
            text = line[4:].rstrip()
            if text.startswith("$ "):
                found.append(Step(text[2:], []))
            elif found:
                found[-1].expected.append(text)
    return found


def on_a_terminal(command: str, directory: Path, environment: Mapping[str, str], seconds: float = 120) -> str:
    """Run a command as the shell would, on a terminal of its own; gives what it prints."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env={**os.environ, "TERM": "dumb", **environment},
    ) as child:
        os.close(theirs)
        printed = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:
                # That is how the end of a terminal's other side shows.
                break
            if not more:
                break
            printed += more
        os.close(ours)
        child.wait(seconds)
    return re.sub(r"\r*\n", "\n", printed.decode())


def fits(expected: list[str], printed: str) -> bool:
    """Is it what was to be printed?"""
    pattern = ""
    for line in expected:
        if line.strip() == ANY:
            pattern += r"(?:.*\n)*?"
        else:
            words = [re.escape(word).replace(re.escape(ANY), ".*") for word in line.split()]
            pattern += r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n"
    return re.fullmatch(pattern, printed) is not None


def replay(step: Step, directory: Path, environment: Mapping[str, str], *, again: bool) -> None:
    """Run it, and compare. With ``again`` it may be run several times, until what it tells of has happened."""
    printed = on_a_terminal(step.command, directory, environment)
    if fits(step.expected, printed):
        return
    wanted = "\n".join(step.expected)
    assert again, f"$ {step.command}\n{printed}\nwas to print:\n{wanted}"

    def fits_now() -> bool:
        nonlocal printed
        printed = on_a_terminal(step.command, directory, environment)
        return fits(step.expected, printed)

    wait_until(fits_now, 60, lambda: f"$ {step.command}\n{printed}\nwas to print:\n{wanted}")
