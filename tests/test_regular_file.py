"""The administrator's files: what is none is refused with a clear word, and nobody waits for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rigs import certificates

from mtatwist.auth import user_file
from mtatwist.auth.user_file import UserFileError
from mtatwist.authorities import AuthoritiesError, read_authorities
from mtatwist.recipients.files import FileError, read_table
from mtatwist.regular_file import NotRegular, TooLarge, read_regular
from mtatwist.tls import keypair
from mtatwist.tls.keypair import CertificateError, Files
from mtatwist.tls.policy import Policy, server_context


def ask_clients(path: str) -> None:
    """Begin to ask for certificates of these authorities."""
    with tempfile.TemporaryDirectory() as directory:
        made = certificates.make(Path(directory))
        pair = keypair.read(Files(str(made.certificate), str(made.key)))
    server_context(pair, Policy(client_certificates="ask", client_ca_file=path))


READERS: dict[str, tuple[Callable[[str], Any], type[Exception]]] = {
    "certificates": (lambda path: keypair.read(Files(path, path)), CertificateError),
    "authorities": (read_authorities, AuthoritiesError),
    "client authorities": (ask_clients, CertificateError),
    "users": (user_file.read, UserFileError),
    "recipients": (lambda path: read_table(path, str), FileError),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is not a file"),
        (os.mkdir, "Is a directory"),
        (lambda path: os.symlink("/dev/zero", path), "is not a file"),
    ],
    ids=["pipe", "directory", "device"],
)
def test_each_reader_refuses_it(reader: str, make: Callable[[str], None], words: str, tmp_path: Path) -> None:
    read, error = READERS[reader]
    path = str(tmp_path / "file")
    make(path)
    with pytest.raises(error) as refused:
        read(path)
    assert path in str(refused.value)
    assert words in str(refused.value)


def test_a_pipe_that_somebody_writes_to_is_none_either(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    os.write(writer, b"x" * 100)
    with pytest.raises(NotRegular, match="is not a file"):
        read_regular(path, 1000)
    os.close(writer)


def test_it_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    content, facts = read_regular(str(path), 1000)
    assert content == b"x" * 1000
    assert facts.st_ino == path.stat().st_ino
    with pytest.raises(TooLarge, match="is larger than 999 octets"):
        read_regular(str(path), 999)
